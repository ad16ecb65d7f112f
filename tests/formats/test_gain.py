"""Gain references and defects: orientation, size, values, and what people are told."""

import pickle
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.formats.dm_files import DmBytes
from vitriflow.errors import BadFile, Reason
from vitriflow.formats import Orientation, read_defects, read_dm, read_gain, write_mrc

Picture = NDArray[np.float32]


@pytest.fixture(scope="module")
def picture() -> Picture:
    """A gain (20, 30) without symmetry, in MRC order, with one defect at y = 2, x = 5."""
    gain = np.random.default_rng(2).uniform(0.8, 1.2, (20, 30)).astype(np.float32)
    gain[2, 5] = 0
    return gain


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory, picture: Picture) -> dict[str, Path]:
    """The same reference in every format, written by other programs than ours."""
    folder = tmp_path_factory.mktemp("gains")
    with mrcfile.new(folder / "gain.mrc", picture) as other:
        other.voxel_size = 1.0
    tifffile.imwrite(folder / "gain.tif", picture[::-1])
    tifffile.imwrite(folder / "falcon.tif", picture)
    (folder / "falcon.tif").rename(folder / "falcon.gain")
    (folder / "gain.dm4").write_bytes(DmBytes().file(picture[::-1]))
    (folder / "gain.dm3").write_bytes(DmBytes(3, little=False).file(picture[::-1]))
    return {path.suffix: path for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".gain", ".dm4", ".dm3"])
def test_one_reference_is_the_same_array_from_every_format(
    references: dict[str, Path], picture: Picture, suffix: str
) -> None:
    gain = read_gain(references[suffix], picture.shape)
    np.testing.assert_array_equal(gain.array, picture)
    assert gain.convention == "multiply"
    assert gain.multiplier() is gain.array
    assert np.argwhere(gain.defects).tolist() == [[2, 5]]


def test_further_pages_of_a_gain_file_are_left_alone(tmp_path: Path, picture: Picture) -> None:
    with tifffile.TiffWriter(tmp_path / "more.tif") as tiff:
        tiff.write(picture)
        tiff.write(np.zeros((4, 5), np.uint8))
    (tmp_path / "more.tif").rename(tmp_path / "more.gain")
    np.testing.assert_array_equal(read_gain(tmp_path / "more.gain").array, picture)


def test_the_dose_of_an_eer_is_divided_but_for_gain_files(references: dict[str, Path]) -> None:
    conventions = {s: read_gain(p, movie_format="eer").convention for s, p in references.items()}
    assert conventions.pop(".gain") == "multiply"
    assert set(conventions.values()) == {"divide"}


def test_a_reference_that_divides_is_inverted_about_its_mean(references: dict[str, Path]) -> None:
    gain = read_gain(references[".mrc"], movie_format="eer")
    factor = gain.multiplier()
    good = ~gain.defects
    np.testing.assert_allclose(factor[good] * gain.array[good], gain.array.mean(), rtol=1e-5)
    assert factor[2, 5] == 0


def test_a_reference_for_eer_is_fitted_to_the_rendered_grid(
    references: dict[str, Path], picture: Picture
) -> None:
    finer = read_gain(references[".mrc"], (40, 60), movie_format="eer").array
    np.testing.assert_array_equal(finer[1::2, ::2], picture)
    coarser = read_gain(references[".mrc"], (10, 15), movie_format="eer").array
    assert coarser[3, 4] == pytest.approx(picture[6:8, 8:10].mean())
    with pytest.raises(BadFile, match="super-resolution") as caught:
        read_gain(references[".mrc"], (40, 60))
    assert caught.value.reason is Reason.GAIN_SIZE


def test_the_eight_orientations_all_differ_and_follow_relion(picture: Picture) -> None:
    turned = {o: o.apply(picture) for o in Orientation}
    assert len({(a.shape, a.tobytes()) for a in turned.values()}) == 8
    assert all(a.flags.c_contiguous for a in turned.values())
    # RELION's rotate90: destination (row x, column height - 1 - y) is source (y, x).
    assert turned[Orientation.ROTATED_90][7, 20 - 1 - 3] == picture[3, 7]
    assert turned[Orientation.FLIPPED_Y][0, 0] == picture[-1, 0]
    assert turned[Orientation.FLIPPED_X][0, 0] == picture[0, -1]
    assert turned[Orientation.ROTATED_90_FLIPPED_Y][29 - 7, 20 - 1 - 3] == picture[3, 7]
    assert Orientation.from_label("rotated_90_flipped_x") is Orientation.ROTATED_90_FLIPPED_X


