"""The preview step: three small pictures that page and picks agree on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitriflow.formats import write_mrc
from vitriflow.steps import Artifact, Context, Kind, Status, find_step, run_step
from vitriflow.steps.preview import Preview, PreviewParameters
from vitriflow.steps.records import PreviewResult


def artifact(folder: Path, name: str, kind: Kind, image: np.ndarray) -> Artifact:
    path = folder / f"{name}.mrc"
    write_mrc(path, image.astype(np.float32), 1.0)
    return Artifact(kind=kind, path=path, pixel_size_A=1.0)


def made(folder: Path, inputs: dict[str, Artifact]) -> PreviewResult:
    context = Context(out=folder / "previews", item="Square 1/mic é")
    result = run_step(Preview(), inputs, PreviewParameters(), context)
    assert isinstance(result, PreviewResult)
    return result


def micrograph() -> np.ndarray:
    image = np.random.default_rng(0).normal(20.0, 4.0, (1800, 2400))
    image[:200] += 60.0  # bright at the first rows
    return image


def test_the_step_is_found_by_name() -> None:
    assert isinstance(find_step("preview"), Preview)


def test_pictures_have_the_first_row_on_top_and_the_scale_that_is_told(tmp_path: Path) -> None:
    result = made(tmp_path, {"micrograph": artifact(tmp_path, "mic", Kind.MICROGRAPH, micrograph())})
    assert result.status == Status.DONE
    with Image.open(result.outputs["micrograph"].path) as picture:
        assert picture.size == (1024, 768) == (result.width, result.height)
        assert result.scale == 1024 / 2400
        shown = np.asarray(picture).astype(float)
    assert shown[:70].mean() > shown[200:].mean() + 60
    with Image.open(result.outputs["thumbnail"].path) as thumbnail:
        assert thumbnail.size == (256, 192)
    assert "spectrum" not in result.outputs


def test_a_spectrum_is_shown_and_a_diagnostic_is_preferred(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    inputs = {
        "micrograph": artifact(tmp_path, "mic", Kind.MICROGRAPH, micrograph()),
        "power_spectrum": artifact(tmp_path, "ps", Kind.POWER_SPECTRUM, rng.normal(5, 1, (640, 640))),
    }
    result = made(tmp_path, inputs)
    with Image.open(result.outputs["spectrum"].path) as spectrum:
        assert spectrum.size == (512, 512)
        assert np.asarray(spectrum).std() > 20
    halves = np.concatenate([rng.normal(0, 1, (512, 256)), np.ones((512, 256))], axis=1)
    result = made(tmp_path, inputs | {"diagnostic": artifact(tmp_path, "ctf", Kind.PICTURE, halves)})
    with Image.open(result.outputs["spectrum"].path) as spectrum:
        shown = np.asarray(spectrum)
    assert shown[:, :256].std() > 40
    assert (shown[:, 256:] == 128).all()


def test_a_micrograph_with_nan_is_quarantined_and_leaves_no_picture(tmp_path: Path) -> None:
    image = micrograph().astype(np.float32)
    image[5, 5] = np.nan
    result = made(tmp_path, {"micrograph": artifact(tmp_path, "mic", Kind.MICROGRAPH, image)})
    assert result.status == Status.QUARANTINED
    assert result.reason_code == "image.not_finite"
    assert not [path for path in (tmp_path / "previews").rglob("*") if path.is_file()]


@pytest.mark.parametrize("shape", [(701, 1303), (2000, 90), (3, 5), (2, 2)])
def test_odd_oblong_and_tiny_images_are_shown(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).normal(20.0, 4.0, shape)
    result = made(tmp_path, {"micrograph": artifact(tmp_path, "mic", Kind.MICROGRAPH, image)})
    assert result.status == Status.DONE, result.reason
    with Image.open(result.outputs["micrograph"].path) as picture:
        assert picture.size == (result.width, result.height)
        assert max(picture.size) == min(1024, max(shape))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.float16])
def test_any_dtype_is_shown_alike(tmp_path: Path, dtype: type) -> None:
    image = micrograph().clip(0, 120).round()
    context = Context(out=tmp_path / "out", item="mic")
    path = tmp_path / "mic.mrc"
    context.keep(path, image.astype(dtype))
    given = {"micrograph": Artifact(kind=Kind.MICROGRAPH, path=path, pixel_size_A=1.0)}
    result = run_step(Preview(), given, PreviewParameters(), context)
    with Image.open(result.outputs["micrograph"].path) as picture:
        shown = np.asarray(picture).astype(float)
    assert shown[:70].mean() > shown[200:].mean() + 60


def test_a_few_saturated_pixels_do_not_dim_the_rest(tmp_path: Path) -> None:
    image = micrograph()
    image[np.random.default_rng(3).random(image.shape) < 1e-4] = 65535.0
    result = made(tmp_path, {"micrograph": artifact(tmp_path, "mic", Kind.MICROGRAPH, image)})
    with Image.open(result.outputs["micrograph"].path) as picture:
        shown = np.asarray(picture).astype(float)
    assert shown[:70].mean() > shown[200:].mean() + 60


def test_a_constant_image_is_a_grey_picture(tmp_path: Path) -> None:
    image = np.full((300, 400), 7.0)
    result = made(tmp_path, {"micrograph": artifact(tmp_path, "mic", Kind.MICROGRAPH, image)})
    with Image.open(result.outputs["micrograph"].path) as picture:
        assert np.ptp(np.asarray(picture).astype(int)) == 0


def test_pictures_are_made_on_one_thread_and_others_keep_theirs(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    seen = []

    class Watched(Preview):
        def _pictures(self, *given: Any) -> PreviewResult:
            seen.append(torch.get_num_threads())
            return super()._pictures(*given)

    inputs = {"micrograph": artifact(tmp_path, "mic", Kind.MICROGRAPH, micrograph())}
    run_step(Watched(), inputs, PreviewParameters(), Context(out=tmp_path, item="m", threads=2))
    assert seen == [1]
    assert torch.get_num_threads() == before
