"""The step ctf.native: what it reads, what it writes, and what it refuses."""

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from tests.kernels.ctf_cases import AMPLITUDE_CONTRAST, Case, micrograph
from tests.kernels.test_ctf_tilt import PIXEL_A, tilted
from vitriflow.cli.app import app
from vitriflow.errors import Reason
from vitriflow.formats import read_image, read_star, write_mrc
from vitriflow.steps.base import Context
from vitriflow.steps.ctf_native import CtfNative, CtfParameters
from vitriflow.steps.records import Artifact, CtfResult, Kind, Status
from vitriflow.steps.registry import find_step
from vitriflow.steps.running import run_step

CASE = Case(11000.0, 900.0, 35.0, shape=(2048, 2048), seed=31)


@pytest.fixture(scope="module")
def image() -> np.ndarray[Any, Any]:
    return micrograph(CASE).numpy()


@cache
def tilted_image() -> np.ndarray[Any, Any]:
    """As small as nine patches allow, 50 degrees about 70."""
    return tilted(25000.0, 50.0, 70.0, seed=65, size=1536).numpy()


def run(
    inputs: dict[str, Artifact], out: Path, context: Context | None = None, **parameters: Any
) -> CtfResult:
    values = {"amplitude_contrast": AMPLITUDE_CONTRAST, "voltage_kV": 300.0} | parameters
    record = run_step(
        find_step("ctf.native"),
        inputs,
        CtfParameters(**values),
        context or Context(out=out, item="grid/movie_1"),
    )
    assert isinstance(record, CtfResult)
    return record


def saved(folder: Path, array: np.ndarray[Any, Any], pixel_size_A: float | None = 1.0) -> Artifact:
    path = folder / "micrograph.mrc"
    write_mrc(path, array, pixel_size_A)
    return Artifact(kind=Kind.MICROGRAPH, path=path)


def test_a_micrograph_gives_the_truth_and_its_files(tmp_path: Path, image: np.ndarray[Any, Any]) -> None:
    record = run({"micrograph": saved(tmp_path, image)}, tmp_path / "out")
    assert (record.status, record.quality, record.warnings) == (Status.DONE, "good", [])
    assert record.defocus_u_A == pytest.approx(11450.0, abs=60)
    assert record.defocus_v_A == pytest.approx(10550.0, abs=60)
    assert record.defocus_angle_deg == pytest.approx(35.0, abs=2)
    assert record.astigmatism_A == pytest.approx(record.defocus_u_A - record.defocus_v_A, abs=0.02)
    assert record.pixel_size_A == pytest.approx(1.0)
    assert record.outputs["diagnostic"].path == tmp_path / "out" / "grid" / "movie_1.ctf"
    row = read_star(record.outputs["ctf"].path)["ctf"]
    assert float(row["rlnDefocusU"]) == pytest.approx(record.defocus_u_A)
    assert float(row["rlnCtfAstigmatism"]) == pytest.approx(record.astigmatism_A)
    assert float(row["rlnDefocusAngle"]) == pytest.approx(record.defocus_angle_deg)


def test_the_picture_is_half_data_half_fit(tmp_path: Path, image: np.ndarray[Any, Any]) -> None:
    record = run({"micrograph": saved(tmp_path, image)}, tmp_path)
    picture = read_image(record.outputs["diagnostic"].path).array
    assert picture.shape == (512, 512)
    left, right = picture[1:, 1:256][::-1, ::-1], picture[1:, 257:]
    rows, columns = np.mgrid[-255:256, 1:256]
    ring = (np.hypot(rows, columns) > 40) & (np.hypot(rows, columns) < 110) & (columns < 255)
    # data mirrored through the centre lies on the fit: that holds only if both have one orientation
    assert np.corrcoef(left[ring], right[ring])[0, 1] > 0.25


def test_a_real_spectrum_is_fitted_by_hand(tmp_path: Path, real_data: Path) -> None:
    path = real_data / "empiar-10204-relion5" / "MotionCorr" / "20170629_00031_frameImage_PS.mrc"
    options = [
        "input=power_spectrum",
        "voltage_kV=200",
        "spherical_aberration_mm=1.4",
        "amplitude_contrast=0.1",
    ]
    arguments = ["step", "run", "ctf.native", str(path), "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, arguments + [word for option in options for word in ("--set", option)])
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)
    assert record["status"] == "done"
    assert record["defocus_u_A"] == pytest.approx(10123.7, abs=50)
    assert record["defocus_v_A"] == pytest.approx(9808.5, abs=50)
    assert record["quality"] == "good"
    for name in (
        "phase_shift_deg",
        "fit_resolution_A",
        "cross_correlation",
        "seconds",
        "peak_memory_bytes",
        "reason",
    ):
        assert name in record


