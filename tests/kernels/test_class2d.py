"""Classes that grow while particles arrive, on stacks whose classes are known."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vitriflow.errors import BadImage, BadParameter
from vitriflow.kernels.class2d import Class2DSettings, OnlineClassifier, ParticleCtf
from vitriflow.kernels.class2d_polar import PolarGrid, ctf_on_rings, harmonics, moved, turned
from vitriflow.kernels.class2d_report import class_pictures, class_reports
from vitriflow.kernels.class2d_state import from_arrays, to_arrays
from vitriflow.kernels.ctf import ctf_2d
from vitriflow.simulate import SimulatedParticles, simulate_particles
from vitriflow.steps.threads import torch_threads

BOX, PIXEL_A = 32, 7.0


@pytest.fixture(autouse=True)
def one_thread():
    with torch_threads(1):
        yield


def settings(**other: object) -> Class2DSettings:
    values: dict = {
        "pixel_size_A": PIXEL_A,
        "particle_diameter_A": 180.0,
        "n_classes": 5,
        "first": 120,
        "held": 400,
        "max_resolution_A": 16.0,
    }
    return Class2DSettings(**{**values, **other})


def ctf(particles: SimulatedParticles, part: slice = slice(None)) -> ParticleCtf:
    return ParticleCtf.of(
        torch.from_numpy(particles.defocus[part]),
        particles.voltage_kV,
        particles.cs_mm,
        particles.amplitude_contrast,
    )


def purity(classes: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Part of the particles that belong to the view that most in their class belong to."""
    pure = sum(np.bincount(truth[classes == one]).max() for one in np.unique(classes[classes > 0]))
    return float(pure / max(1, (classes > 0).sum()))


@pytest.fixture(scope="module")
def stack() -> SimulatedParticles:
    return simulate_particles(
        400, n_classes=4, box=BOX, pixel_size_A=PIXEL_A, snr=0.3, max_shift_px=1.5, seed=1
    )


@pytest.fixture(scope="module")
def grown(stack: SimulatedParticles) -> tuple[OnlineClassifier, list]:
    """A classifier that saw the stack in four batches."""
    with torch_threads(1):
        classifier = OnlineClassifier(settings(), BOX)
        updates = []
        for first in range(0, 400, 100):
            part = slice(first, first + 100)
            updates.append(classifier.update(torch.from_numpy(stack.images[part]), ctf(stack, part)))
    return classifier, updates


def test_rings_turn_and_move_as_images_do() -> None:
    grid = PolarGrid(48, 18.0, 12, 96)
    y, x = torch.meshgrid(torch.arange(48.0) - 24, torch.arange(48.0) - 24, indexing="ij")

    def spots(*at: tuple[float, float]) -> torch.Tensor:
        return sum(torch.exp(-((y - a) ** 2 + (x - b) ** 2) / 8.0) for a, b in at)  # type: ignore[return-value]

    image = spots((5.0, 0.0), (0.0, -4.0))
    half_right = np.deg2rad(30.0)
    c, s = np.cos(half_right), np.sin(half_right)
    rotated = spots((5.0 * c, -5.0 * s), (-4.0 * s, -4.0 * c))  # from x towards y
    shifted = spots((7.0, -1.0), (2.0, -5.0))
    rings = grid.forward(torch.stack([image, rotated, shifted]))
    turned_rings = turned(harmonics(rings[:1]), torch.tensor([half_right], dtype=torch.float32))
    assert (turned_rings - harmonics(rings[1:2])).abs().max() < 0.02 * harmonics(rings).abs().max()
    moved_rings = moved(rings[:1], grid.ramps(torch.tensor([[2.0, -1.0]])))
    assert (moved_rings - rings[2:]).abs().max() < 0.02 * rings.abs().max()


