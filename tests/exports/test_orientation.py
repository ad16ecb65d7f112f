"""What docs/explanations/orientation.md says of RELION and of vitriflow, shown on RELION itself."""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.exports.conftest import Run
from vitriflow.formats import EerWriter, TiffWriter, open_movie, read_gain, write_mrc

pytestmark = pytest.mark.service
SHAPE = (256, 320)
FRAMES = 4
EER_SIDE = 4096  # RELION 3.1 takes no other
STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 1.0 300.0 2.7 0.1

# version 30001

data_movies

loop_
_rlnMicrographMovieName #1
_rlnOpticsGroup #2
{movie} 1
"""


def motion_correct(
    run_relion: Run, folder: Path, movie: str, gain: str | None, *more: object
) -> NDArray[Any]:
    """RELION's own motion correction of one movie."""
    (folder / "in.star").write_text(STAR.format(movie=movie))
    arguments = ["--i", "in.star", "--o", "MC/", "--use_own", "--j", 2, "--patch_x", 1, "--patch_y", 1]
    arguments += ["--bin_factor", 1, "--bfactor", 150, "--angpix", 1.0, "--voltage", 300, *more]
    if gain is not None:
        arguments += ["--gainref", gain]
    done = run_relion(folder, "relion_run_motioncorr", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    output = folder / "MC" / f"{Path(movie).stem}.mrc"
    assert output.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    with mrcfile.open(output) as file:
        image: NDArray[Any] = file.data.astype(np.float64)
    return image


def blocks(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Means over squares, so that noise and shifts of a pixel don't count."""
    height, width = image.shape
    return image.reshape(height // side, side, width // side, side).mean((1, 3))


def likeness(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def lopsided(shape: tuple[int, int], y_slope: float, x_slope: float) -> NDArray[Any]:
    """Rises along y and x by different amounts: no flip or turn leaves it as it was."""
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    return 1 + y_slope * y + x_slope * x


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One movie and one gain reference, each as MRC and as TIFF, through vitriflow's writers."""
    folder = tmp_path_factory.mktemp("orientation")
    random = np.random.default_rng(3)
    gain = lopsided(SHAPE, -0.35, -0.2).astype(np.float32)
    frames = random.poisson(40 * lopsided(SHAPE, 0.25, 0.3) / gain, (FRAMES, *SHAPE)).astype(np.uint8)
    write_mrc(folder / "m.mrcs", frames.astype(np.int16), 1.0)
    with TiffWriter(folder / "t.tiff") as writer:
        for frame in frames:
            writer.write(frame)
    write_mrc(folder / "gain.mrc", gain, 1.0)
    tifffile.imwrite(folder / "gain.tif", gain[::-1])
    return folder


@pytest.mark.parametrize("gain", [None, "gain.mrc", "gain.tif"])
@pytest.mark.parametrize("movie", ["m.mrcs", "t.tiff"])
def test_relions_micrograph_lies_as_ours_whatever_the_formats(
    movies: Path, run_relion: Run, movie: str, gain: str | None
) -> None:
    with open_movie(movies / movie) as opened:
        ours = np.sum([frame.astype(np.float64) for frame in opened.frames()], axis=0)
    if gain is not None:
        ours = ours * read_gain(movies / gain, SHAPE).array
    theirs = blocks(motion_correct(run_relion, movies, movie, gain), 16)
    ours = blocks(ours, 16)
    assert likeness(theirs, ours) > 0.98
    assert likeness(theirs, ours[::-1]) < 0.7
    assert likeness(theirs, ours[:, ::-1]) < 0.7


def test_tiff_is_flipped_on_reading_and_mrc_is_not(movies: Path) -> None:
    with open_movie(movies / "m.mrcs") as mrc, open_movie(movies / "t.tiff") as tiff:
        np.testing.assert_array_equal(mrc.frame(0), tiff.frame(0))
    with mrcfile.open(movies / "m.mrcs") as file:
        stored = file.data[0].copy()
    np.testing.assert_array_equal(tifffile.imread(movies / "t.tiff", key=0), stored[::-1])


@pytest.fixture(scope="module")
def eer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An EER movie with more electrons at low rows, and one gain reference in three formats."""
    folder = tmp_path_factory.mktemp("eer")
    random = np.random.default_rng(5)
    # Dense enough that RELION takes no pixel for a hot one.
    rate = 0.15 * lopsided((EER_SIDE, EER_SIDE), -0.6, 0.2)
    with EerWriter(folder / "e.eer", (EER_SIDE, EER_SIDE)) as writer:
        for _ in range(3):  # the fewest that RELION takes
            writer.write((random.random((EER_SIDE, EER_SIDE)) < rate).astype(np.uint8))
    gain = lopsided((EER_SIDE, EER_SIDE), 0.25, 0.1).astype(np.float32)
    write_mrc(folder / "g.mrc", gain, 1.0)
    tifffile.imwrite(folder / "g.tif", gain)
    tifffile.imwrite(folder / "g.gain", gain)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("gain", [None, "g.mrc", "g.tif", "g.gain"])
def test_relion_and_vitriflow_read_eer_and_its_gain_references_alike(
    eer: Path, run_relion: Run, gain: str | None
) -> None:
    with open_movie(eer / "e.eer", eer_frames_per_fraction=1) as opened:
        ours = np.sum([frame.astype(np.float64) for frame in opened.frames()], axis=0)
        shape = opened.shape
    if gain is not None:
        reference = read_gain(eer / gain, shape, movie_format="eer")
        ours = ours / reference.array if reference.convention == "divide" else ours * reference.array
    theirs = motion_correct(run_relion, eer, "e.eer", gain, "--eer_grouping", 1, "--eer_upsampling", 1)
    theirs, ours = blocks(theirs, 512), blocks(ours, 512)
    assert likeness(theirs, ours) > 0.98
    assert likeness(theirs, ours[::-1]) < 0.8
