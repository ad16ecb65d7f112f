"""Half-written, damaged and vanishing files: always a clear answer, never another exception."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitriflow.errors import BadFile, Reason
from vitriflow.formats import (
    EerWriter,
    MrcWriter,
    State,
    TiffWriter,
    check_complete,
    describe,
    open_movie,
    write_mrc,
)

Cut = Callable[[str, int], Path]
FORMATS = ["mrc", "tif", "eer"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_is_complete(whole: dict[str, Path], name: str) -> None:
    found = check_complete(whole[name])
    assert found.state is State.COMPLETE
    assert found.reason is None
    assert found.n_frames == {"mrc": 5, "tif": 5, "eer": 12}[name]
    assert found.shape == {"mrc": (24, 32), "tif": (24, 32), "eer": (64, 48)}[name]


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_at_any_byte_is_growing_and_refused(
    tmp_path: Path, whole: dict[str, Path], name: str
) -> None:
    data = whole[name].read_bytes()
    path = tmp_path / f"cut.{name}"
    sample = np.random.default_rng(11).integers(1, len(data), 150).tolist()
    for n_bytes in [*range(1, 40), *sample, 1023, 1024, 1025, len(data) - 1]:
        path.write_bytes(data[:n_bytes])
        found = check_complete(path)
        assert found.state is State.GROWING, (n_bytes, found)
        assert found.reason is Reason.TRUNCATED
        with pytest.raises(BadFile) as caught:
            open_movie(path)
        assert caught.value.reason is Reason.TRUNCATED


def _use(path: Path) -> None:
    """Open and read a little of what may be nonsense; sizes that would fill the memory are left."""
    with open_movie(path, eer_frames_per_fraction=1 if path.suffix == ".eer" else None) as movie:
        if movie.shape[0] * movie.shape[1] < 1 << 24:
            for _ in movie.frames(0, 3):
                pass
            describe(path)


@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_file_with_wrong_bytes_raises_nothing_but_bad_file(
    tmp_path: Path, whole: dict[str, Path], name: str, data: st.DataObject
) -> None:
    raw = bytearray(whole[name].read_bytes())
    hot = st.integers(0, 1100) | st.integers(0, len(raw) - 1) | st.integers(len(raw) - 400, len(raw) - 1)
    for position in data.draw(st.lists(hot, min_size=1, max_size=6)):
        raw[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    path = tmp_path / f"wrong.{name}"
    path.write_bytes(raw)
    assert check_complete(path).text
    with contextlib.suppress(BadFile):
        _use(path)


SUFFIXES = ["mrc", "tif", "eer", "gain", "dm4", "star", "mdoc", "xml", "txt", "x"]


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=2000), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_are_described_without_an_exception(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(data)
    assert check_complete(path).state is not State.COMPLETE
    report = describe(path)
    assert report.lines or report.problems


def test_the_text_says_how_much_of_an_mrc_is_there(cut: Cut, whole: dict[str, Path]) -> None:
    frame = 24 * 32 * 2
    found = check_complete(cut("mrc", 1024 + 2 * frame + frame // 3))
    assert found.text == "holds 2.3 of the 5 frames that its header announces"
    assert check_complete(cut("mrc", 1024 + 5 * frame - 1)).text.startswith("holds 4.9 of the 5")
    assert check_complete(cut("mrc", 100)).text == "holds 100 of the 1024 bytes of an MRC header"


def test_the_text_says_how_many_pages_of_a_tiff_are_whole(cut: Cut, whole: dict[str, Path]) -> None:
    size = whole["tif"].stat().st_size
    found = check_complete(cut("tif", size - 30))
    assert found.n_frames == 4
    assert "the 4 pages before it are whole" in found.text


@pytest.mark.parametrize("suffix", ["mrc", "tif", "eer", "dat"])
def test_an_empty_file_is_growing_and_called_empty(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.touch()
    assert check_complete(path).state is State.GROWING
    assert check_complete(path).reason is Reason.EMPTY
    with pytest.raises(BadFile):
        open_movie(path)


@pytest.mark.parametrize("suffix", ["mrc", "tif", "eer"])
def test_a_file_allotted_but_not_written_is_growing(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(bytes(5000))
    assert check_complete(tmp_path / f"a.{suffix}").state is State.GROWING


def test_an_mrc_longer_than_its_header_says_is_broken(tmp_path: Path, whole: dict[str, Path]) -> None:
    (tmp_path / "a.mrc").write_bytes(whole["mrc"].read_bytes() + b"more")
    found = check_complete(tmp_path / "a.mrc")
    assert (found.state, found.reason) == (State.BROKEN, Reason.WRONG_SIZE)
    assert "4 bytes longer" in found.text


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [(0, -5, "nx = -5"), (4, 10**9, "ny = 1000000000"), (12, 77, "mode = 77"), (92, -1, "nsymbt = -1")],
)
def test_an_absurd_mrc_header_is_broken(
    tmp_path: Path, whole: dict[str, Path], place: int, value: int, words: str
) -> None:
    raw = bytearray(whole["mrc"].read_bytes())
    raw[place : place + 4] = value.to_bytes(4, "little", signed=True)
    (tmp_path / "a.mrc").write_bytes(raw)
    found = check_complete(tmp_path / "a.mrc")
    assert (found.state, found.reason) == (State.BROKEN, Reason.UNREADABLE)
    assert words in found.text


def test_complex_mrc_is_refused_as_not_an_image(tmp_path: Path, whole: dict[str, Path]) -> None:
    raw = bytearray(whole["mrc"].read_bytes())
    raw[12:16] = (4).to_bytes(4, "little")
    (tmp_path / "a.mrc").write_bytes(raw)
    assert check_complete(tmp_path / "a.mrc").reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("name", FORMATS)
def test_a_wrong_beginning_is_broken(tmp_path: Path, whole: dict[str, Path], name: str) -> None:
    raw = whole[name].read_bytes()
    (tmp_path / f"a.{name}").write_bytes(b"\xff\xfe\xfd\xfc" * 300 + raw[1200:])
    assert check_complete(tmp_path / f"a.{name}").state is State.BROKEN


def test_a_tiff_whose_chain_runs_in_a_circle_is_broken(tmp_path: Path, counts: np.ndarray) -> None:
    path = tmp_path / "a.eer"
    with EerWriter(path, (8, 8)) as writer:
        writer.write(np.eye(8, dtype=np.uint8))
    raw = bytearray(path.read_bytes())
    raw[-8:] = raw[8:16]  # the last link points at the first directory
    path.write_bytes(raw)
    found = check_complete(path)
    assert found.state is State.BROKEN
    assert "circle" in found.text


def test_pages_of_different_size_are_no_movie(tmp_path: Path) -> None:
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(np.zeros((8, 8), np.uint8))
        tiff.write(np.zeros((8, 9), np.uint8))
    with pytest.raises(BadFile, match="page 2 of 9 x 8") as caught:
        open_movie(tmp_path / "a.tif")
    assert caught.value.reason is Reason.WRONG_SIZE


def test_colour_is_no_movie(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(BadFile) as caught:
        open_movie(tmp_path / "a.tif")
    assert caught.value.reason is Reason.UNSUPPORTED


def test_damaged_compressed_data_are_a_bad_file(tmp_path: Path, counts: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    with TiffWriter(path, "deflate") as writer:
        writer.write(counts[0])
    from vitriflow.formats._ifd import TiffChain
    from vitriflow.formats._raw import RawFile

    with RawFile(path) as file:
        at = int(TiffChain(file).pages[0].offsets[0])
    raw = bytearray(path.read_bytes())
    raw[at : at + 40] = b"\xaa" * 40
    path.write_bytes(raw)
    with open_movie(path) as movie, pytest.raises(BadFile) as caught:
        movie.frame(0)
    assert caught.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_shrinks_while_it_is_read_is_a_bad_file(
    tmp_path: Path, whole: dict[str, Path], name: str
) -> None:
    path = tmp_path / f"a.{name}"
    shutil.copy(whole[name], path)
    with open_movie(path) as movie:
        with path.open("r+b") as file:
            file.truncate(200)
        with pytest.raises(BadFile) as caught:
            movie.frame(-1)
    assert caught.value.reason is Reason.CHANGED


def test_a_missing_file_a_folder_and_a_packed_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(BadFile) as caught:
        check_complete(tmp_path / "gone.mrc")
    assert caught.value.reason is Reason.VANISHED
    with pytest.raises(BadFile) as caught:
        open_movie(tmp_path)
    assert caught.value.reason is Reason.UNREADABLE
    (tmp_path / "a.bz2").write_bytes(b"BZh91AY&SY" + bytes(100))
    with pytest.raises(BadFile, match="bzip2"):
        open_movie(tmp_path / "a.bz2")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadFile) as caught:
        open_movie(tmp_path / "notes.txt")
    assert caught.value.reason is Reason.NOT_A_MOVIE


def test_an_mrc_written_as_a_camera_does_is_growing_until_its_last_frame(
    tmp_path: Path, counts: np.ndarray
) -> None:
    states = []
    with MrcWriter(tmp_path / "a.mrc", (24, 32), np.uint8, 1.0, n_frames=5) as writer:
        for frame in counts:
            states.append(check_complete(tmp_path / "a.mrc").state)
            writer.write(frame)
        states.append(check_complete(tmp_path / "a.mrc").state)
    assert states == [State.GROWING] * 5 + [State.COMPLETE]


def test_an_mrc_whose_length_is_not_known_is_growing_until_it_is_closed(
    tmp_path: Path, counts: np.ndarray
) -> None:
    with MrcWriter(tmp_path / "a.mrc", (24, 32), np.uint8) as writer:
        for frame in counts:
            writer.write(frame)
        assert check_complete(tmp_path / "a.mrc").state is State.GROWING
    assert check_complete(tmp_path / "a.mrc").n_frames == 5


def test_a_writer_that_stops_early_leaves_a_truncated_movie(tmp_path: Path, counts: np.ndarray) -> None:
    with MrcWriter(tmp_path / "a.mrc", (24, 32), np.uint8, n_frames=5) as writer:
        writer.write(counts[0])
    assert check_complete(tmp_path / "a.mrc").text == "holds 1.0 of the 5 frames that its header announces"


def test_eer_and_tiff_count_the_frames_that_are_there(tmp_path: Path, counts: np.ndarray) -> None:
    with TiffWriter(tmp_path / "a.tif") as tiff, EerWriter(tmp_path / "a.eer", (24, 32)) as eer:
        assert check_complete(tmp_path / "a.eer").state is State.GROWING
        for n_frames, frame in enumerate(counts, 1):
            tiff.write(frame)
            eer.write(np.minimum(frame, 1))
            for name in ("a.tif", "a.eer"):
                found = check_complete(tmp_path / name)
                assert (found.state, found.n_frames) == (State.COMPLETE, n_frames)


def test_an_eer_that_announces_more_frames_than_it_holds_says_so(tmp_path: Path) -> None:
    with EerWriter(tmp_path / "a.eer", (8, 8), {"numberOfFrames": "9"}) as writer:
        writer.write(np.eye(8, dtype=np.uint8))
    assert "announce 9" in check_complete(tmp_path / "a.eer").text


def test_large_volumes_are_located_not_read(tmp_path: Path) -> None:
    """Completeness of a sparse file of 6 GB is known at once: nothing but its header is read."""
    write_mrc(tmp_path / "a.mrc", np.zeros((1, 4, 4), np.float32), 1.0)
    raw = bytearray((tmp_path / "a.mrc").read_bytes()[:1024])
    for place, value in ((0, 11520), (4, 8184), (8, 16)):
        raw[place : place + 4] = value.to_bytes(4, "little")
    with (tmp_path / "a.mrc").open("wb") as file:
        file.write(raw)
        file.truncate(1024 + 11520 * 8184 * 16 * 4)
    assert check_complete(tmp_path / "a.mrc").state is State.COMPLETE