def test_an_image_comes_back_from_its_rings() -> None:
    grid = PolarGrid(48, 18.0, 22, 128)
    at = torch.arange(48.0) - 24
    image = torch.exp(-((at[:, None] - 4) ** 2 + (at[None] + 6) ** 2) / 10.0)[None]
    image = image - torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / 20.0)
    back = grid.backward(grid.forward(image))
    inside = grid.mask > 0.99
    both = torch.stack([back[0][inside], (image[0] * grid.mask)[inside]])
    assert float(torch.corrcoef(both)[0, 1]) > 0.99


def test_white_noise_keeps_its_variance_on_the_rings() -> None:
    grid = PolarGrid(48, 18.0, 20, 64)
    noise = torch.randn((60, 48, 48), generator=torch.Generator().manual_seed(1))
    assert float(grid.forward(noise).square().mean()) == pytest.approx(1.0, abs=0.03)


def test_the_ctf_on_rings_is_that_of_images_with_its_sign_turned() -> None:
    grid = PolarGrid(64, 20.0, 16, 32)
    defocus = torch.tensor([[15000.0, 13000.0, 25.0, 10.0]])
    found = ctf_on_rings(grid, 3.0, defocus, torch.tensor([[200.0, 1.4, 0.07]]))
    whole = -ctf_2d((64, 64), 3.0, 15000.0, 13000.0, 25.0, 200.0, 1.4, 0.07, 10.0, half=False)
    assert found[0, 7, 0] == pytest.approx(float(whole[0, 8]), abs=1e-4)
    assert found[0, 7, 8] == pytest.approx(float(whole[8, 0]), abs=1e-4)


def test_classes_are_pure_and_each_view_has_one(grown, stack: SimulatedParticles) -> None:
    classifier, updates = grown
    assert updates[0].class_id.tolist() == [0] * 100  # waits for the first 120
    held = classifier.held
    classes = np.zeros(400, np.int64)
    classes[held.number.numpy()] = held.class_id.numpy()
    assert purity(classes, stack.class_of) > 0.9
    found = {int(np.bincount(stack.class_of[classes == one]).argmax()) for one in np.unique(classes)}
    assert found == {0, 1, 2, 3}


def test_turns_within_a_class_are_those_of_the_truth(grown, stack: SimulatedParticles) -> None:
    classifier, _ = grown
    held = classifier.held
    number = held.number.numpy()
    for class_id in held.class_id.unique().tolist():
        mine = (held.class_id == class_id).numpy()
        apart = np.rad2deg(held.turn.numpy()[mine]) - stack.turn_deg[number[mine]]
        apart = np.exp(1j * np.deg2rad(apart))
        assert (
            mine.sum() < 20 or abs(apart.mean()) > 0.7
        )  # one constant turn between our average and the view


def test_averages_look_like_the_views(grown, stack: SimulatedParticles) -> None:
    classifier, _ = grown
    pictures = class_pictures(classifier)
    assert torch.isfinite(pictures).all()
    grid = PolarGrid(BOX, 12.0, 10, 64)
    ours = harmonics(grid.forward(pictures))
    truth = harmonics(grid.forward(torch.from_numpy(stack.views)))

    def power(a: torch.Tensor) -> torch.Tensor:
        return a[:, 1:6, 1:12].abs().reshape(len(a), -1)  # doesn't depend on the turn

    alike = torch.corrcoef(torch.cat([power(ours), power(truth)]))[: len(ours), len(ours) :]
    assert float(alike.max(dim=1).values.median()) > 0.7


def test_reports_count_all_particles_and_keep_real_classes(grown) -> None:
    classifier, _ = grown
    reports = class_reports(classifier)
    assert sum(one.count for one in reports) == 400
    assert [one.count for one in reports] == sorted((one.count for one in reports), reverse=True)
    large = [one for one in reports if one.count > 40]
    assert all(one.keep and one.noise_likeness < 0.2 and one.resolution_A for one in large)


