"""One exposure as MRC, TIFF and EER: the same shifts, coordinates, angles, gain and defects; and RELION's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.exports.conftest import Run
from tests.exports.test_orientation import STAR, blocks, likeness
from vitriflow.formats import EerWriter, TiffWriter, read_image, read_star, write_mrc
from vitriflow.simulate import MotionSpec, MovieSpec, SimulatedMovie, simulate_movie
from vitriflow.steps import Artifact, Context, Kind, Result, Status, find_step, run_step

SHAPE = (704, 896)
FRAMES = 16
GAINS = {"m.mrcs": "g.mrc", "t.tif": "g.tif", "e.eer": "g.gain"}
DEFECT = (120, 500, 24, 16)  # y, x, height, width


@dataclass(frozen=True)
class Exposure:
    """Its folder, and what is true of it."""

    folder: Path
    simulated: SimulatedMovie


@pytest.fixture(scope="module")
def exposure(tmp_path_factory: pytest.TempPathFactory) -> Exposure:
    """No more than one electron a pixel and frame, which is all that an EER frame can hold."""
    folder = tmp_path_factory.mktemp("three")
    motion = MotionSpec(settling_A=25.0, drift_A=10.0, doming_A=0.0, jitter_A=0.0, direction_deg=65.0)
    spec = MovieSpec(
        shape=SHAPE,
        n_frames=FRAMES,
        dose_per_frame_e_per_A2=0.8,
        contrast=3.0,
        motion=motion,
        seed=41,
        n_hot_pixels=0,
        defocus_u_A=14000.0,
        defocus_v_A=10000.0,
        defocus_angle_deg=30.0,
        beam_gradient=0.3,
    )
    movie = simulate_movie(spec)
    frames = np.minimum(np.stack(list(movie)), 1).astype(np.uint8)
    y, x, height, width = DEFECT
    frames[:, y : y + height, x : x + width] = 1  # counts in every frame, wherever the specimen is
    write_mrc(folder / "m.mrcs", frames.astype(np.int16), 1.0)
    with TiffWriter(folder / "t.tif") as tiff:
        for frame in frames:
            tiff.write(frame)
    with EerWriter(folder / "e.eer", SHAPE) as eer:
        for frame in frames:
            eer.write(frame)
    gain = movie.gain.astype(np.float32)
    write_mrc(folder / "g.mrc", gain, 1.0)
    tifffile.imwrite(folder / "g.tif", gain[::-1])  # what belongs to the MRC's row 0 is a TIFF's last row
    tifffile.imwrite(folder / "g.gain", gain)  # which is read as it is
    (folder / "defects.txt").write_text(f"{x} {y} {width} {height}\n")
    return Exposure(folder, movie)


def step(name: str, inputs: dict[str, Artifact], out: Path, **parameters: Any) -> Result:
    made = find_step(name)
    context = Context(out=out, item="one", threads=2)
    return run_step(made, inputs, made.Parameters(**parameters), context)


@pytest.fixture(scope="module")
def results(exposure: Exposure) -> dict[str, dict[str, Any]]:
    """Motion, CTF and picks of each of the three."""
    found: dict[str, dict[str, Any]] = {}
    for name, gain in GAINS.items():
        out = exposure.folder / f"out-{name}"
        motion = step(
            "motion.native",
            {"movie": Artifact(kind=Kind.MOVIE, path=exposure.folder / name)},
            out,
            pixel_size_A=1.0,
            dose_per_frame_e_per_A2=0.8,
            gain_reference=exposure.folder / gain,
            defects=exposure.folder / "defects.txt",
            patches_y=0,
            patches_x=0,
            **({"eer_frames_per_fraction": 1} if name.endswith("eer") else {}),
        )
        assert motion.status is Status.DONE, motion.reason
        picks = step("pick.dog", {"micrograph": motion.outputs["micrograph"]}, out, particle_diameter_A=120.0)
        ctf = step("ctf.native", {"micrograph": motion.outputs["micrograph"]}, out, voltage_kV=300.0)
        found[name] = {"motion": motion, "picks": picks, "ctf": ctf}
    return found


def coordinates(result: Result) -> NDArray[Any]:
    table = next(iter(read_star(result.outputs["coordinates"].path).values()))
    return np.stack([table["rlnCoordinateY"], table["rlnCoordinateX"]], axis=1).astype(float)


def share_near(points: NDArray[Any], truth: NDArray[Any], reach: float = 40.0) -> float:
    """Part of the points that lie on a particle."""
    nearest = np.linalg.norm(points[:, None] - truth[None], axis=2).min(axis=1)
    return float((nearest < reach).mean())


@pytest.mark.parametrize("name", ["t.tif", "e.eer"])
def test_the_three_formats_give_the_same_image_shifts_coordinates_and_angle(
    results: dict[str, dict[str, Any]], name: str
) -> None:
    mrc, other = results["m.mrcs"], results[name]
    np.testing.assert_allclose(other["motion"].frame_shifts_A, mrc["motion"].frame_shifts_A, atol=1e-3)
    images = [read_image(one["motion"].outputs["micrograph"].path).array for one in (mrc, other)]
    np.testing.assert_allclose(images[1], images[0], atol=1e-3)
    np.testing.assert_array_equal(coordinates(other["picks"]), coordinates(mrc["picks"]))
    assert other["ctf"].defocus_angle_deg == pytest.approx(mrc["ctf"].defocus_angle_deg, abs=0.01)


def test_shifts_coordinates_and_angle_are_the_true_ones_and_not_their_mirror_images(
    exposure: Exposure, results: dict[str, dict[str, Any]]
) -> None:
    found = results["t.tif"]
    truth = exposure.simulated.truth
    shifts = np.array(found["motion"].frame_shifts_A)
    true = truth.motion.global_shifts_px - truth.motion.global_shifts_px[0]
    assert np.sqrt(np.mean((shifts - true) ** 2)) < 1.0
    for mirror in ([-1, 1], [1, -1]):
        assert np.sqrt(np.mean((shifts * mirror - true) ** 2)) > 4.0
    picks, centres = coordinates(found["picks"]), truth.particles_px.reshape(-1, 2)
    assert len(picks) >= 5
    assert share_near(picks, centres) > 0.9
    assert share_near(np.array([SHAPE[0] - 1, 0]) + picks * [-1, 1], centres) < 0.7
    angle = found["ctf"].defocus_angle_deg
    assert abs((angle - 30.0 + 90.0) % 180.0 - 90.0) < 10.0


def test_the_defect_list_is_laid_on_the_same_pixels(results: dict[str, dict[str, Any]]) -> None:
    y, x, height, width = DEFECT
    for found in results.values():
        image = read_image(found["motion"].outputs["micrograph"].path).array
        inside = image[y + 2 : y + height - 2, x + 2 : x + width - 2].mean()
        around = image[y - 60 : y + 80, x - 60 : x + 80].mean()
        assert abs(inside - around) < 0.25 * around  # every pixel there counted one in every frame


@pytest.mark.service
@pytest.mark.parametrize("name", ["m.mrcs", "t.tif"])
def test_relion_sees_the_same_shifts_picture_defects_and_picks(
    exposure: Exposure, results: dict[str, dict[str, Any]], run_relion: Run, tmp_path: Path, name: str
) -> None:
    """RELION has no EER of this size; how it reads EER stands in test_orientation."""
    for file in (name, GAINS[name], "defects.txt"):
        (tmp_path / file).write_bytes((exposure.folder / file).read_bytes())
    (tmp_path / "in.star").write_text(STAR.format(movie=name))
    arguments = ["--i", "in.star", "--o", "MC/", "--use_own", "--j", 2, "--patch_x", 1, "--patch_y", 1]
    arguments += ["--bin_factor", 1, "--bfactor", 150, "--angpix", 1.0, "--voltage", 300]
    arguments += ["--gainref", GAINS[name], "--defect_file", "defects.txt"]
    done = run_relion(tmp_path, "relion_run_motioncorr", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    table = read_star(tmp_path / "MC" / f"{Path(name).stem}.star")["global_shift"]
    theirs = np.asarray(table[["rlnMicrographShiftY", "rlnMicrographShiftX"]], dtype=float)
    ours = np.array(results[name]["motion"].frame_shifts_A)
    assert np.sqrt(np.mean((theirs - ours) ** 2)) < 2.5
    for mirror in ([-1, 1], [1, -1], [-1, -1]):
        assert np.sqrt(np.mean((theirs * mirror - ours) ** 2)) > 4.0
    with mrcfile.open(tmp_path / "MC" / f"{Path(name).stem}.mrc") as file:
        picture = file.data.astype(np.float64)
    own = read_image(results[name]["motion"].outputs["micrograph"].path).array
    same = likeness(blocks(picture, 32), blocks(own, 32))
    assert same > 0.95
    assert likeness(blocks(picture, 32), blocks(own[::-1], 32)) < same - 0.1
    y, x, height, width = DEFECT
    inside = picture[y + 4 : y + height - 4, x + 4 : x + width - 4].mean()
    around = picture[y - 60 : y + 80, x - 60 : x + 80].mean()
    assert abs(inside - around) < 0.25 * around
    # RELION's own picks on its own micrograph lie where ours lie on ours
    (tmp_path / "mics.star").write_text(
        STAR.format(movie=f"MC/{Path(name).stem}.mrc")
        .replace("data_movies", "data_micrographs")
        .replace("rlnMicrographMovieName", "rlnMicrographName")
        .replace("rlnMicrographOriginalPixelSize", "rlnMicrographPixelSize")
    )
    picker = ["--i", "mics.star", "--odir", "AP/", "--pickname", "autopick", "--LoG"]
    picker += ["--LoG_diam_min", 104, "--LoG_diam_max", 136, "--shrink", 0, "--lowpass", 20]
    done = run_relion(tmp_path, "relion_autopick", *picker, "--LoG_adjust_threshold", 0)
    (star,) = (tmp_path / "AP").rglob("*_autopick.star")
    rows = next(iter(read_star(star).values()))
    found = np.stack([rows["rlnCoordinateY"], rows["rlnCoordinateX"]], axis=1).astype(float)
    picks = coordinates(results[name]["picks"])
    assert share_near(picks, found) > 0.6  # RELION misses some of so faint a picture
    assert share_near(np.array([SHAPE[0] - 1, 0]) + picks * [-1, 1], found) < share_near(picks, found) - 0.2