def test_noise_is_quarantined_with_its_numbers_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(5).standard_normal((1024, 1024)).astype(np.float32)
    record = run({"micrograph": saved(tmp_path, noise)}, tmp_path)
    assert record.status is Status.QUARANTINED
    assert record.reason_code == Reason.NO_RINGS
    assert record.reason is not None
    assert "no Thon rings" in record.reason
    assert record.quality == "no rings"
    assert record.defocus_u_A > 0
    assert len(record.curves["fit"]) > 50
    assert "diagnostic" in record.outputs
    assert "ctf" not in record.outputs


def test_doubt_is_said_in_words(tmp_path: Path, image: np.ndarray[Any, Any]) -> None:
    record = run({"micrograph": saved(tmp_path, image)}, tmp_path, max_defocus_A=10000.0)
    assert record.quality == "doubtful"
    assert record.status is Status.DONE
    assert any("the CTF fit is doubtful: the best fit lies outside" in warning for warning in record.warnings)


def test_a_spectrum_goes_before_a_micrograph_unless_told_otherwise(
    tmp_path: Path, image: np.ndarray[Any, Any]
) -> None:
    noise = Artifact(kind=Kind.POWER_SPECTRUM, path=tmp_path / "ps.mrc", pixel_size_A=1.4)
    write_mrc(noise.path, np.random.default_rng(0).random((512, 512)).astype(np.float32), 1.4)
    both = {"micrograph": saved(tmp_path, image), "power_spectrum": noise}
    assert run(both, tmp_path).quality == "no rings"
    assert run(both, tmp_path, input="micrograph").quality == "good"


def test_an_image_in_memory_is_not_read_again(tmp_path: Path, image: np.ndarray[Any, Any]) -> None:
    given = Artifact(kind=Kind.MICROGRAPH, path=tmp_path / "never_written.mrc", pixel_size_A=1.0)
    context = Context(out=tmp_path, item="movie_1")
    context.keep(given.path, image)
    assert run({"micrograph": given}, tmp_path, context).quality == "good"


def test_the_artifact_s_pixel_size_wins_then_the_parameter_then_the_header(
    tmp_path: Path, image: np.ndarray[Any, Any]
) -> None:
    header = saved(tmp_path, image, pixel_size_A=2.0)
    own = header.model_copy(update={"pixel_size_A": 1.0})
    assert run({"micrograph": own}, tmp_path, pixel_size_A=3.0).pixel_size_A == pytest.approx(1.0)
    assert run({"micrograph": header}, tmp_path, pixel_size_A=1.0).pixel_size_A == pytest.approx(1.0)
    assert run({"micrograph": header}, tmp_path).pixel_size_A == pytest.approx(2.0)


def test_no_pixel_size_anywhere_is_refused_with_what_to_set(
    tmp_path: Path, image: np.ndarray[Any, Any]
) -> None:
    record = run({"micrograph": saved(tmp_path, image, None)}, tmp_path)
    assert record.status is Status.QUARANTINED
    assert record.reason_code == Reason.METADATA_MISSING
    assert record.reason is not None
    assert "pixel_size_A" in record.reason


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((800, 800), np.float32), Reason.ALL_ZERO),
        (np.full((800, 800), 3.0, np.float32), Reason.CONSTANT),
        (np.full((800, 800), np.nan, np.float32), Reason.NOT_FINITE),
        (np.random.default_rng(1).standard_normal((90, 800)).astype(np.float32), Reason.WRONG_SIZE),
    ],
)
def test_an_image_that_cannot_be_is_set_aside_with_its_reason(
    tmp_path: Path, array: np.ndarray[Any, Any], reason: Reason
) -> None:
    path = tmp_path / "bad.mrc"
    with warnings.catch_warnings(), mrcfile.new(path) as file:
        warnings.simplefilter("ignore")  # mrcfile, too, remarks on NaN
        file.set_data(array)
        file.voxel_size = 1.0
    record = run({"micrograph": Artifact(kind=Kind.MICROGRAPH, path=path)}, tmp_path)
    assert record.status is Status.QUARANTINED
    assert record.reason_code == reason
    assert not list(tmp_path.glob("grid/*"))


def test_an_input_that_is_not_wired_is_an_error_that_names_it(
    tmp_path: Path, image: np.ndarray[Any, Any]
) -> None:
    record = run({"micrograph": saved(tmp_path, image)}, tmp_path, input="power_spectrum")
    assert record.status is Status.FAILED
    assert record.reason is not None
    assert "power_spectrum" in record.reason


@pytest.mark.parametrize(
    "values",
    [
        {"voltage_kV": 0},
        {"min_defocus_A": 9000, "max_defocus_A": 8000},
        {"min_resolution_A": 4, "max_resolution_A": 5},
        {"box_size": 511},
        {"defocus": 1},
    ],
)
def test_parameters_that_cannot_be_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CtfParameters(**values)