@pytest.mark.service
@pytest.mark.parametrize("orientation", list(Orientation))
def test_relion_turns_a_reference_as_we_do(tmp_path: Path, relion: Path, orientation: Orientation) -> None:
    """RELION writes the turned reference as gain.mrc before it corrects a movie."""
    import subprocess

    gain = np.random.default_rng(4).uniform(0.9, 1.1, (64, 96)).astype(np.float32)
    write_mrc(tmp_path / "ref.mrc", gain, 1.0)
    turned = orientation.apply(gain)
    rng = np.random.default_rng(1)
    write_mrc(tmp_path / "m.mrcs", rng.poisson(5, (3, *turned.shape)).astype(np.float32), 1.0)
    (tmp_path / "in.star").write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
        "_rlnMicrographOriginalPixelSize #3\n_rlnVoltage #4\n_rlnSphericalAberration #5\n"
        "_rlnAmplitudeContrast #6\nog 1 1.0 300 2.7 0.1\n\n# version 30001\n\ndata_movies\n\nloop_\n"
        "_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\nm.mrcs 1\n\n"
    )
    turns, flip = orientation.value
    options = ["--use_own", "--j", "1", "--gainref", "ref.mrc", "--gain_rot", str(turns)]
    options += ["--gain_flip", str(flip), "--i", "in.star", "--o", "out/", "--patch_x", "1", "--patch_y", "1"]
    (tmp_path / "out").mkdir()
    program = relion / "relion_run_motioncorr"
    subprocess.run([program, *options], cwd=tmp_path, capture_output=True, timeout=120, check=False)
    written = tmp_path / "out" / "gain.mrc"
    expected = gain if orientation is Orientation.AS_IS else read_gain(written).array
    np.testing.assert_allclose(turned, expected, rtol=1e-6)


def test_a_wrong_size_tells_both_and_whether_a_rotation_would_fit(references: dict[str, Path]) -> None:
    with pytest.raises(BadFile) as caught:
        read_gain(references[".mrc"], (30, 20))
    assert caught.value.reason is Reason.GAIN_SIZE
    text = str(caught.value)
    assert "20 x 30" in text
    assert "30 x 20" in text
    assert "rotated by 90 degrees" in text
    assert read_gain(references[".mrc"], (30, 20), Orientation.ROTATED_270).array.shape == (30, 20)
    with pytest.raises(BadFile, match="without the rotation"):
        read_gain(references[".mrc"], (20, 30), Orientation.ROTATED_90)
    with pytest.raises(BadFile, match="belongs to these movies"):
        read_gain(references[".mrc"], (20, 31))


@pytest.mark.parametrize(
    ("value", "words"), [(-1.0, "1 negative"), (np.nan, "1 pixels that aren't"), (np.inf, "aren't finite")]
)
def test_values_that_no_gain_has_are_errors(tmp_path: Path, value: float, words: str) -> None:
    gain = np.ones((4, 5), np.float32)
    gain[1, 2] = value
    write_mrc(tmp_path / "g.mrc", gain, 1.0)
    with pytest.raises(BadFile, match=words) as caught:
        read_gain(tmp_path / "g.mrc")
    assert caught.value.reason is Reason.GAIN_BAD


def test_a_reference_of_zeros_a_movie_and_nothing_are_errors(tmp_path: Path) -> None:
    write_mrc(tmp_path / "zero.mrc", np.zeros((4, 5), np.float32), 1.0)
    write_mrc(tmp_path / "movie.mrc", np.ones((3, 4, 5), np.float32), 1.0)
    (tmp_path / "notes.txt").write_text("gain")
    for name, reason in (
        ("zero.mrc", Reason.GAIN_BAD),
        ("movie.mrc", Reason.GAIN_BAD),
        ("notes.txt", Reason.GAIN_BAD),
        ("none.mrc", Reason.GAIN_MISSING),
    ):
        with pytest.raises(BadFile) as caught:
            read_gain(tmp_path / name)
        assert caught.value.reason is reason


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint16", "uint8", "float64"])
def test_dm4_values_of_every_type_are_read(tmp_path: Path, dtype: str) -> None:
    image = np.arange(110, dtype=dtype).reshape(10, 11)
    (tmp_path / "g.dm4").write_bytes(DmBytes().file(image, scale=0.125))
    array, pixel_size = read_dm(tmp_path / "g.dm4")
    np.testing.assert_array_equal(array[::-1], image)
    assert array.dtype == np.dtype(dtype)
    assert pixel_size == pytest.approx(1.25)


