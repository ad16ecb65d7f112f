"""What steps that run RELION share: the program and its tables of movies and micrographs."""

from pathlib import Path
from typing import Any

from vitriflow.steps.programs.tools import Tool

VERSIONS: tuple[tuple[int, ...], tuple[int, ...]] = ((3, 1), (6,))


def relion_tool(program: str, sort: str = "") -> Tool:
    """One of RELION's programs; ``[programs] relion`` names their folder, or any of them."""
    return Tool(
        "relion",
        f"RELION {sort}".strip(),
        (program,),
        version_arguments=("--version",),
        version_pattern=r"RELION version:?\s*v?(\d+(?:\.\d+)+)",
        versions=VERSIONS,
        source="relion.readthedocs.io",
        family=True,
    )


def write_images_star(
    path: Path,
    block: str,
    name: str,
    pixel_A: float,
    optics: dict[str, float],
    extra: dict[str, Any] | None = None,
) -> None:
    """Write RELION's table of one movie (``movies``) or micrograph (``micrographs``)."""
    import pandas as pd

    from vitriflow.formats import write_star

    movies = block == "movies"
    group = {
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnOpticsGroup": [1],
        "rlnMicrographOriginalPixelSize": [pixel_A],
        "rlnVoltage": [optics["voltage_kV"]],
        "rlnSphericalAberration": [optics["spherical_aberration_mm"]],
        "rlnAmplitudeContrast": [optics["amplitude_contrast"]],
    }
    if not movies:
        group["rlnMicrographPixelSize"] = [pixel_A]
    label = "rlnMicrographMovieName" if movies else "rlnMicrographName"
    row = {label: [name], "rlnOpticsGroup": [1]} | {key: [value] for key, value in (extra or {}).items()}
    write_star(path, {"optics": pd.DataFrame(group), block: pd.DataFrame(row)})
