"""``gate.dose``: exposures that are darker or brighter than those around them, or of the wrong dose."""

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pydantic import Field

from vitriflow.steps.gate import Criterion, Gate, GateParameters
from vitriflow.steps.judging import JudgeResult, passed_on
from vitriflow.steps.records import Kind, Status

WINDOW = 50  # exposures over which the median runs
_FEWEST = 5  # below, there's no median worth the name


class GateDoseParameters(GateParameters):
    """How even the beam has to be."""

    min_intensity: float | None = Field(
        default=0.5, ge=0, description="mean intensity over the running median, at least (1)"
    )
    max_intensity: float | None = Field(
        default=1.5, gt=0, description="mean intensity over the running median, at most (1)"
    )
    min_dose_per_frame_e_per_A2: float | None = Field(default=None, ge=0, description="at least (e/A^2)")
    max_dose_per_frame_e_per_A2: float | None = Field(default=None, gt=0, description="at most (e/A^2)")
    alarm_fraction: float | None = Field(
        default=0.5, gt=0, le=1, description="part of the newest 20 that may be faulty before people are told"
    )


class GateDose(Gate[GateDoseParameters]):
    """Rejects exposures by their intensity: the beam was off, a grid bar was in the way, the dose changed."""

    name = "gate.dose"
    summary = "Rejects exposures whose intensity is far from the running median, or whose dose is wrong"
    inputs = passed_on(Kind.MOTION)
    Parameters = GateDoseParameters
    uses = ("mean_intensity", "dose_per_frame_e_per_A2")
    remembers = WINDOW

    def fresh(self) -> Any:
        """The newest intensities, and which of the newest were faulty."""
        return deque(maxlen=WINDOW), deque(maxlen=20)

    def learn(self, memory: Any, record: Mapping[str, Any]) -> Any:
        """Add one exposure. Faulty ones count too: else one step of the beam would fault all that follow."""
        intensities, faults = memory
        value = (record.get("values") or {}).get("mean_intensity")
        if isinstance(value, int | float) and value > 0:
            intensities.append(float(value))
        faults.append(record["status"] == str(Status.REJECTED))
        return intensities, faults

    def derive(self, values: Mapping[str, Any], memory: Any) -> dict[str, Any]:
        """The intensity, and how it compares with the running median."""
        mine = super().derive(values, memory)
        intensities = memory[0]
        value = mine["mean_intensity"]
        middle = median(intensities) if len(intensities) >= _FEWEST else None
        mine["median_intensity"] = middle
        known = isinstance(value, int | float) and middle
        mine["relative_intensity"] = value / middle if known else None
        return mine

    def criteria(self, parameters: GateDoseParameters) -> Sequence[Criterion]:
        """Intensity over the median, and the dose."""
        p = parameters
        return (
            Criterion("intensity", "relative_intensity", p.min_intensity, p.max_intensity),
            Criterion(
                "dose",
                "dose_per_frame_e_per_A2",
                p.min_dose_per_frame_e_per_A2,
                p.max_dose_per_frame_e_per_A2,
                " e/A^2",
            ),
        )

    def alarm(self, memory: Any, record: JudgeResult, parameters: GateDoseParameters) -> str | None:
        """Tell people once when too many of the newest are faulty."""
        before = list(memory[1])
        after = [*before, record.status is Status.REJECTED][-20:]
        limit = parameters.alarm_fraction
        if limit is None or len(after) < 10:
            return None
        above = sum(after) > limit * len(after)
        was = len(before) >= 10 and sum(before) > limit * len(before)
        if above and not was:
            return (
                f"{sum(after)} of the newest {len(after)} exposures have a faulty intensity or dose: "
                f"is the beam where it should be? The last one: {record.reason}"
            )
        return None
