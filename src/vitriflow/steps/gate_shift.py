"""``gate.max_shift``: exposures that moved too much."""

from collections.abc import Sequence

from pydantic import Field

from vitriflow.steps.gate import Criterion, Gate, StrictGateParameters
from vitriflow.steps.judging import passed_on
from vitriflow.steps.records import Kind


class MaxShiftParameters(StrictGateParameters):
    """How much motion is too much."""

    max_frame_shift_A: float | None = Field(
        default=15.0, gt=0, description="from one frame to the next, at most (A); None: not asked"
    )
    max_path_A: float | None = Field(
        default=60.0, gt=0, description="path over all frames, at most (A); None: not asked"
    )
    max_early_A: float | None = Field(
        default=None, gt=0, description="path up to 4 e/A^2, at most (A); None: not asked"
    )


class MaxShift(Gate[MaxShiftParameters]):
    """Rejects exposures whose frames jumped, or wandered too far."""

    name = "gate.max_shift"
    summary = "Rejects exposures that moved too much: per frame and over the whole path (A)"
    inputs = passed_on(Kind.MOTION)
    Parameters = MaxShiftParameters
    uses = ("max_frame_A", "total_A", "early_A")

    def criteria(self, parameters: MaxShiftParameters) -> Sequence[Criterion]:
        """Per frame, whole path, early path."""
        return (
            Criterion("frame", "max_frame_A", high=parameters.max_frame_shift_A, unit=" A"),
            Criterion("path", "total_A", high=parameters.max_path_A, unit=" A"),
            Criterion("early", "early_A", high=parameters.max_early_A, unit=" A"),
        )
