"""The picking step: what it writes, what it says, and what RELION makes of it."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch

from vitriflow.errors import BadParameter
from vitriflow.formats import read_star, write_mrc, write_star
from vitriflow.kernels.pick import Picks, pick
from vitriflow.steps import Artifact, Context, Kind, Status, find_step, run_step
from vitriflow.steps.pick_dog import PickDog, PickParameters
from vitriflow.steps.precedence import make_parameters
from vitriflow.steps.records import PickResult

CENTRES = np.array([[y, x] for y in range(150, 900, 140) for x in range(130, 1150, 130)], dtype=float)


def dotted(seed: int = 4) -> np.ndarray:
    """Dark blobs of about 80 px at CENTRES in noise."""
    image = np.random.default_rng(seed).normal(50.0, 3.0, (1024, 1280)).astype(np.float32)
    y, x = np.mgrid[:1024, :1280]
    for cy, cx in CENTRES:
        near = (slice(int(cy) - 60, int(cy) + 60), slice(int(cx) - 60, int(cx) + 60))
        image[near] -= (8.0 * np.exp(-((y[near] - cy) ** 2 + (x[near] - cx) ** 2) / 800.0)).astype(np.float32)
    return image


def picked(
    image: np.ndarray,
    folder: Path,
    artifact_A: float | None = None,
    header_A: float = 1.0,
    **parameters: object,
) -> PickResult:
    path = folder / "in" / "mic.mrc"
    path.parent.mkdir(exist_ok=True)
    write_mrc(path, image, header_A)
    artifact = Artifact(kind=Kind.MICROGRAPH, path=path, pixel_size_A=artifact_A)
    context = Context(out=folder / "out", item="Square_1/mic")
    settings = make_parameters("pick.dog", PickParameters, {"particle_diameter_A": 80.0} | parameters)
    result = run_step(PickDog(), {"micrograph": artifact}, settings, context)
    assert isinstance(result, PickResult)
    return result


def positions(path: Path) -> np.ndarray:
    table = next(iter(read_star(path).values()))
    return np.stack([np.atleast_1d(table[f"rlnCoordinate{axis}"]) for axis in "YX"], axis=1).astype(float)


def test_the_step_is_found_by_name() -> None:
    assert isinstance(find_step("pick.dog"), PickDog)


def test_it_writes_the_picks_and_all_candidates_as_star(tmp_path: Path) -> None:
    result = picked(dotted(), tmp_path)
    assert result.status == Status.DONE
    assert result.n_picks == len(CENTRES)
    accepted = positions(result.outputs["coordinates"].path)
    assert len(accepted) == result.n_picks
    nearest = np.linalg.norm(CENTRES[:, None] - accepted[None], axis=2).min(axis=1)
    assert nearest.max() < 4.0
    candidates = next(iter(read_star(result.outputs["candidates"].path).values()))
    assert len(candidates) == result.n_candidates > result.n_picks
    above = np.asarray(candidates["rlnAutopickFigureOfMerit"], dtype=float) >= result.threshold
    assert above.sum() == result.n_picks
    assert result.outputs["coordinates"].path == tmp_path / "out" / "Square_1" / "mic_autopick.star"


def test_the_artifacts_pixel_size_wins_then_the_parameter_then_the_header(tmp_path: Path) -> None:
    image = dotted()
    by_artifact = picked(image, tmp_path, artifact_A=1.0, header_A=3.0, pixel_size_A=3.0)
    by_parameter = picked(image, tmp_path, header_A=3.0, pixel_size_A=1.0)
    by_header = picked(image, tmp_path, header_A=1.0)
    assert by_artifact.n_picks == by_parameter.n_picks == by_header.n_picks == len(CENTRES)
    assert by_header.warnings == []
    assert any("pixel_size_A is 1, but mic.mrc says 3" in warning for warning in by_parameter.warnings)


def test_no_pixel_size_anywhere_is_a_named_refusal(tmp_path: Path) -> None:
    path = tmp_path / "mic.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(dotted())
    context = Context(out=tmp_path / "out", item="mic")
    result = run_step(
        PickDog(),
        {"micrograph": Artifact(kind=Kind.MICROGRAPH, path=path)},
        PickParameters(particle_diameter_A=80.0),
        context,
    )
    assert result.status == Status.QUARANTINED
    assert result.reason_code == "metadata.missing"
    assert "pixel_size_A" in str(result.reason)


def test_an_empty_micrograph_is_done_with_a_warning_and_a_readable_star(tmp_path: Path) -> None:
    noise = np.random.default_rng(9).normal(50.0, 3.0, (1024, 1280)).astype(np.float32)
    result = picked(noise, tmp_path)
    assert result.status == Status.DONE
    assert result.n_picks == 0
    assert any("no particles" in warning for warning in result.warnings)
    assert PickResult.model_validate_json(result.model_dump_json()).threshold == result.threshold
    assert len(positions(result.outputs["coordinates"].path)) == 0


def test_a_constant_micrograph_is_quarantined(tmp_path: Path) -> None:
    result = picked(np.full((1024, 1280), 5.0, dtype=np.float32), tmp_path)
    assert result.status == Status.QUARANTINED
    assert result.reason_code == "image.constant"
    assert not list((tmp_path / "out").rglob("*.star"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: replace(p, coordinates=p.coordinates[:, ::-1]), "pick.outside"),  # x and y swapped
        (lambda p: replace(p, coordinates=p.coordinates * 16), "pick.outside"),
        (lambda p: replace(p, coordinates=p.coordinates - 400), "pick.outside"),
        (lambda p: replace(p, coordinates=p.coordinates * np.nan), "image.not_finite"),
        (lambda p: replace(p, score=p.score * np.nan), "image.not_finite"),
        (lambda p: replace(p, threshold=np.inf), "image.not_finite"),
    ],
    ids=["swapped axes", "off by 16", "off by an origin", "NaN", "NaN scores", "no threshold"],
)
def test_picks_that_cannot_be_are_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Picks], Picks], reason: str
) -> None:
    monkeypatch.setattr("vitriflow.kernels.pick.pick", lambda *a, **k: spoil(pick(*a, **k)))
    result = picked(dotted(), tmp_path)
    assert result.status == Status.QUARANTINED
    assert result.reason_code == reason
    assert not list((tmp_path / "out").rglob("*.star"))


def test_picks_are_made_on_one_thread_whatever_the_call_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(*given: Any, **more: Any) -> Picks:
        seen.append(torch.get_num_threads())
        return pick(*given, **more)

    monkeypatch.setattr("vitriflow.kernels.pick.pick", watched)
    before = torch.get_num_threads()
    picked(dotted(), tmp_path)
    assert seen == [1]
    assert torch.get_num_threads() == before


def test_a_pixel_size_that_the_microscopes_file_contradicts_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mic.mrc"
    write_mrc(path, dotted(), 1.0)
    context = Context(out=tmp_path / "out", item="mic", metadata={"pixel_size_A": 2.0})
    settings = PickParameters(particle_diameter_A=80.0, pixel_size_A=1.0)
    given = {"micrograph": Artifact(kind=Kind.MICROGRAPH, path=path)}
    result = run_step(PickDog(), given, settings, context)
    assert any("pixel_size_A is set to 1" in warning for warning in result.warnings)


def test_an_array_left_by_an_earlier_step_is_used_instead_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "not_there.mrc"
    context = Context(out=tmp_path / "out", item="mic")
    context.keep(path, dotted())
    result = run_step(
        PickDog(),
        {"micrograph": Artifact(kind=Kind.MICROGRAPH, path=path, pixel_size_A=1.0)},
        PickParameters(particle_diameter_A=80.0),
        context,
    )
    assert result.status == Status.DONE


@pytest.mark.parametrize(
    "values",
    [{}, {"particle_diameter_A": -5}, {"particle_diameter_A": 80, "max_diameter_A": 30}],
    ids=["no diameter", "negative", "upside down"],
)
def test_parameters_that_make_no_sense_are_named(values: dict[str, float]) -> None:
    with pytest.raises(BadParameter):
        make_parameters("pick.dog", PickParameters, values)


@pytest.mark.service
def test_relion_extracts_the_particle_that_was_meant(tmp_path: Path, relion: Path) -> None:
    """RELION's box of even size has its centre at index size / 2: the pick's pixel must lie there."""
    result = picked(dotted(), tmp_path)
    accepted = positions(result.outputs["coordinates"].path)
    spikes = np.zeros((1024, 1280), dtype=np.float32)
    at = np.rint(accepted).astype(int)
    spikes[at[:, 0], at[:, 1]] = 1.0
    write_mrc(tmp_path / "mic.mrc", spikes, 1.0)
    (tmp_path / "mic_autopick.star").write_bytes(result.outputs["coordinates"].path.read_bytes())
    optics = {
        "rlnOpticsGroupName": ["one"],
        "rlnOpticsGroup": [1],
        "rlnMicrographPixelSize": [1.0],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
    }
    micrographs = pd.DataFrame({"rlnMicrographName": ["mic.mrc"], "rlnOpticsGroup": [1]})
    write_star(tmp_path / "mics.star", {"optics": pd.DataFrame(optics), "micrographs": micrographs})
    command = [
        str(relion / "relion_preprocess"),
        *("--i", "mics.star", "--coord_dir", "./", "--coord_suffix", "_autopick.star"),
        *("--part_star", "particles.star", "--part_dir", "Particles/", "--extract", "--extract_size", "64"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    stacks = list((tmp_path / "Particles").rglob("*.mrcs"))
    assert stacks, done.stdout + done.stderr
    stack = mrcfile.read(stacks[0])
    assert len(stack) == result.n_picks
    peaks = [np.unravel_index(box.argmax(), box.shape) for box in stack]
    assert peaks == [(32, 32)] * len(peaks)