def test_a_dm4_cut_anywhere_is_a_bad_file(tmp_path: Path) -> None:
    data = DmBytes().file(np.ones((10, 11), np.float32))
    for n_bytes in range(0, len(data) - 8, 13):
        (tmp_path / "g.dm4").write_bytes(data[:n_bytes])
        with pytest.raises(BadFile):
            read_dm(tmp_path / "g.dm4")


def test_an_error_about_a_file_survives_the_way_back_from_a_worker(references: dict[str, Path]) -> None:
    with pytest.raises(BadFile) as caught:
        read_gain(references[".mrc"], (30, 20))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, str(again)) == (caught.value.reason, str(caught.value))


SERIALEM = """CameraSizeX 12
CameraSizeY 8
RotationAndFlip 0
K2Type 1
BadColumns 3 4
BadRows 0
PartialBadColumn 10 2 5 6
PartialBadRow 2 1 0 1
BadPixels 7 7 8 1
UsableArea 0 0 7 11
"""


def test_the_list_of_serialem_counts_from_the_top(tmp_path: Path) -> None:
    (tmp_path / "defects_cam.txt").write_text(SERIALEM)
    top_down = np.zeros((8, 12), bool)
    top_down[:, 3:5] = True
    top_down[0] = True
    top_down[5:7, 10:12] = True
    top_down[2, 0:2] = True
    top_down[7, 7] = top_down[1, 8] = True
    np.testing.assert_array_equal(read_defects(tmp_path / "defects_cam.txt", (8, 12)), top_down[::-1])


def test_the_list_of_serialem_is_doubled_for_super_resolution(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("CameraSizeX 6\nCameraSizeY 4\nBadPixels 1 3\n")
    mask = read_defects(tmp_path / "d.txt", (8, 12))
    assert np.argwhere(mask).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]


def test_what_lies_outside_the_usable_area_is_bad(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("CameraSizeX 6\nCameraSizeY 4\nUsableArea 1 0 3 4\n")
    mask = read_defects(tmp_path / "d.txt", (4, 6))
    assert mask[:, 5].all()
    assert mask[3].all()  # the top row is the last in MRC order
    assert mask.sum() == 4 + 5


def test_boxes_are_counted_in_the_array_as_read_and_clipped(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("1 2 3 1\n\n-2 -2 3 3\n9, 7, 50, 50  # a corner\n")
    expected = np.zeros((8, 10), bool)
    expected[2, 1:4] = expected[0, 0] = expected[7, 9] = True
    np.testing.assert_array_equal(read_defects(tmp_path / "d.txt", (8, 10)), expected)


def test_maps_are_read_in_the_orientation_of_movies(tmp_path: Path) -> None:
    bad = np.zeros((8, 10), np.uint8)
    bad[1, 2] = 1
    write_mrc(tmp_path / "map.mrc", bad, None)
    tifffile.imwrite(tmp_path / "map.tif", bad[::-1])
    for name in ("map.mrc", "map.tif"):
        assert np.argwhere(read_defects(tmp_path / name, (8, 10))).tolist() == [[1, 2]]
    with pytest.raises(BadFile) as caught:
        read_defects(tmp_path / "map.mrc", (10, 8))
    assert caught.value.reason is Reason.WRONG_SIZE


NONSENSE = ["1 2 3\n", "1 2 3 4\na b c d\n", "1 2 -3 4\n", "", "# nothing\n", "BadRows x\n"]


@pytest.mark.parametrize("text", NONSENSE)
def test_a_defect_list_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.txt").write_text(text)
    with pytest.raises(BadFile, match="defect list"):
        read_defects(tmp_path / "d.txt", (8, 10))


def test_a_defect_list_of_another_camera_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("CameraSizeX 5760\nCameraSizeY 4092\nBadRows 1\n")
    with pytest.raises(BadFile, match="5760 x 4092"):
        read_defects(tmp_path / "d.txt", (4096, 4096))
