"""Particles of a batch read from disk, and what ``class2d.online`` writes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitriflow.errors import BadFile, Reason
from vitriflow.steps.base import BatchItem, Context
from vitriflow.steps.records import Artifact, Class2DResult, Kind

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from vitriflow.kernels.class2d import OnlineClassifier

_CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_CARRIED = (  # columns of a particle that go along with its class
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnAutopickFigureOfMerit",
    "rlnMicrographName",
    "rlnOpticsGroup",
    *_CTF,
    "rlnPhaseShift",
)


@dataclass
class Member:
    """One micrograph's particles: their tables; images are read when they're needed.

    Attributes
    ----------
    item
        Name of the exposure.
    rows
        ``data_particles``.
    optics
        ``data_optics``.
    places
        For each particle its place in its stack, and the stack.
    defocus, optics_values
        ``(n, 4)`` and ``(n, 3)`` as the classifier takes them; None without CTF.
    pixel_size_A, ctf_state
        Of the images (A); what was done about the CTF: none, flipped or multiplied.
    """

    item: str
    rows: "pd.DataFrame"
    optics: "pd.DataFrame"
    places: list[tuple[int, Path]]
    defocus: "NDArray[np.float64] | None"
    optics_values: "NDArray[np.float64] | None"
    pixel_size_A: float
    ctf_state: str

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, chosen: Sequence[int]) -> "NDArray[np.float32]":
        """Images ``(n, box, box)`` of some of them."""
        import numpy as np

        from vitriflow.formats import read_stack

        stacks: dict[Path, NDArray[np.float32]] = {}
        images = []
        for index in chosen:
            place, path = self.places[index]
            if path not in stacks:
                stacks[path] = read_stack(path)
            if not 0 <= place < len(stacks[path]):
                raise BadFile(
                    Reason.TRUNCATED,
                    str(path),
                    f"at least {place + 1} images, as the STAR file says",
                    str(len(stacks[path])),
                    "Extract this micrograph again.",
                )
            images.append(stacks[path][place])
        if any(image.shape[0] != image.shape[1] for image in images):
            raise BadFile(Reason.WRONG_SIZE, str(path), "square boxes", "others", "Extract again.")
        return np.stack(images)


def load_member(item: BatchItem, use_ctf: bool) -> Member:
    """Tables of one member of a batch.

    Raises
    ------
    BadFile
        When there are no particles, or they have no CTF where one is wanted.
    """
    import numpy as np

    from vitriflow.formats import read_particles

    given = item.inputs.get("particles")
    if given is None:
        raise BadFile(Reason.NO_PICKS, item.item, "particles", "none", "")
    found = read_particles(given.path)
    if not len(found):
        raise BadFile(Reason.NO_PICKS, str(given.path), "particles", "an empty table", "")
    rows = found.table.reset_index(drop=True)
    groups = [found.optics_of(int(group)) for group in rows["rlnOpticsGroup"]]
    pixels = {round(float(group["rlnImagePixelSize"]), 4) for group in groups}
    if len(pixels) > 1:
        raise BadFile(
            Reason.METADATA_BROKEN, str(given.path), "one pixel size", str(sorted(pixels)), "Extract again."
        )
    defocus = values = None
    if use_ctf:
        missing = [name for name in _CTF if name not in rows] + [
            name for name in _OPTICS if name not in groups[0]
        ]
        if missing:
            raise BadFile(
                Reason.METADATA_MISSING,
                str(given.path),
                "the CTF of its particles",
                f"no {', '.join(missing)}",
                "Wire a CTF to extract, or set use_ctf = false.",
            )
        phase = rows["rlnPhaseShift"] if "rlnPhaseShift" in rows else np.zeros(len(rows))
        defocus = np.stack(
            [np.asarray(one, dtype=np.float64) for one in (*(rows[name] for name in _CTF), phase)], axis=1
        )
        values = np.array([[float(group[name]) for name in _OPTICS] for group in groups])
        if not (np.isfinite(defocus).all() and np.isfinite(values).all()):
            raise BadFile(Reason.NOT_FINITE, str(given.path), "finite CTF values", "others", "Extract again.")
    done = groups[0]
    state = "multiplied" if int(done.get("rlnCtfDataAreCtfPremultiplied", 0)) else "none"
    if int(done.get("rlnCtfDataArePhaseFlipped", 0)):
        state = "flipped"
    return Member(
        item.item,
        rows,
        found.optics,
        found.places(),
        defocus,
        values,
        given.pixel_size_A or pixels.pop(),
        state,
    )


def carried_rows(member: Member, chosen: Sequence[int], project: Path) -> "list[dict[str, Any]]":
    """What goes along with particles: image names from the project's root on, coordinates, CTF."""
    rows = []
    for index in chosen:
        place, path = member.places[index]
        near = path.is_relative_to(project)
        name = os.path.relpath(path, project) if near else str(path)
        row = {"rlnImageName": f"{place + 1:06d}@{name}"}
        row |= {key: member.rows[key].iloc[index] for key in _CARRIED if key in member.rows}
        rows.append({key: value.item() if hasattr(value, "item") else value for key, value in row.items()})
    return rows


