"""Which values of a record stand in the plain columns that pages plot."""

from collections.abc import Mapping
from typing import Any

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
)
# Everything that results write; a new intake of the same exposure starts from these.
_OTHERS = ("defocus_A", "ctf_quality", "first_result_at", "finished_at", "latency_s")
BLANK: dict[str, Any] = dict.fromkeys((*_SAME_NAME, *_OTHERS))
assert set(BLANK) <= set(Measure.__table__.columns.keys())


def measured(record: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of ``Measure`` that a record fills. Only a record that stands is taken, never a refused one."""
    if record["status"] not in ("done", "rejected"):
        return {}
    columns = {name: record[name] for name in _SAME_NAME if name in record}
    if "defocus_u_A" in record and "defocus_v_A" in record:
        columns["defocus_A"] = (record["defocus_u_A"] + record["defocus_v_A"]) / 2
        columns["ctf_quality"] = record.get("quality") or None
    return columns
