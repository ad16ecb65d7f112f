"""The step that classifies while particles arrive."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vitriflow.formats import read_particles, read_stack, read_star, write_particles, write_stack
from vitriflow.simulate import SimulatedParticles, simulate_particles
from vitriflow.steps import (
    Artifact,
    BatchItem,
    Class2DResult,
    Context,
    Kind,
    Status,
    find_step,
    run_batch_step,
)

BOX, PIXEL_A = 32, 7.0


@pytest.fixture(scope="module")
def stack() -> SimulatedParticles:
    return simulate_particles(
        240, n_classes=3, box=BOX, pixel_size_A=PIXEL_A, snr=0.4, max_shift_px=1.0, seed=8
    )


def member(folder: Path, number: int, stack: SimulatedParticles, part: slice, **other: object) -> BatchItem:
    """Files of one micrograph as ``extract`` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    images, defocus = stack.images[part].copy(), stack.defocus[part]
    write_stack(folder / f"m{number}_particles.mrcs", images, PIXEL_A, half=bool(other.get("half")))
    n = len(images)
    columns = {
        "rlnCoordinateX": np.arange(n, dtype=float),
        "rlnCoordinateY": np.arange(n, dtype=float),
        "rlnImageName": [f"{i:06d}@m{number}_particles.mrcs" for i in range(1, n + 1)],
        "rlnMicrographName": f"m{number}.mrc",
        "rlnOpticsGroup": 1,
    }
    if other.get("ctf", True):
        columns |= {
            "rlnDefocusU": defocus[:, 0],
            "rlnDefocusV": defocus[:, 1],
            "rlnDefocusAngle": defocus[:, 2],
            "rlnPhaseShift": 0.0,
        }
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["one"],
            "rlnOpticsGroup": [1],
            "rlnVoltage": [stack.voltage_kV],
            "rlnSphericalAberration": [stack.cs_mm],
            "rlnAmplitudeContrast": [stack.amplitude_contrast],
            "rlnImagePixelSize": [PIXEL_A],
            "rlnImageSize": [BOX],
            "rlnImageDimensionality": [2],
        }
    )
    star = folder / f"m{number}_particles.star"
    write_particles(star, pd.DataFrame(columns), optics)
    given = Artifact(kind=Kind.PARTICLES, path=star, pixel_size_A=PIXEL_A)
    return BatchItem(f"m{number}", number, {"particles": given})


def run(
    tmp_path: Path, number: int, items: list[BatchItem], state: Path | None = None, **parameters: object
) -> Class2DResult:
    step = find_step("class2d.online")
    values = {
        "particle_diameter_A": 180.0,
        "n_classes": 4,
        "first_particles": 100,
        "max_resolution_A": 16.0,
        **parameters,
    }
    context = Context(tmp_path / "Class2D" / "job007", f"batch_{number:04d}")
    record = run_batch_step(step, items, {}, state, step.Parameters.model_validate(values), context)
    assert isinstance(record, Class2DResult)
    return record


@pytest.fixture(scope="module")
def grown(
    stack: SimulatedParticles, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Class2DResult], list[BatchItem]]:
    """Three batches: too few, enough, and more with broken members among them."""
    folder = tmp_path_factory.mktemp("session")
    job = folder / "Extract" / "job005"
    items = [member(job, i, stack, slice(60 * i, 60 * i + 60), half=i == 1) for i in range(4)]
    gone = member(job, 8, stack, slice(0, 5))
    (job / "m8_particles.mrcs").unlink()
    bare = member(job, 9, stack, slice(0, 5), ctf=False)
    none = BatchItem("m10", 10, {})
    records = [run(folder, 1, items[:1])]
    records.append(run(folder, 2, items[1:3], records[-1].outputs["state"].path))
    records.append(run(folder, 3, [items[3], gone, bare, none], records[-1].outputs["state"].path))
    return folder, records, items


