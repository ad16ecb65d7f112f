"""The step motion.native: files in, files and a record out."""

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests.kernels.motion_movies import Case, movie, rms_error
from vitriflow.errors import BadParameter
from vitriflow.formats import EerWriter, read_image, read_star, write_mrc, write_tiff_movie
from vitriflow.kernels import MotionField
from vitriflow.steps import Artifact, Context, Kind, MotionResult, Status, find_step, run_step
from vitriflow.steps.motion_native import MotionParameters


@pytest.fixture(scope="module")
def case() -> Case:
    return movie()


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The movie in MRC and TIFF, and its gain reference."""
    made = tmp_path_factory.mktemp("movies")
    write_mrc(made / "movie.mrc", case.frames, 1.0)
    write_tiff_movie(made / "movie.tif", case.frames, compression="lzw")
    write_mrc(made / "gain.mrc", case.gain, None)
    return made


def run(path: Path, out: Path, metadata: dict | None = None, **chosen) -> tuple[MotionResult, Context]:
    context = Context(out=out, item="Square_1/one", threads=2, metadata=metadata or {})
    parameters = MotionParameters(**chosen)
    step = find_step("motion.native")
    record = run_step(step, {"movie": Artifact(kind=Kind.MOVIE, path=path)}, parameters, context)
    assert isinstance(record, MotionResult)
    return record, context


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[MotionResult, Context]:
    return run(
        folder / "movie.tif",
        tmp_path_factory.mktemp("out"),
        pixel_size_A=1.0,
        dose_per_frame_e_per_A2=1.2,
        gain_reference=folder / "gain.mrc",
        write_unweighted=True,
        write_half_sums=True,
    )


def test_the_record_says_what_moved(done, case):
    record, _ = done
    assert record.status is Status.DONE, record.reason
    shifts = np.array(record.frame_shifts_A)
    assert shifts.shape == (12, 2)
    assert np.abs(shifts - case.truth.mean_shifts()).max() < 1.0
    assert record.total_A == pytest.approx(np.hypot(*np.diff(shifts, axis=0).T).sum())
    assert record.early_A + record.late_A == pytest.approx(record.total_A)
    # frames 1, 2 and 3 end at 1.2, 2.4 and 3.6 e/A^2: two steps are early
    assert record.early_A == pytest.approx(np.hypot(*np.diff(shifts[:3], axis=0).T).sum())
    assert record.net_A == pytest.approx(np.hypot(*shifts[-1]))
    assert record.dose_weighted
    assert record.gain_applied == "multiplied"
    assert record.mean_intensity == pytest.approx(1.2, rel=0.05)
    assert record.patch_grid == (5, 5)
    assert np.array(record.patch_shifts_A).shape == (25, 12, 2)


def test_counts_far_from_what_the_dose_says_are_told(done, folder, tmp_path):
    good, _ = done
    assert not any("where the dose says" in warning for warning in good.warnings)
    chosen = {"pixel_size_A": 1.0, "gain_reference": folder / "gain.mrc"}
    off, _ = run(folder / "movie.tif", tmp_path, dose_per_frame_e_per_A2=1.2 / 16, **chosen)
    (told,) = [warning for warning in off.warnings if "where the dose says" in warning]
    assert "16 times" in told
    assert "dose_per_frame_e_per_A2" in told


def test_files_appear_under_relion_s_names_and_stay_in_memory_for_the_next_step(done):
    record, context = done
    folder = context.out / "Square_1"
    names = {"one.mrc", "one_noDW.mrc", "one_PS.mrc", "one_ODD.mrc", "one_EVN.mrc", "one.star"}
    assert {path.name for path in folder.iterdir()} == names
    for port in ("micrograph", "power_spectrum"):
        artifact = record.outputs[port]
        kept = context.recall(artifact.path)
        image = read_image(artifact.path)
        assert np.array_equal(image.array, kept)
        assert image.pixel_size_A == pytest.approx(artifact.pixel_size_A, rel=1e-4)
    odd, even, whole = (
        read_image(record.outputs[port].path).array
        for port in ("micrograph_odd", "micrograph_even", "micrograph")
    )
    assert np.allclose(odd + even, whole, atol=2e-3)


def test_the_star_gives_the_motion_in_relion_s_convention(done, case):
    record, _ = done
    blocks = read_star(record.outputs["motion"].path)
    general, table = blocks["general"], blocks["global_shift"]
    assert (int(general["rlnImageSizeX"]), int(general["rlnImageSizeZ"])) == (1024, 12)
    assert float(general["rlnMicrographDoseRate"]) == pytest.approx(1.2)
    assert table["rlnMicrographFrameNumber"].tolist() == list(range(1, 13))
    shifts = table[["rlnMicrographShiftY", "rlnMicrographShiftX"]].to_numpy(float)
    assert np.allclose(shifts * 1.0, record.frame_shifts_A, atol=1e-5)
    coefficients = blocks["local_motion_model"]["rlnMotionModelCoeff"].to_numpy(float)
    assert rms_error(MotionField.from_relion(shifts, coefficients, case.shape), case.truth).max() < 0.7


def test_mrc_and_tiff_of_one_movie_give_one_answer(done, folder, tmp_path):
    record, _ = done
    chosen = {"pixel_size_A": 1.0, "dose_per_frame_e_per_A2": 1.2, "gain_reference": folder / "gain.mrc"}
    other, _ = run(folder / "movie.mrc", tmp_path, **chosen)
    assert np.allclose(other.frame_shifts_A, record.frame_shifts_A, atol=1e-6)
    first, second = (read_image(r.outputs["micrograph"].path).array for r in (record, other))
    assert np.allclose(first, second, atol=1e-3)


def test_binned_shifts_stay_in_movie_pixels_and_the_micrograph_s_pixel_grows(folder, tmp_path):
    record, _ = run(
        folder / "movie.mrc",
        tmp_path,
        pixel_size_A=1.0,
        bin_factor=2.0,
        patches_y=0,
        gain_reference=folder / "gain.mrc",
    )
    assert record.outputs["micrograph"].pixel_size_A == pytest.approx(2.0)
    assert record.pixel_size_A == pytest.approx(2.0)
    blocks = read_star(record.outputs["motion"].path)
    assert float(blocks["general"]["rlnMicrographOriginalPixelSize"]) == pytest.approx(1.0)
    assert float(blocks["general"]["rlnMicrographBinning"]) == pytest.approx(2.0)
    assert "local_motion_model" not in blocks
    assert record.patch_grid == (0, 0)
    assert np.allclose(blocks["global_shift"]["rlnMicrographShiftY"], np.array(record.frame_shifts_A)[:, 0])
    # nobody said what the dose was
    assert not record.dose_weighted
    assert any("dose" in warning for warning in record.warnings)


def test_thrown_away_frames_count_as_dose_and_keep_their_numbers(folder, tmp_path):
    record, _ = run(
        folder / "movie.mrc",
        tmp_path,
        pixel_size_A=1.0,
        first_frame=3,
        last_frame=9,
        gain_reference=folder / "gain.mrc",
        metadata={"dose_per_frame_e_per_A2": 1.2},
    )
    assert record.n_frames == 7
    assert record.dose_per_frame_e_per_A2 == pytest.approx(1.2)
    blocks = read_star(record.outputs["motion"].path)
    assert blocks["global_shift"]["rlnMicrographFrameNumber"].tolist() == list(range(3, 10))
    assert int(blocks["general"]["rlnMicrographStartFrame"]) == 3


def test_a_pixel_size_that_the_file_contradicts_is_reported(folder, tmp_path):
    write_mrc(
        tmp_path / "said.mrc", np.random.default_rng(1).poisson(2.0, (1, 256, 256)).astype(np.uint8), 1.5
    )
    record, _ = run(tmp_path / "said.mrc", tmp_path, pixel_size_A=0.8)
    assert any("1.5" in warning for warning in record.warnings)
    assert record.pixel_size_A == pytest.approx(0.8)


def test_a_pixel_size_that_nobody_knows_is_asked_for(tmp_path):
    frames = np.random.default_rng(1).poisson(2.0, (2, 64, 64)).astype(np.uint8)
    write_tiff_movie(tmp_path / "silent.tif", frames)
    context = Context(out=tmp_path, item="silent")
    inputs = {"movie": Artifact(kind=Kind.MOVIE, path=tmp_path / "silent.tif")}
    with pytest.raises(BadParameter, match="--set pixel_size_A"):
        find_step("motion.native").run(inputs, MotionParameters(), context)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (np.zeros((4, 64, 64), np.uint8), "image.all_zero"),
        (np.full((4, 64, 64), 7, np.uint8), "image.constant"),
        (np.full((4, 64, 64), np.nan, np.float32), "image.not_finite"),
    ],
)
def test_a_movie_without_a_picture_is_quarantined(tmp_path, frames, reason):
    write_mrc(tmp_path / "bad movie ü.mrc", frames, 1.0)
    record, context = run(tmp_path / "bad movie ü.mrc", tmp_path / "out", pixel_size_A=1.0)
    assert record.status is Status.QUARANTINED
    assert record.reason_code == reason
    assert not list((tmp_path / "out").rglob("*.mrc"))
    assert context.memory == {}


def test_a_gain_of_another_size_or_none_at_all_is_quarantined(folder, tmp_path):
    write_mrc(tmp_path / "small.mrc", np.ones((100, 1024), np.float32), None)
    for path, reason in ((tmp_path / "small.mrc", "gain.wrong_size"), (tmp_path / "no.mrc", "gain.missing")):
        record, _ = run(folder / "movie.mrc", tmp_path / "out", pixel_size_A=1.0, gain_reference=path)
        assert record.status is Status.QUARANTINED
        assert record.reason_code == reason


def test_a_gain_that_is_turned_is_quarantined_and_said(folder, tmp_path):
    record, _ = run(
        folder / "movie.mrc",
        tmp_path,
        pixel_size_A=1.0,
        gain_reference=folder / "gain.mrc",
        gain_orientation="rotated-180",
    )
    assert record.reason_code == "motion.fixed_pattern"
    assert "gain" in record.reason


def test_a_movie_that_ended_before_the_first_frame_asked_for_is_quarantined(folder, tmp_path):
    record, _ = run(folder / "movie.mrc", tmp_path, pixel_size_A=1.0, first_frame=99)
    assert record.reason_code == "motion.too_few_frames"


def test_a_micrograph_whose_mean_is_off_is_caught(folder, tmp_path, monkeypatch):
    from vitriflow.kernels import motion_sums

    plain = motion_sums._finish
    monkeypatch.setattr(motion_sums, "_finish", lambda *a, **k: [image / 16 for image in plain(*a, **k)])
    record, _ = run(folder / "movie.mrc", tmp_path, pixel_size_A=1.0, gain_reference=folder / "gain.mrc")
    assert record.reason_code == "image.intensity"


def test_unknown_orientations_are_refused():
    with pytest.raises(ValueError, match="rotated_90"):
        MotionParameters(gain_orientation="sideways")


def test_defects_are_taken_out(folder, case, tmp_path):
    (tmp_path / "defects.txt").write_text("100 200 3 4\n")
    chosen = {"pixel_size_A": 1.0, "gain_reference": folder / "gain.mrc"}
    record, context = run(folder / "movie.mrc", tmp_path, defects=tmp_path / "defects.txt", **chosen)
    known = int((case.gain == 0).sum())
    assert record.status is Status.DONE
    assert any(str(known + 12) in line or str(known + 11) in line for line in context.log)


@pytest.mark.parametrize("upsampling", [1, 2])
def test_eer_is_shared_out_by_dose_and_up_sampled(tmp_path, upsampling):
    rng = np.random.default_rng(3)
    specimen = (0.3 + ndimage.gaussian_filter(rng.standard_normal((256, 256)), 3.0) * 2).clip(0.01, 0.9)
    with EerWriter(tmp_path / "movie.eer", (256, 256)) as writer:
        for _ in range(24):
            writer.write((rng.random((256, 256)) < specimen).astype(np.uint8))
    record, _ = run(
        tmp_path / "movie.eer",
        tmp_path / "out",
        metadata={"dose_e_per_A2": 12.0},
        pixel_size_A=1.4,
        eer_dose_per_fraction_e_per_A2=2.0,
        eer_upsampling=upsampling,
    )
    assert record.status is Status.DONE, record.reason
    assert record.n_frames == 6
    assert record.dose_per_frame_e_per_A2 == pytest.approx(2.0)
    assert record.pixel_size_A == pytest.approx(1.4 / upsampling)
    assert np.abs(record.frame_shifts_A).max() < 1.0  # nothing moved
    general = read_star(record.outputs["motion"].path)["general"]
    assert (int(general["rlnEERGrouping"]), int(general["rlnEERUpsampling"])) == (4, upsampling)


@pytest.mark.service
@pytest.mark.slow
def test_relion_finds_the_same_motion_with_the_same_signs(relion, folder, done, tmp_path):
    """RELION's own motion correction on the TIFF, which it flips as we do."""
    (tmp_path / "Movies").mkdir()
    for name in ("movie.tif", "gain.mrc"):
        (tmp_path / "Movies" / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "movies.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographOriginalPixelSize #3\n"
        "_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\none 1 1.0 300 2.7 0.07\n\n"
        "data_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\nMovies/movie.tif 1\n"
    )
    command = shlex.split(
        "--i movies.star --o MC/ --use_own --j 2 --patch_x 1 --patch_y 1 --bfactor 150 --dose_per_frame 1.2 "
        "--dose_weighting --angpix 1.0 --voltage 300 --gainref Movies/gain.mrc"
    )
    program = relion / "relion_run_motioncorr"
    subprocess.run([program, *command], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    table = read_star(tmp_path / "MC" / "Movies" / "movie.star")["global_shift"]
    theirs = table[["rlnMicrographShiftY", "rlnMicrographShiftX"]].to_numpy(float)
    ours = np.array(done[0].frame_shifts_A)
    assert np.abs(theirs - ours).max() < 3.0  # RELION's error on so small a movie
    assert np.sqrt(np.mean((theirs + ours) ** 2)) > 5.0  # the other sign would be far off
    # and the pictures lie the same way up
    micrograph = read_image(tmp_path / "MC" / "Movies" / "movie.mrc").array
    own = read_image(done[0].outputs["micrograph"].path).array
    same = np.corrcoef(_smooth(micrograph), _smooth(own))[0, 1]
    assert same > 0.8
    assert same > np.corrcoef(_smooth(micrograph[::-1]), _smooth(own))[0, 1] + 0.5


def _smooth(image: np.ndarray) -> np.ndarray:
    side = image.shape[0] // 16
    return image[: side * 16, : side * 16].reshape(side, 16, side, 16).mean(axis=(1, 3)).ravel()
