"""Steps made of a YAML description: they look like any other."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import Field, create_model

from vitriflow.steps.base import Step
from vitriflow.steps.programs.base import Job, ProgramParameters, number
from vitriflow.steps.programs.ctf_common import OutsideCtfParameters, OutsideCtfStep, judge, pixel_size_of
from vitriflow.steps.programs.described import FOLDERS, DescribedParameter, Description, When
from vitriflow.steps.programs.motion_common import OutsideMotion, OutsideMotionParameters, finish, prepare
from vitriflow.steps.programs.pick_common import OutsidePick, OutsidePickParameters, hand_on, micrograph_of
from vitriflow.steps.programs.tools import Tool
from vitriflow.steps.records import CtfResult, MotionResult, PickResult

_TYPES: Mapping[str, Any] = {"float": float, "int": int, "bool": bool, "text": str, "path": Path}
_BASES: Mapping[str, type[ProgramParameters]] = {
    "motion": OutsideMotionParameters,
    "ctf": OutsideCtfParameters,
    "pick": OutsidePickParameters,
}


def make_step(description: Description) -> Step[Any, Any]:
    """A step of a description, ready to run."""
    kind = {"motion": _MotionStep, "ctf": _CtfStep, "pick": _PickStep}[description.kind]
    version = description.version_of
    tool = Tool(
        description.program,
        description.title or description.program,
        description.executables,
        version_arguments=version.arguments,
        version_pattern=version.pattern,
        versions=(_numbers(version.least), _numbers(version.below)),
        source=description.source,
    )
    members = {
        "name": description.name,
        "version": description.version,
        "summary": description.summary,
        "folder": FOLDERS[description.kind],
        "tool": tool,
        "uses_gpu": description.gpu,
        "Parameters": _parameters(description),
        "description": description,
        "__doc__": description.summary,
    }
    made = type(f"Described_{re.sub(r'[^A-Za-z0-9]', '_', description.name)}", (kind,), members)
    return cast("Step[Any, Any]", made())


def _numbers(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(map(int, text.split(".")))


def _parameters(description: Description) -> type[ProgramParameters]:
    fields: dict[str, Any] = {
        "time_limit_s": (
            float,
            Field(
                default=description.time_limit_s, gt=0, description="after which the program is killed (s)"
            ),
        )
    }
    for name, said in description.parameters.items():
        kind = Literal[said.choices] if said.type == "choice" else _TYPES[said.type]
        limits: dict[str, Any] = {}
        if said.type in ("float", "int"):
            limits = {"ge": said.least, "le": said.most}
        if not said.required:
            limits["validate_default"] = True
        meaning = f"{said.meaning} ({said.unit})" if said.unit else said.meaning
        default: Any = ... if said.required else said.default
        optional = kind if said.required or said.default is not None else kind | None
        fields[name] = (
            optional,
            Field(default, description=meaning, **limits),
        )
    return create_model("Parameters", __base__=_BASES[description.kind], **fields)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)


def _words(items: tuple[str | When, ...], values: Mapping[str, Any]) -> list[str]:
    """Arguments with their placeholders filled: each stays one argument, whatever its value holds."""
    words: list[str] = []
    for item in items:
        if isinstance(item, When):
            if not item.holds(values.get(item.of)):
                continue
            words += [word.format_map(_Filled(values)) for word in item.arguments]
        else:
            words.append(item.format_map(_Filled(values)))
    return words


class _Filled(dict[str, str]):
    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__({name: "" if value is None else _word(value) for name, value in values.items()})


def _run(job: Job[Any], description: Description, more: Mapping[str, Any], name: str) -> None:
    parameters = {field: getattr(job.parameters, field) for field in type(job.parameters).model_fields}
    known = {
        "input": name,
        "stem": Path(name).stem,
        "folder": str(job.folder),
        "threads": job.context.threads,
        "gpu": job.need_gpu() if description.gpu else (job.gpu if job.gpu is not None else -1),
    }
    values = parameters | known | dict(more)
    answers = "\n".join(_words(description.answers, values)) + "\n" if description.answers else None
    job.run(*_words(description.command, values), answers=answers)


def _file(job: Job[Any], description: Description, port: str, name: str) -> Path:
    pattern = description.outputs[port].file or ""
    return job.output(pattern.format(stem=Path(name).stem))


class _MotionStep(OutsideMotion[OutsideMotionParameters]):
    description: Description

    def work(self, job: Job[OutsideMotionParameters]) -> MotionResult:
        movie = prepare(job)
        name = job.inputs["movie"].name
        more = {
            "n_frames": movie.n_frames,
            "pixel_size_A": movie.pixel_size_A,
            "dose_per_frame_e_per_A2": movie.dose if job.parameters.dose_weighting else None,
            "gain": movie.gain.name if movie.gain else None,
            "defects": movie.defects.name if movie.defects else None,
        }
        _run(job, self.description, more, name)
        said = self.description.outputs["shifts"]
        text = job.log.read_text("utf-8", "replace")
        if said.file is not None:
            text = _file(job, self.description, "shifts", name).read_text("utf-8", "replace")
        images: dict[str, Path] = {
            port: _file(job, self.description, port, name)
            for port in self.description.outputs
            if port != "shifts"
        }
        return finish(job, movie, _shifts(text, said.scale, movie.pixel_size_A, self.tool.title), images, {})


def _shifts(text: str, scale: float, pixel_A: float, title: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Shifts as MotionCor says them, or as two lines of numbers, x and y (A), as Unblur writes them."""
    from vitriflow.formats.motioncor import read_motioncor_shifts

    lines = [line.split() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    if len(lines) == 2 and len(lines[0]) == len(lines[1]) > 2:
        x, y = ([float(word) for word in line] for line in lines)
        found = np.stack([y, x], axis=1) * scale / pixel_A
        return np.asarray(found - found[:1], dtype=np.float64)
    return read_motioncor_shifts(text, title) * scale


class _CtfStep(OutsideCtfStep[OutsideCtfParameters]):
    description: Description

    def work(self, job: Job[OutsideCtfParameters]) -> CtfResult:
        pixel_A = pixel_size_of(job)
        name = job.mrc("micrograph").name
        _run(job, self.description, {"pixel_size_A": pixel_A}, name)
        if "ctf" in self.description.outputs:
            return judge(job, _file(job, self.description, "ctf", name), pixel_A)
        return judge(job, self._said(job, name), pixel_A)

    def _said(self, job: Job[OutsideCtfParameters], name: str) -> Path:
        """Single numbers that it says, as a table."""
        from vitriflow.formats import write_star

        labels = {
            "defocus_u_A": "rlnDefocusU",
            "defocus_v_A": "rlnDefocusV",
            "angle_deg": "rlnDefocusAngle",
            "phase_deg": "rlnPhaseShift",
            "cross_correlation": "rlnCtfFigureOfMerit",
            "resolution_A": "rlnCtfMaxResolution",
        }
        row: dict[str, Any] = {"rlnMicrographName": name}
        for port, output in self.description.outputs.items():
            text = job.log.read_text("utf-8", "replace")
            if output.file is not None:
                text = _file(job, self.description, port, name).read_text("utf-8", "replace")
            match = re.search(output.pattern or "", text, re.M)
            if match is None:
                raise job.nonsense(port, f"a text that fits {output.pattern!r}", "none")
            row[labels[port]] = float(match.group(1)) * output.scale
        path = job.folder / ".said.star"
        write_star(path, {"micrographs": row})
        return path


class _PickStep(OutsidePick[OutsidePickParameters]):
    description: Description

    def work(self, job: Job[OutsidePickParameters]) -> PickResult:
        from vitriflow.formats.picks import PICK_READERS

        shape, pixel_A, warnings = micrograph_of(job)
        name = job.mrc("micrograph").name
        _run(job, self.description, {"pixel_size_A": pixel_A}, name)
        output = self.description.outputs["coordinates"]
        yx, score = PICK_READERS[output.reader or "xy"](_file(job, self.description, "coordinates", name))
        threshold = getattr(job.parameters, "threshold", None)
        limit = float(threshold) if isinstance(threshold, int | float) else 0.0
        return hand_on(job, yx * output.scale, score, shape, threshold=limit, warnings=warnings)


__all__ = ["DescribedParameter", "make_step"]
