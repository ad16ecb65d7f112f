"""Movies of every format: what is written is read back, in the same orientation."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from vitriflow.errors import BadFile, BadParameter, Reason
from vitriflow.formats import (
    EerWriter,
    MrcWriter,
    TiffWriter,
    check_complete,
    open_movie,
    read_image,
    write_mrc,
    write_tiff_movie,
)
from vitriflow.formats.eer_write import encode_events

Frames = NDArray[np.uint8]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "float32", "float16"])
def test_an_mrc_movie_is_read_back_as_it_was_written(tmp_path: Path, counts: Frames, dtype: str) -> None:
    frames = counts.astype(dtype)
    write_mrc(tmp_path / "m.mrcs", frames, 1.25, label="a Krios, été")
    with open_movie(tmp_path / "m.mrcs") as movie:
        assert (movie.format, movie.shape, movie.n_frames) == ("mrc", (24, 32), 5)
        assert movie.dtype == np.dtype(dtype)
        assert movie.pixel_size_A == pytest.approx(1.25)
        assert movie.metadata == {"label 0": "a Krios, ?t?"}
        np.testing.assert_array_equal(np.stack(list(movie.frames())), frames)


def test_mrcfile_finds_our_mrc_valid_and_reads_the_same(tmp_path: Path, counts: Frames) -> None:
    write_mrc(tmp_path / "m.mrc", counts.astype(np.float32), 0.9)
    assert mrcfile.validate(tmp_path / "m.mrc")
    with mrcfile.open(tmp_path / "m.mrc") as other:
        np.testing.assert_array_equal(other.data, counts)
        assert float(other.voxel_size.x) == pytest.approx(0.9)


def test_bytes_are_unsigned_only_with_the_flag_of_imod(tmp_path: Path) -> None:
    bright = np.full((1, 4, 6), 200, np.uint8)
    write_mrc(tmp_path / "flagged.mrc", bright, 1.0)
    data = bytearray((tmp_path / "flagged.mrc").read_bytes())
    data[152:160] = bytes(8)
    (tmp_path / "plain.mrc").write_bytes(data)
    assert read_image(tmp_path / "flagged.mrc").array[0, 0] == 200
    assert read_image(tmp_path / "plain.mrc").array[0, 0] == -56


def test_big_endian_mrc_is_read_in_native_order(tmp_path: Path, counts: Frames) -> None:
    with mrcfile.new(tmp_path / "m.mrc", counts.astype(">i2")) as other:
        assert other.header.mode.dtype.byteorder == ">"
    with open_movie(tmp_path / "m.mrc") as movie:
        assert movie.frame(3).dtype.isnative
        np.testing.assert_array_equal(movie.frame(3), counts[3])


@pytest.mark.parametrize("width", [6, 7])
def test_packed_4_bit_mrc_is_unpacked_low_half_first(tmp_path: Path, width: int) -> None:
    frame = np.arange(4 * width, dtype=np.uint8).reshape(4, width) % 16
    write_mrc(tmp_path / "m.mrc", frame, 1.0)
    header = bytearray((tmp_path / "m.mrc").read_bytes()[:1024])
    header[12:16] = (101).to_bytes(4, "little")
    padded = np.pad(frame, ((0, 0), (0, width % 2)))
    packed = (padded[:, 0::2] | padded[:, 1::2] << 4).astype(np.uint8)
    (tmp_path / "m.mrc").write_bytes(bytes(header) + packed.tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "m.mrc").array, frame)


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "zstd"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_movie_is_read_back_as_it_was_written(
    tmp_path: Path, counts: Frames, compression: str, big: bool
) -> None:
    path = tmp_path / "grid 3 Ölstrich é.tif"
    with TiffWriter(path, compression, 1.25, big) as writer:
        for frame in counts:
            writer.write(frame)
    with open_movie(path) as movie:
        assert (movie.format, movie.shape, movie.n_frames) == ("tiff", (24, 32), 5)
        assert movie.pixel_size_A == pytest.approx(1.25)
        np.testing.assert_array_equal(np.stack(list(movie.frames())), counts)


@pytest.mark.parametrize(
    "options",
    [{"rowsperstrip": 7, "predictor": True, "compression": "lzw"}, {"tile": (16, 16)}, {"byteorder": ">"}],
    ids=["strips with predictor", "tiles", "big-endian"],
)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_tiff_movies_of_other_writers_are_read(
    tmp_path: Path, counts: Frames, options: dict[str, object], dtype: str
) -> None:
    tifffile.imwrite(tmp_path / "m.tif", counts.astype(dtype), photometric="minisblack", **options)
    with open_movie(tmp_path / "m.tif") as movie:
        assert movie.dtype == np.dtype(dtype)
        assert movie.pixel_size_A is None
        np.testing.assert_array_equal(np.stack(list(movie.frames()))[:, ::-1], counts)


def test_row_0_of_a_tiff_is_the_top_and_comes_last(tmp_path: Path) -> None:
    picture = np.zeros((4, 6), np.uint8)
    picture[0, 1] = 9  # as tifffile writes it: near the top left
    tifffile.imwrite(tmp_path / "m.tif", picture)
    write_mrc(tmp_path / "m.mrc", picture[::-1].copy(), 1.0)
    image = read_image(tmp_path / "m.tif").array
    assert image[3, 1] == 9
    np.testing.assert_array_equal(read_image(tmp_path / "m.mrc").array, image)


def test_the_same_movie_is_the_same_array_through_every_format(tmp_path: Path, events: Frames) -> None:
    fraction = events[:4].sum(axis=0, dtype=np.uint8)
    write_mrc(tmp_path / "m.mrc", fraction, 1.0)
    write_tiff_movie(tmp_path / "m.tif", [fraction])
    with EerWriter(tmp_path / "m.eer", (64, 48)) as writer:
        for frame in events[:4]:
            writer.write(frame)
    for name in ("m.mrc", "m.tif", "m.eer"):
        with open_movie(tmp_path / name, eer_frames_per_fraction=4) as movie:
            np.testing.assert_array_equal(movie.frame(0), fraction, err_msg=name)


def test_frames_decoded_in_threads_keep_their_order(whole: dict[str, Path], counts: Frames) -> None:
    with open_movie(whole["tif"]) as movie:
        np.testing.assert_array_equal(np.stack(list(movie.frames(1, 4, workers=3))), counts[1:4])
        np.testing.assert_array_equal(movie.frame(-1), counts[-1])
        with pytest.raises(IndexError, match="no frame 5"):
            movie.frame(5)


def test_threads_never_run_far_ahead_of_the_reader(
    whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_movie(whole["eer"], eer_frames_per_fraction=1) as movie:
        started: list[int] = []
        read = movie._read

        def watched(index: int) -> NDArray[np.uint8]:
            started.append(index)
            return read(index)

        monkeypatch.setattr(movie, "_read", watched)
        frames = movie.frames(workers=2)
        next(frames)
        assert max(started) <= 2
        frames.close()  # a reader that stops early leaves no thread behind
        assert len(started) <= 4


def test_an_eer_is_grouped_and_what_does_not_fill_a_fraction_is_left_out(
    whole: dict[str, Path], events: Frames
) -> None:
    with open_movie(whole["eer"], eer_frames_per_fraction=5) as movie:
        assert (movie.format, movie.shape, movie.n_frames) == ("eer", (64, 48), 2)
        assert (movie.n_raw_frames, movie.raw_frames_per_frame) == (12, 5)
        assert movie.metadata == {"numberOfFrames": "12"}
        for i, frame in enumerate(movie.frames()):
            np.testing.assert_array_equal(frame, events[5 * i : 5 * i + 5].sum(axis=0))


def test_eer_fractions_of_many_frames_do_not_overflow(tmp_path: Path) -> None:
    lit = np.zeros((16, 16), np.uint8)
    lit[3, 4] = 1
    with EerWriter(tmp_path / "m.eer", (16, 16)) as writer:
        for _ in range(300):
            writer.write(lit)
    with open_movie(tmp_path / "m.eer", eer_frames_per_fraction=300) as movie:
        assert movie.frame(0)[3, 4] == 300
    with open_movie(tmp_path / "m.eer") as movie:
        assert (movie.raw_frames_per_frame, movie.n_frames) == (7, 42)


@pytest.mark.parametrize("upsampling", [1, 2, 3])
def test_eer_events_fall_into_the_right_sub_pixel(tmp_path: Path, upsampling: int) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.choice(20 * 28, 60, replace=False)
    y = pixels // 28 * 4 + rng.integers(0, 4, 60)
    x = pixels % 28 * 4 + rng.integers(0, 4, 60)
    with EerWriter(tmp_path / "m.eer", (20, 28)) as writer:
        writer.write_events(y, x)
    scale = 2 ** (upsampling - 1)
    expected = np.zeros((20 * scale, 28 * scale), int)
    np.add.at(expected, (y * scale // 4, x * scale // 4), 1)
    with open_movie(tmp_path / "m.eer", eer_upsampling=upsampling) as movie:
        np.testing.assert_array_equal(movie.frame(0), expected)


@pytest.mark.parametrize("last", [None, 126, 127, 253, 254, 380])
def test_eer_runs_at_the_edge_of_a_code_are_kept(tmp_path: Path, last: int | None) -> None:
    frame = np.zeros((3, 127), np.uint8)
    if last is not None:
        frame.flat[last] = 1
    with EerWriter(tmp_path / "m.eer", frame.shape) as writer:
        writer.write(frame)
    with open_movie(tmp_path / "m.eer") as movie:
        np.testing.assert_array_equal(movie.frame(0), frame)


@pytest.mark.parametrize(("compression", "bits"), [(65000, 8), (65002, 9)])
def test_eer_with_other_run_lengths_is_read(
    tmp_path: Path, events: Frames, compression: int, bits: int
) -> None:
    positions = np.flatnonzero(events[0])
    data = encode_events(positions, np.full(len(positions), 10), events[0].size, bits)
    tags = [(65007, 1, 1, bits, True), (65008, 1, 1, 2, True), (65009, 1, 1, 2, True)]
    with tifffile.TiffWriter(tmp_path / "m.eer", bigtiff=True) as tiff:
        tiff.write(
            iter([data]),
            shape=(64, 48),
            dtype=np.uint8,
            rowsperstrip=64,
            compression="lzw",
            metadata=None,
            extratags=tags,
        )
    path = tmp_path / "m.eer"
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags["Compression"].valueoffset  # type: ignore[union-attr]
    raw = bytearray(path.read_bytes())
    raw[at : at + 2] = compression.to_bytes(2, "little")
    path.write_bytes(raw)
    with open_movie(path) as movie:
        np.testing.assert_array_equal(movie.frame(0), events[0])


def test_the_sum_that_some_programs_put_before_eer_frames_is_not_a_frame(
    tmp_path: Path, events: Frames
) -> None:
    path = tmp_path / "m.eer"
    with EerWriter(path, (64, 48)) as writer:
        for frame in events:
            writer.write(frame)
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags["Compression"].valueoffset  # type: ignore[union-attr]
    raw[at : at + 2] = (1).to_bytes(2, "little")
    path.write_bytes(raw)
    with open_movie(path, eer_frames_per_fraction=1) as movie:
        assert movie.n_frames == 11
        np.testing.assert_array_equal(movie.frame(0), events[1])


def test_parameters_that_do_not_suit_an_eer_are_refused(whole: dict[str, Path]) -> None:
    with pytest.raises(BadParameter, match="1 to 12"):
        open_movie(whole["eer"], eer_frames_per_fraction=13)
    with pytest.raises(BadParameter, match="eer_upsampling"):
        open_movie(whole["eer"], eer_upsampling=4)


def test_writers_refuse_what_they_cannot_keep(tmp_path: Path) -> None:
    with MrcWriter(tmp_path / "m.mrc", (4, 4), np.int8) as writer:
        with pytest.raises(BadParameter, match="-128 to 127"):
            writer.write(np.full((4, 4), 200))
        with pytest.raises(BadParameter, match="4 x 4"):
            writer.write(np.zeros((4, 5), np.int8))
    with pytest.raises(BadParameter, match="type of the values"):
        MrcWriter(tmp_path / "m.mrc", (4, 4), np.complex64)
    with EerWriter(tmp_path / "m.eer", (4, 4)) as eer:
        with pytest.raises(BadParameter, match="at most one event"):
            eer.write(np.full((4, 4), 2, np.uint8))
        with pytest.raises(BadParameter, match="found two"):
            eer.write_events(np.array([0, 1]), np.array([0, 1]))
        with pytest.raises(BadParameter, match="inside"):
            eer.write_events(np.array([16]), np.array([0]))
    with TiffWriter(tmp_path / "m.tif") as tiff:
        tiff.write(np.zeros((4, 4), np.uint8))
        with pytest.raises(BadParameter, match="frame 2"):
            tiff.write(np.zeros((4, 4), np.uint16))


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg"])
def test_pictures_are_images_in_mrc_order(tmp_path: Path, name: str) -> None:
    from PIL import Image as Pillow

    picture = np.zeros((16, 24), np.uint8)
    picture[:8] = 250
    Pillow.fromarray(picture).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.array.shape == (16, 24)
    assert image.array[-1, 0] > 200 > image.array[0, 0]
    with pytest.raises(BadFile) as caught:
        open_movie(tmp_path / name)
    assert caught.value.reason is Reason.NOT_A_MOVIE


def test_a_sixteen_bit_png_keeps_its_values(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2000
    Pillow.fromarray(values).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png").array[::-1], values)


def test_a_movie_is_not_taken_for_an_image(whole: dict[str, Path]) -> None:
    with pytest.raises(BadFile, match="5 frames"):
        read_image(whole["mrc"])


def test_names_lie_less_than_first_bytes(tmp_path: Path, whole: dict[str, Path]) -> None:
    for name, wrong in (("tif", "m.mrc"), ("mrc", "m.tif"), ("eer", "m.tiff"), ("mrc", "m")):
        path = tmp_path / wrong
        path.write_bytes(whole[name].read_bytes())
        with open_movie(path) as movie:
            assert movie.format == {"tif": "tiff"}.get(name, name)
        assert check_complete(path).state == "complete"


@pytest.mark.service
def test_relion_renders_our_eer_as_we_read_it(tmp_path: Path, relion: Path) -> None:
    import subprocess

    rng = np.random.default_rng(5)
    with EerWriter(tmp_path / "m.eer", (4096, 4096)) as writer:
        for _ in range(2):
            pixels = np.sort(rng.choice(4096 * 4096, 20_000, replace=False))
            y = pixels // 4096 * 4 + rng.integers(0, 4, len(pixels))
            writer.write_events(y, pixels % 4096 * 4 + rng.integers(0, 4, len(pixels)))
    (tmp_path / "list.lst").write_text("m.eer\n")
    options = ["--eer_grouping", "2", "--eer_upsampling", "2", "--short"]
    command = [relion / "relion_convert_to_tiff", "--i", "list.lst", "--o", "out/", *options]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    with (
        open_movie(tmp_path / "m.eer", eer_frames_per_fraction=2, eer_upsampling=2) as ours,
        open_movie(tmp_path / "out" / "m.tif") as theirs,
    ):
        np.testing.assert_array_equal(theirs.frame(0), ours.frame(0))


@pytest.mark.service
def test_relion_reads_our_mrc_and_tiff_as_the_same_picture(
    tmp_path: Path, relion: Path, counts: Frames
) -> None:
    import subprocess

    write_mrc(tmp_path / "a.mrcs", counts[:2].astype(np.float32), 1.5)
    write_tiff_movie(tmp_path / "b.tif", counts[:2], "deflate", 1.5)
    for source, target in (("1@a.mrcs", "a1.mrc"), ("1@b.tif", "b1.mrc")):
        command = [relion / "relion_image_handler", "--i", source, "--o", target, "--multiply_constant", "2"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
        np.testing.assert_array_equal(read_image(tmp_path / target).array, counts[0] * 2.0)
