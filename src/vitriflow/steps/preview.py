"""Small pictures of a micrograph and its spectrum, for the pages."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from vitriflow.steps.base import Context, Port, Resources, Step, StepParameters
from vitriflow.steps.records import Artifact, Kind, PreviewResult
from vitriflow.steps.threads import torch_threads

if TYPE_CHECKING:
    import torch


class PreviewParameters(StepParameters):
    """How large the pictures are."""

    size_px: int = Field(default=1024, ge=64, le=8192, description="longer side of the micrograph (px)")
    thumbnail_px: int = Field(default=256, ge=16, le=1024, description="longer side of the thumbnail (px)")
    spectrum_px: int = Field(default=512, ge=64, le=4096, description="longest side of the spectrum (px)")
    quality: int = Field(default=85, ge=30, le=95, description="of the JPEG pictures (30 to 95)")


def read_array(path: Path, context: Context) -> Any:
    """The image under this path: as an earlier step left it, or from disk."""
    kept = context.recall(path)
    if kept is not None:
        return kept
    from vitriflow.formats import read_image

    return read_image(path).array


class Preview(Step[PreviewParameters, PreviewResult]):
    """Makes pictures with row 0 of the array at the top: pick positions need only ``scale``."""

    name = "preview"
    version = "1"
    summary = "Small pictures of a micrograph, its thumbnail and its power spectrum"
    folder = "previews"
    inputs = {  # noqa: RUF012  (declared as ClassVar by Step)
        "micrograph": Port(Kind.MICROGRAPH, "the image to show"),
        "power_spectrum": Port(Kind.POWER_SPECTRUM, "centred amplitudes to show", optional=True),
        "diagnostic": Port(Kind.PICTURE, "a CTF step's picture, half data and half fit", optional=True),
    }
    outputs = {  # noqa: RUF012
        "micrograph": Port(Kind.PICTURE, "JPEG of about 1024 px"),
        "thumbnail": Port(Kind.PICTURE, "JPEG of about 256 px"),
        "spectrum": Port(Kind.PICTURE, "PNG, where a spectrum or diagnostic is given", optional=True),
    }
    Parameters = PreviewParameters
    Record = PreviewResult

    def resources(self, parameters: PreviewParameters) -> Resources:
        """One FFT of the micrograph."""
        return Resources(threads=1, memory_bytes=1536 * 1024**2, time_limit_s=120.0)

    def run(
        self, inputs: Mapping[str, Artifact], parameters: PreviewParameters, context: Context
    ) -> PreviewResult:
        """Shrink, stretch, write."""
        with torch_threads(self.resources(parameters).threads):
            return self._pictures(inputs, parameters, context)

    def _pictures(
        self, inputs: Mapping[str, Artifact], parameters: PreviewParameters, context: Context
    ) -> PreviewResult:
        from vitriflow.kernels.picture import grey, halves_grey, shrink, spectrum_grey

        micrograph = read_array(inputs["micrograph"].path, context)
        large = shrink(micrograph, parameters.size_px)
        small = shrink(large, parameters.thumbnail_px)
        outputs = {
            "micrograph": self._write(grey(large), "_preview.jpg", parameters, context),
            "thumbnail": self._write(grey(small), "_thumbnail.jpg", parameters, context),
        }
        if "diagnostic" in inputs:
            picture = halves_grey(read_array(inputs["diagnostic"].path, context))
        elif "power_spectrum" in inputs:
            picture = spectrum_grey(read_array(inputs["power_spectrum"].path, context))
        else:
            picture = None
        if picture is not None:
            if max(picture.shape) > parameters.spectrum_px:
                picture = grey(shrink(picture, parameters.spectrum_px), 0.0, 1.0)
            outputs["spectrum"] = self._write(picture, "_spectrum.png", parameters, context)
        return PreviewResult(
            outputs=outputs,
            width=large.shape[1],
            height=large.shape[0],
            scale=large.shape[1] / micrograph.shape[1],
        )

    @staticmethod
    def _write(
        picture: "torch.Tensor", suffix: str, parameters: PreviewParameters, context: Context
    ) -> Artifact:
        from PIL import Image

        with context.writing(suffix) as temporary:
            Image.fromarray(picture.cpu().numpy()).save(temporary, quality=parameters.quality)
        return Artifact(kind=Kind.PICTURE, path=context.path(suffix))
