"""RELION itself, run for real: motion, picking, extraction, classes and a refinement."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.steps.programs.cases import Made
from tests.steps.programs.made import make_micrograph, make_particles, make_reference, shifts_of
from vitriflow.formats import read_coordinates, read_image, read_particles, read_stack, read_star
from vitriflow.kernels.likeness import blocks, likeness
from vitriflow.steps import (
    Artifact,
    Class2DResult,
    ExtractResult,
    Kind,
    MotionResult,
    PickResult,
    Result,
    Status,
    Volume3DResult,
    find_step,
    make_parameters,
    run_batch_step,
    run_step,
)
from vitriflow.steps.base import Context

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("relion")]
MPI_AS_ROOT = ", ".join(
    f"OMPI_{name} = '1'"
    for name in ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM", "MCA_rmaps_base_oversubscribe")
)


def run(name: str, files: dict[str, Path], out: Path, **values: Any) -> Result:
    step = find_step(name)
    inputs = {port: Artifact(kind=step.inputs[port].kind, path=path) for port, path in files.items()}
    record = run_step(
        step, inputs, make_parameters(name, step.Parameters, values), Context(out, "a b/m", threads=2)
    )
    assert (record.status, record.reason) == (Status.DONE, None)
    assert record.program is None or "RELION" in record.program
    return record


def test_motion_is_that_of_native_on_the_same_movie(made: Made, tmp_path: Path) -> None:
    values = {"pixel_size_A": 1.0, "dose_per_frame_e_per_A2": 1.0, "patches_x": 1, "patches_y": 1}
    theirs = run("motion.relion", {"movie": made.movie}, tmp_path / "relion", write_unweighted=True, **values)
    ours = run("motion.native", {"movie": made.movie}, tmp_path / "native", write_unweighted=True, **values)
    assert isinstance(theirs, MotionResult)
    assert isinstance(ours, MotionResult)
    assert (
        np.abs(np.array(theirs.frame_shifts_A) - shifts_of()).max() < 1.5
    )  # RELION's error on so small a movie
    assert np.abs(np.array(theirs.frame_shifts_A) - ours.frame_shifts_A).max() < 1.5
    assert set(theirs.outputs) == {"micrograph", "micrograph_unweighted", "motion"}
    import torch

    plain = [
        blocks(torch.tensor(np.array(read_image(one.outputs["micrograph_unweighted"].path).array)))
        for one in (theirs, ours)
    ]
    assert likeness(*plain) > 0.9
    assert theirs.mean_intensity == pytest.approx(ours.mean_intensity, rel=1e-3)
    star = read_star(theirs.outputs["motion"].path)
    assert star["general"]["rlnMicrographMovieName"] == str(made.movie)
    assert theirs.program == "RELION motion correction 3.1.3"


def test_picks_and_boxes_lie_where_native_has_them(made: Made, tmp_path: Path) -> None:
    truth = make_micrograph(tmp_path / "m.mrc")
    files = {"micrograph": tmp_path / "m.mrc"}
    found = run("pick.relion_log", files, tmp_path / "out", particle_diameter_A=80.0)
    assert isinstance(found, PickResult)
    yx, _ = read_coordinates(found.outputs["coordinates"].path)
    near = np.hypot(*(yx[:, None] - truth[None]).T).T.min(axis=0)
    assert (near < 6).mean() > 0.9
    files |= {"coordinates": found.outputs["coordinates"].path, "ctf": made.ctf}
    values = {"particle_diameter_A": 80.0, "box_size_px": 64, "scaled_box_px": 32}
    theirs = run("extract.relion", files, tmp_path / "theirs", **values)
    ours = run("extract", files, tmp_path / "ours", **values)
    assert isinstance(theirs, ExtractResult)
    assert isinstance(ours, ExtractResult)
    assert (theirs.box_size_px, theirs.pixel_size_A) == (ours.box_size_px, ours.pixel_size_A)
    sets = [read_particles(one.outputs["particles"].path) for one in (theirs, ours)]
    # native leaves out boxes over the edge, RELION too
    assert [len(one) for one in sets] == [theirs.n_particles, ours.n_particles]
    assert theirs.n_particles == ours.n_particles
    images = [read_stack(one.places()[0][1]) for one in sets]
    likes = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*images, strict=True)]
    assert np.median(likes) > 0.95
    assert float(sets[0].table["rlnDefocusU"].iloc[0]) == 12000.0
    templates = run(
        "pick.relion_template",
        {"micrograph": files["micrograph"]},
        tmp_path / "templates",
        particle_diameter_A=80.0,
        references=sets[0].places()[0][1],
        references_pixel_size_A=4.0,
        angle_step_deg=90.0,
        threshold=0.2,
    )
    assert isinstance(templates, PickResult)
    yx, _ = read_coordinates(templates.outputs["coordinates"].path)
    assert (np.hypot(*(yx[:, None] - truth[None]).T).T.min(axis=1) < 8).mean() > 0.8


@pytest.mark.slow
def test_classes_and_a_refinement_of_two_iterations(configure: Callable[[str], Path], tmp_path: Path) -> None:
    configure(f"[programs.relion]\nenvironment = {{ {MPI_AS_ROOT}, OMP_NUM_THREADS = '1' }}\n")
    items = make_particles(tmp_path, 300)
    reference = make_reference(tmp_path / "reference.mrc")
    quick = {"particle_diameter_A": 100, "random_seed": 1, "offset_range_px": 2, "offset_step_px": 1}
    first = {**quick, "reference": reference, "initial_lowpass_A": 30}
    steps: dict[str, dict[str, Any]] = {
        "class2d.relion": {**quick, "n_classes": 2, "iterations": 2, "psi_step_deg": 15},
        "class3d.relion": {**first, "n_classes": 1, "iterations": 2, "healpix_order": 0},
        "refine3d.relion": {**first, "max_iterations": 2, "healpix_order": 0, "threads": 1},
    }
    for name, values in steps.items():
        step: Any = find_step(name)
        parameters = make_parameters(name, step.Parameters, values)
        record = run_batch_step(
            step, items, {}, None, parameters, Context(tmp_path / name, "batch_0001", threads=2)
        )
        assert (record.status, record.reason) == (Status.DONE, None)
        assert isinstance(record, Class2DResult | Volume3DResult)
        assert (record.n_items, record.n_particles) == (2, 300)
        assert sum(one.n_particles for one in record.classes) == 300
        back = read_particles(record.outputs["particles"].path)
        assert {path for _, path in back.places()} == {tmp_path / f"m{n}_particles.mrcs" for n in range(2)}
        if isinstance(record, Volume3DResult):
            assert record.iterations == 2
            assert record.resolution_A is not None
            assert record.outputs["volume"].kind is Kind.VOLUME
            assert read_stack(record.outputs["volume"].path).shape == (32, 32, 32)
        else:
            assert read_stack(record.outputs["classes"].path).shape == (2, 32, 32)
