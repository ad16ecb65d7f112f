"""``gate.custom``: a facility's own condition over results."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from vitriflow.steps.base import StepParameters
from vitriflow.steps.expression import Expression
from vitriflow.steps.gate import Criterion, Gate, StrictGateParameters
from vitriflow.steps.judging import JudgeResult
from vitriflow.steps.records import Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class GateCustomParameters(StrictGateParameters):
    """The condition."""

    accept: str = Field(
        description="condition over the numbers of the results before, for example 'n_picks >= 20 and "
        "fit_resolution_A < 6'; known(x) asks whether x has a value; a comparison with one that hasn't is false"
    )

    @field_validator("accept")
    @classmethod
    def _readable(cls, text: str) -> str:
        Expression(text)
        return text


class GateCustom(Gate[GateCustomParameters]):
    """Rejects exposures that don't meet a condition that somebody wrote."""

    name = "gate.custom"
    summary = "Rejects exposures that don't meet a condition over results, such as 'n_picks >= 20'"
    Parameters = GateCustomParameters
    uses = ()

    def criteria(self, parameters: GateCustomParameters) -> Sequence[Criterion]:
        """None: the condition is judged as a whole."""
        return ()

    def asked(self, parameters: GateCustomParameters) -> tuple[str, ...]:
        """Those that the condition names."""
        return Expression(parameters.accept).names

    def derive(self, values: Mapping[str, Any], memory: Any) -> dict[str, Any]:
        """All numbers: another condition may ask for others."""
        return {name: value for name, value in values.items() if isinstance(value, int | float)}

    def verdict(self, values: Mapping[str, Any], parameters: StepParameters) -> JudgeResult:
        """Whether the condition is true."""
        assert isinstance(parameters, GateCustomParameters)
        condition = Expression(parameters.accept)
        lacking = any(not isinstance(values.get(name), int | float) for name in condition.names)
        if condition.of(values) or (lacking and parameters.missing == "accept"):
            return JudgeResult(step=self.name, values=dict(values))
        shown = ", ".join(f"{name} = {_shown(values.get(name))}" for name in condition.names)
        return JudgeResult(
            step=self.name,
            status=Status.REJECTED,
            reason_code=f"{self.name}.condition",
            reason=f"not true: {parameters.accept} ({shown})",
            values=dict(values),
            failed=["condition"],
        )

    def refused(
        self, columns: "Mapping[str, NDArray[np.float64]]", parameters: GateCustomParameters
    ) -> "NDArray[np.bool_]":
        """Which of many exposures don't meet the condition."""
        import numpy as np

        count = len(next(iter(columns.values()))) if columns else 0
        condition = Expression(parameters.accept)
        refused: NDArray[np.bool_] = ~condition.over(columns, count)
        if parameters.missing == "accept":
            for name in condition.names:
                refused = refused & (np.isfinite(columns[name]) if name in columns else False)
        return refused


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not known"