def test_the_same_calls_give_the_same_classes_and_a_state_goes_on_as_if_never_stopped(
    grown, stack: SimulatedParticles
) -> None:
    straight, _ = grown
    stopped = OnlineClassifier(settings(), BOX)
    for first in range(0, 400, 100):
        part = slice(first, first + 100)
        stopped.update(torch.from_numpy(stack.images[part]), ctf(stack, part))
        stopped = from_arrays(settings(), to_arrays(stopped))
    assert torch.equal(stopped.held.class_id, straight.held.class_id)
    assert torch.equal(stopped.classes.sums, straight.classes.sums)


def test_a_state_of_other_particles_is_refused(grown) -> None:
    with pytest.raises(BadParameter, match="Restart the node"):
        from_arrays(settings(particle_diameter_A=150.0), to_arrays(grown[0]))


def test_memory_stays_while_particles_pass_and_everyone_has_a_class(stack: SimulatedParticles) -> None:
    classifier = OnlineClassifier(settings(held=150, most_per_update=90), BOX)
    given, left_out = 0, 0
    for first in range(0, 400, 100):
        part = slice(first, first + 100)
        update = classifier.update(torch.from_numpy(stack.images[part]), ctf(stack, part))
        given += int((update.class_id > 0).sum())
        left_out += update.n_left_out
        assert len(classifier.held) <= 150
        if classifier.started:
            assert int((update.class_id > 0).sum()) == 90
    assert left_out == 40
    assert sum(one.count for one in class_reports(classifier)) == 360
    assert float(classifier.classes.past_weights.sum()) > 0


def test_broken_particles_are_counted_and_never_reach_the_averages(stack: SimulatedParticles) -> None:
    images = torch.from_numpy(stack.images[:160]).clone()
    images[3] = torch.nan
    images[9, 4, 4] = torch.inf
    images[12] = 2.0
    classifier = OnlineClassifier(settings(), BOX)
    update = classifier.update(images, ctf(stack, slice(0, 160)))
    assert update.n_broken == 3
    assert update.class_id[[3, 9, 12]].tolist() == [0, 0, 0]
    assert int((update.class_id > 0).sum()) == 157
    assert torch.isfinite(classifier.averages().a.abs()).all()


def test_noise_alone_gives_no_class_worth_keeping() -> None:
    noise = torch.randn((240, BOX, BOX), generator=torch.Generator().manual_seed(4))
    classifier = OnlineClassifier(settings(), BOX)
    update = classifier.update(noise)
    assert torch.isfinite(update.score).all()
    reports = class_reports(classifier)
    assert not any(one.keep for one in reports if one.count > 30), reports


def test_an_empty_update_and_a_wrong_box_change_nothing(grown) -> None:
    classifier, _ = grown
    before = classifier.n_seen
    update = classifier.update(torch.zeros(0, BOX, BOX))
    assert len(update.number) == 0
    with pytest.raises(BadImage, match="one box size"):
        classifier.update(torch.zeros(3, 48, 48))
    assert classifier.n_seen == before


@pytest.mark.parametrize(
    "wrong",
    [{"pixel_size_A": 0.0}, {"n_classes": 0}, {"held": 10}, {"ctf": "twice"}, {"particle_diameter_A": -5.0}],
)
def test_settings_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(BadParameter):
        settings(**wrong)


def test_noise_is_learnt_from_all_particles_that_wait(stack: SimulatedParticles) -> None:
    classifier = OnlineClassifier(settings(first=200), BOX)
    for part in (slice(0, 2), slice(2, 150)):
        classifier.update(torch.from_numpy(stack.images[part]), ctf(stack, part))
    together = OnlineClassifier(settings(first=200), BOX)
    together.update(torch.from_numpy(stack.images[:150]), ctf(stack, slice(0, 150)))
    assert classifier.prepare.noise is not None
    assert torch.allclose(classifier.prepare.noise, together.prepare.noise, rtol=1e-3)
    assert torch.allclose(classifier.power, together.power, rtol=1e-2)
    assert torch.allclose(classifier.held.z.float(), together.held.z.float(), atol=0.02)