def test_it_waits_for_enough_particles_then_grows(grown) -> None:
    _, (first, second, third), _ = grown
    assert [one.status for one in (first, second, third)] == [Status.DONE] * 3, third.reason
    assert (first.n_waiting, first.classes, "classes" in first.outputs) == (60, [], False)
    assert "waiting for 100" in " ".join(first.warnings)
    assert (second.n_seen, second.n_classified, second.n_new) == (180, 180, 2)
    assert (third.n_seen, third.n_classified, third.n_new) == (240, 240, 1)
    assert sum(one.n_particles for one in third.classes) == 240
    kept = {one.class_id for one in second.classes} & {one.class_id for one in third.classes}
    assert kept  # the same classes, with the same numbers


def test_members_that_cannot_be_read_hold_nobody_back_and_are_named(grown) -> None:
    _, (_, _, third), _ = grown
    assert len(third.skipped) == 3
    assert third.n_items == 1
    assert any("m8" in text for text in third.skipped)
    assert any("Wire a CTF" in text for text in third.skipped)
    assert any("couldn't be used" in text for text in third.warnings)


def test_every_particle_stands_in_the_table_with_its_class_turn_and_shift(
    grown, stack: SimulatedParticles
) -> None:
    folder, (_, _, third), _ = grown
    particles = read_particles(third.outputs["particles"].path)
    assert len(particles) == 240
    assert particles.table["rlnImageName"].nunique() == 240
    truth = []
    for (place, path), name in zip(particles.places(), particles.table["rlnImageName"], strict=True):
        assert path.is_file(), name  # names count from the project's root, as RELION's do
        truth.append(stack.class_of[60 * int(path.name[1]) + place])
    classes = particles.table["rlnClassNumber"].to_numpy()
    pure = sum(np.bincount(np.array(truth)[classes == one]).max() for one in np.unique(classes))
    assert pure / 240 > 0.9
    # As RELION counts: psi and the turn from the view to the particle make a constant
    turn = [stack.turn_deg[60 * int(path.name[1]) + place] for place, path in particles.places()]
    largest = classes == np.bincount(classes).argmax()
    together = particles.table["rlnAnglePsi"].to_numpy(dtype=float) + np.array(turn)
    assert abs(np.exp(1j * np.deg2rad(together[largest])).mean()) > 0.7
    assert str(particles.table["rlnImageName"].iloc[0]).split("@")[1].startswith("Extract/job005/")
    assert folder.is_dir()


def test_averages_model_and_picture_belong_together(grown) -> None:
    _, (_, _, third), _ = grown
    averages = read_stack(third.outputs["classes"].path)
    assert averages.shape == (len(third.classes), BOX, BOX)
    model = read_star(third.outputs["model"].path)["model_classes"]
    assert list(model["rlnClassNumber"]) == [one.class_id for one in third.classes]
    assert third.outputs["picture"].path.read_bytes().startswith(b"\x89PNG")


def test_a_batch_that_was_killed_is_made_again_from_the_same_state(grown, tmp_path: Path) -> None:
    folder, (_, second, third), items = grown
    state = second.outputs["state"].path
    shutil.copytree(folder, tmp_path / "again")
    once_more = run(tmp_path / "again", 3, [items[3]], state)
    assert once_more.n_seen == 240  # nothing counted twice
    assert [one.n_particles for one in once_more.classes] == [one.n_particles for one in third.classes]
    left = [path for path in (tmp_path / "again").rglob(".*") if path.is_file()]
    assert left == []


def test_what_a_person_chose_is_remembered(grown, tmp_path: Path) -> None:
    folder, (_, second, _), items = grown
    chosen = second.classes[0].class_id
    shutil.copytree(folder, tmp_path / "s")
    record = run(tmp_path / "s", 3, [items[3]], second.outputs["state"].path, select={chosen: False})
    again = run(tmp_path / "s", 4, [], record.outputs["state"].path)
    mine = next(one for one in again.classes if one.class_id == chosen)
    assert (mine.selected, mine.selected_by) == (False, "person")
    table = read_particles(again.outputs["selected"].path).table
    assert chosen not in set(table["rlnClassNumber"])


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_state_is_told_and_nothing_is_written(grown, tmp_path: Path, damage: str) -> None:
    _, (_, second, _), items = grown
    whole = second.outputs["state"].path.read_bytes()
    state = tmp_path / "state.npz"
    state.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "other": b"not a state"}[damage])
    record = run(tmp_path, 3, [items[3]], state)
    assert record.status is Status.QUARANTINED
    assert "Restart the node" in (record.reason or "")
    assert not list((tmp_path / "Class2D").rglob("*.npz"))


