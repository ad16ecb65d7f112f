"""A CTF fit whose numbers can't be is never passed on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels.ctf_cases import Case, micrograph
from vitriflow.formats import write_mrc
from vitriflow.kernels.ctf_fit import CtfFit, fit_ctf
from vitriflow.steps import Artifact, Context, Kind, Status, find_step, run_step


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ctf") / "mic.mrc"
    made = micrograph(Case(12000.0, 900.0, 30.0, shape=(1024, 1024), seed=3)).numpy()
    write_mrc(path, np.asarray(made, dtype=np.float32), 1.0)
    return path


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: replace(f, defocus_u_A=f.defocus_v_A, defocus_v_A=f.defocus_u_A), "ctf.bounds"),
        (lambda f: replace(f, defocus_angle_deg=f.defocus_angle_deg + 180.0), "ctf.bounds"),
        (lambda f: replace(f, defocus_u_A=float("nan")), "image.not_finite"),
        (lambda f: replace(f, cross_correlation=float("inf")), "image.not_finite"),
    ],
    ids=["U and V swapped", "angle turned", "NaN", "infinite"],
)
def test_fits_that_cannot_be_are_never_written(
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[CtfFit], CtfFit],
    reason: str,
) -> None:
    def spoilt(*given: Any, **more: Any) -> CtfFit:
        return spoil(fit_ctf(*given, **more))

    monkeypatch.setattr("vitriflow.kernels.ctf_fit.fit_ctf", spoilt)
    step = find_step("ctf.native")
    given = {"micrograph": Artifact(kind=Kind.MICROGRAPH, path=image)}
    record = run_step(step, given, step.Parameters(voltage_kV=300.0), Context(out=tmp_path, item="m"))
    assert record.status is Status.QUARANTINED
    assert record.reason_code == reason
    assert not list(tmp_path.rglob("*.star"))