def test_every_parameter_says_what_it_is() -> None:
    for name, field in CtfParameters.model_fields.items():
        assert field.description, name
    assert CtfNative.folder == "CtfFind"


def test_good_rings_at_a_voltage_that_nobody_said_are_doubtful(
    tmp_path: Path, image: np.ndarray[Any, Any]
) -> None:
    given = {"micrograph": saved(tmp_path, image)}
    parameters = CtfParameters(amplitude_contrast=AMPLITUDE_CONTRAST)
    step = CtfNative()
    said = run_step(step, given, parameters, Context(tmp_path, "a", metadata={"voltage_kV": 300.0}))
    unsaid = run_step(step, given, parameters, Context(tmp_path, "b"))
    assert isinstance(said, CtfResult)
    assert isinstance(unsaid, CtfResult)
    assert (said.quality, unsaid.quality) == ("good", "doubtful")
    assert unsaid.defocus_u_A == said.defocus_u_A
    assert "voltage_kV" in unsaid.warnings[0]


def test_a_pixel_size_that_the_header_contradicts_is_told(
    tmp_path: Path, image: np.ndarray[Any, Any]
) -> None:
    record = run({"micrograph": saved(tmp_path, image, pixel_size_A=1.3)}, tmp_path, pixel_size_A=1.0)
    (warning,) = record.warnings
    assert "pixel_size_A is set to 1, but the header of micrograph.mrc says 1.3; 1 was used" in warning


def test_uncertainties_stand_in_the_record(tmp_path: Path, image: np.ndarray[Any, Any]) -> None:
    record = run({"micrograph": saved(tmp_path, image)}, tmp_path)
    for value in (
        record.defocus_u_uncertainty_A,
        record.defocus_v_uncertainty_A,
        record.angle_uncertainty_deg,
    ):
        assert value is not None
        assert 0 < value < 100
    assert record.phase_uncertainty_deg is None
    assert record.tilt_deg is None


def test_a_tilt_is_put_into_the_record_and_taken_out_of_the_fit(tmp_path: Path) -> None:
    given = {"micrograph": saved(tmp_path, tilted_image(), PIXEL_A)}
    record = run(given, tmp_path, estimate_tilt=True)
    assert record.tilt_deg == pytest.approx(50.0, abs=4.0)
    assert record.tilt_axis_deg == pytest.approx(70.0, abs=8.0)
    assert record.tilt_uncertainty_deg is not None
    assert record.fit_resolution_A is not None
    assert record.fit_resolution_A < 8.0


def test_a_tilt_that_cannot_be_seen_is_said_in_words(tmp_path: Path, image: np.ndarray[Any, Any]) -> None:
    small = run({"micrograph": saved(tmp_path, image[:700, :700])}, tmp_path, estimate_tilt=True)
    assert any("no tilt was estimated" in warning for warning in small.warnings)
    both = {"micrograph": saved(tmp_path, image), "power_spectrum": saved(tmp_path, image)}
    refused = run(both, tmp_path, estimate_tilt=True, input="power_spectrum")
    assert refused.status is Status.FAILED
    assert "says nothing of its parts" in str(refused.reason)


def test_a_tilt_that_is_given_is_used_and_a_wrong_sign_of_it_is_told(tmp_path: Path) -> None:
    given = {"micrograph": saved(tmp_path, tilted_image(), PIXEL_A)}
    right = run(given, tmp_path, tilt_angle_deg=50.0, tilt_axis_deg=70.0)
    assert (right.tilt_deg, right.tilt_axis_deg, right.tilt_uncertainty_deg) == (50.0, 70.0, None)
    assert right.defocus_u_A == pytest.approx(25300.0, abs=150.0)
    assert right.quality == "good"
    assert right.fit_resolution_A is not None
    assert right.fit_resolution_A < 9.0
    assert not any("sign" in warning for warning in right.warnings)
    wrong = run(given, tmp_path, tilt_angle_deg=-50.0, tilt_axis_deg=70.0)
    assert (wrong.tilt_deg, wrong.tilt_axis_deg) == (50.0, -110.0)  # a record's tilt is never negative
    assert any("check its sign" in warning for warning in wrong.warnings)
    assert wrong.quality == "doubtful"


@pytest.mark.parametrize(
    "parameters",
    [{"tilt_angle_deg": 20.0}, {"tilt_angle_deg": 20.0, "tilt_axis_deg": 0.0, "estimate_tilt": True}],
)
def test_half_a_tilt_or_two_of_them_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tilt_angle_deg"):
        CtfParameters(**parameters)