@dataclass
class Memory:
    """What a batch leaves for the next, beside the classifier itself.

    Attributes
    ----------
    rows
        By running number: what goes along with each held particle.
    optics
        By optics group: its row.
    selection
        By class number: what a person chose.
    """

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    optics: dict[int, dict[str, Any]] = field(default_factory=dict)
    selection: dict[int, bool] = field(default_factory=dict)


def write_outputs(
    classifier: "OnlineClassifier",
    placed: Mapping[int, tuple[int, float, float, float, float]],
    memory: Memory,
    record: Class2DResult,
    context: Context,
) -> dict[str, Artifact]:
    """Write averages, model, particles and picture; ``placed`` is class, turn, y, x and score by number."""
    outputs: dict[str, Artifact] = {}
    if not record.classes:
        return outputs
    _write_averages(classifier, record, outputs, context)
    selected = {one.class_id for one in record.classes if one.selected}
    for port, suffix, chosen in (
        ("particles", "_data.star", None),
        ("selected", "_selected.star", selected),
    ):
        table, optics = _particle_tables(placed, memory, chosen)
        if table is None:
            continue
        from vitriflow.formats import write_particles

        with context.writing(suffix) as temporary:
            write_particles(temporary, table, optics)
        outputs[port] = Artifact(kind=Kind.PARTICLES, path=context.path(suffix))
    return outputs


def _write_averages(
    classifier: "OnlineClassifier", record: Class2DResult, outputs: dict[str, Artifact], context: Context
) -> None:
    import pandas as pd

    from vitriflow.formats import write_stack, write_star
    from vitriflow.kernels.class2d_report import class_pictures

    pixel_A = classifier.prepare.pixel_A
    order = [classifier.classes.ids.tolist().index(one.class_id) for one in record.classes]
    pictures = class_pictures(classifier)[order].cpu().numpy()
    with context.writing("_classes.mrcs") as temporary:
        write_stack(temporary, pictures, pixel_A)
    stack = context.path("_classes.mrcs")
    outputs["classes"] = Artifact(kind=Kind.CLASSES, path=stack, pixel_size_A=pixel_A)
    total = max(1, sum(one.n_particles for one in record.classes))
    table = pd.DataFrame(
        {
            "rlnReferenceImage": [f"{one.picture:06d}@{stack.name}" for one in record.classes],
            "rlnClassNumber": [one.class_id for one in record.classes],
            "rlnClassDistribution": [one.n_particles / total for one in record.classes],
            "rlnEstimatedResolution": [one.resolution_A or 999.0 for one in record.classes],
            "rlnClassScore": [one.score for one in record.classes],
            "rlnSelected": [int(one.selected) for one in record.classes],
        }
    )
    with context.writing("_model.star") as temporary:
        write_star(temporary, {"model_classes": table})
    outputs["model"] = Artifact(kind=Kind.CLASSES, path=context.path("_model.star"), pixel_size_A=pixel_A)
    with context.writing("_classes.png") as temporary:
        _sheet(pictures, record).save(temporary)
    outputs["picture"] = Artifact(kind=Kind.PICTURE, path=context.path("_classes.png"))


def _sheet(pictures: "NDArray[np.float32]", record: Class2DResult) -> Any:
    """A picture of all averages in rows, each with its number of particles and resolution below it."""
    import numpy as np
    from PIL import Image, ImageDraw

    side, line = 96, 26
    columns = min(10, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("L", (columns * (side + 4), rows * (side + line)), 16)
    draw = ImageDraw.Draw(sheet)
    for place, (picture, one) in enumerate(zip(pictures, record.classes, strict=True)):
        low, high = np.percentile(picture, (0.5, 99.5))
        grey = np.clip((picture - low) / max(high - low, 1e-12), 0, 1) * 255
        # MRC's first row is the bottom of the picture
        tile = Image.fromarray(grey[::-1].astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        x, y = (place % columns) * (side + 4), (place // columns) * (side + line)
        sheet.paste(tile, (x, y))
        reach = f"{one.resolution_A:.1f} A" if one.resolution_A else "-"
        draw.text((x + 2, y + side), f"{one.class_id}: {one.n_particles}", fill=255 if one.selected else 110)
        draw.text((x + 2, y + side + 12), reach, fill=180)
    return sheet


def _particle_tables(
    placed: Mapping[int, tuple[int, float, float, float, float]],
    memory: Memory,
    chosen: set[int] | None,
) -> "tuple[pd.DataFrame | None, pd.DataFrame]":
    """``data_particles`` with class, turn and shift in RELION's words, and ``data_optics``."""
    import pandas as pd

    rows = []
    for number, (class_id, turn_deg, y_A, x_A, score) in sorted(placed.items()):
        if number not in memory.rows or (chosen is not None and class_id not in chosen):
            continue
        place = {
            "rlnClassNumber": class_id,
            # RELION turns the particle onto its class, and counts the other way round
            "rlnAnglePsi": round((180.0 - turn_deg) % 360.0 - 180.0, 3),
            "rlnOriginXAngst": round(x_A, 4),
            "rlnOriginYAngst": round(y_A, 4),
            "rlnLogLikeliContribution": round(score, 4),
        }
        rows.append(memory.rows[number] | place)
    optics = pd.DataFrame([memory.optics[group] for group in sorted(memory.optics)])
    if not rows:
        return None, optics
    table = pd.DataFrame(rows)
    # A column that some micrographs don't have would leave holes
    return table.dropna(axis=1), optics.dropna(axis=1)