def test_particles_of_another_box_are_left_out(grown, tmp_path: Path) -> None:
    _, (_, second, _), _ = grown
    other = simulate_particles(20, n_classes=2, box=48, pixel_size_A=PIXEL_A, snr=0.4, seed=1)
    item = member(tmp_path / "Extract" / "job005", 20, other, slice(None))
    record = run(tmp_path, 3, [item], second.outputs["state"].path)
    assert record.status is Status.DONE
    assert "48 px" in record.skipped[0]
    assert record.n_seen == 180


def test_more_than_it_carries_is_drawn_from_and_said(stack: SimulatedParticles, tmp_path: Path) -> None:
    job = tmp_path / "Extract" / "job005"
    items = [member(job, i, stack, slice(120 * i, 120 * i + 120)) for i in range(2)]
    record = run(tmp_path, 1, items, most_per_batch=130)
    assert 100 < record.n_particles < 160
    assert record.n_particles + record.n_left_out == 240
    assert any("drawn out" in text for text in record.warnings)


_KILLED = """
import os, pickle, sys
from pathlib import Path
from vitriflow.steps import Context, find_step, run_batch_step
out, state, item = pickle.loads(bytes.fromhex(sys.argv[1]))
step = find_step("class2d.online")
context = Context(Path(out), "batch_0003")
replace = Path.replace
def stop(self, target):
    if str(target).endswith(".state.npz"):
        os.kill(os.getpid(), 9)
    return replace(self, target)
Path.replace = stop
values = dict(particle_diameter_A=180.0, n_classes=4, first_particles=100, max_resolution_A=16.0)
run_batch_step(step, [item], {}, Path(state), step.Parameters.model_validate(values), context)
"""


def test_a_kill_as_the_state_is_written_leaves_the_one_before_and_counts_nothing_twice(
    grown, tmp_path: Path
) -> None:
    folder, (_, second, third), items = grown
    shutil.copytree(folder, tmp_path / "s")
    job = tmp_path / "s" / "Class2D" / "job007"
    for path in job.glob("batch_0003*"):
        path.unlink()
    state = job / "batch_0002.state.npz"
    before = state.read_bytes()
    given = pickle.dumps((str(job), str(state), items[3])).hex()
    done = subprocess.run([sys.executable, "-c", _KILLED, given], timeout=300, check=False)
    assert done.returncode == -9
    assert state.read_bytes() == before
    assert not (job / "batch_0003.state.npz").exists()
    again = run(tmp_path / "s", 3, [items[3]], state)
    assert again.status is Status.DONE
    assert again.n_seen == 240
    assert [one.n_particles for one in again.classes] == [one.n_particles for one in third.classes]
    assert second.n_seen == 180


@pytest.mark.slow
def test_real_particles_in_half_floats_give_classes_with_detail(real_data: Path, tmp_path: Path) -> None:
    star = real_data / "empiar-10204-relion5" / "Extract" / "particles.star"
    given = Artifact(kind=Kind.PARTICLES, path=star, pixel_size_A=3.54)
    record = run(
        tmp_path,
        1,
        [BatchItem("all", 1, {"particles": given})],
        n_classes=6,
        first_particles=300,
        max_resolution_A=10.0,
        most_per_batch=500,
    )
    assert record.status is Status.DONE, record.reason
    assert record.n_classified == record.n_particles > 400
    assert record.best_resolution_A is not None
    assert record.best_resolution_A < 30.0
    assert (
        record.n_selected > 0.8 * record.n_classified
    )  # beta-galactosidase, few false picks: errs on keeping
