"""Which values of a record stand in the plain columns that pages plot."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from vitriflow.catalog import Measure

_SAME_NAME = (
    "early_A",
    "late_A",
    "total_A",
    "net_A",
    "mean_intensity",
    "astigmatism_A",
    "defocus_angle_deg",
    "phase_shift_deg",
    "cross_correlation",
    "fit_resolution_A",
    "ice_ring",
    "n_picks",
    "n_particles",
    "tilt_deg",
    "masked_fraction",
)
# Everything that results write; a new intake of the same exposure starts from these.
_OTHERS = ("max_frame_A", "defocus_A", "ctf_quality", "first_result_at", "finished_at", "latency_s")
BLANK: dict[str, Any] = dict.fromkeys((*_SAME_NAME, *_OTHERS))
assert set(BLANK) <= set(Measure.__table__.columns.keys())


def fields_of(record: type[BaseModel]) -> set[str]:
    """Columns of ``Measure`` that records of this kind may fill."""
    names = record.model_fields.keys()
    found = set(_SAME_NAME) & names
    if "defocus_u_A" in names:
        found |= {"defocus_A", "ctf_quality"}
    if "frame_shifts_A" in names:
        found.add("max_frame_A")
    return found


def measured(record: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of ``Measure`` that a record fills. Only a record that stands is taken, never a refused one."""
    if record["status"] not in ("done", "rejected"):
        return {}
    columns = {name: record[name] for name in _SAME_NAME if name in record}
    if record.get("defocus_u_A") is not None and record.get("defocus_v_A") is not None:
        columns["defocus_A"] = (record["defocus_u_A"] + record["defocus_v_A"]) / 2
        columns["ctf_quality"] = record.get("quality") or None
    shifts = record.get("frame_shifts_A")
    if shifts:
        columns["max_frame_A"] = max((math.dist(one, other) for one, other in pairwise(shifts)), default=0.0)
    return columns
