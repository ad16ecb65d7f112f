"""What all gates share: criteria over stored values, judged for one item or for many at once."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from vitriflow.steps.base import StepParameters
from vitriflow.steps.judging import JudgedStep, JudgeResult
from vitriflow.steps.records import Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class GateParameters(StepParameters):
    """A gate that lets an exposure pass of which a number isn't known."""


class StrictGateParameters(GateParameters):
    """A gate that refuses an exposure of which a number isn't known, unless it's told otherwise."""

    missing: Literal["reject", "accept"] = Field(
        default="reject",
        description="what becomes of an exposure for which a number that is asked about is missing",
    )


G = TypeVar("G", bound=GateParameters)
_UNITS = ("_e_per_A2", "_deg", "_A")  # endings of names: the unit stands beside the number


@dataclass(frozen=True)
class Criterion:
    """One limit: ``low <= value <= high``. A bound that is None isn't asked about.

    ``may_lack``: a value that isn't there passes, whatever the gate does with missing ones.
    """

    name: str
    value: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    may_lack: bool = False

    @property
    def asked(self) -> bool:
        """Whether it has a bound at all."""
        return self.low is not None or self.high is not None

    def why(self, value: float | None) -> str:
        """A sentence for an item that doesn't meet it."""
        words = self.value
        for ending in _UNITS:
            words = words.removesuffix(ending)
        words = words.replace("_", " ")
        if value is None:
            return f"{words} isn't known"
        if self.low is not None and not value >= self.low:
            return f"{words} {value:.6g}{self.unit} is below the limit of {self.low:g}{self.unit}"
        return f"{words} {value:.6g}{self.unit} is above the limit of {self.high:g}{self.unit}"


class Gate(JudgedStep[G, JudgeResult]):
    """Marks exposures as rejected. They remain, with the reason, and come back when a limit is moved."""

    version = "1"
    Record = JudgeResult
    uses: ClassVar[Sequence[str]]  # names of the values it's judged by

    @abstractmethod
    def criteria(self, parameters: G) -> Sequence[Criterion]:
        """Its limits."""

    def asked(self, parameters: G) -> tuple[str, ...]:
        """Names of the stored values that these limits ask about."""
        return tuple(dict.fromkeys(one.value for one in self.criteria(parameters) if one.asked))

    def derive(self, values: Mapping[str, Any], memory: Any) -> dict[str, Any]:
        """The numbers it's judged by, from those in the records and what it remembers."""
        return {name: values.get(name) for name in self.uses}

    def judge(self, values: Mapping[str, Any], memory: Any, parameters: G, item: str) -> JudgeResult:
        """Judge one exposure."""
        mine = {name: _number(value) for name, value in self.derive(values, memory).items()}
        return self.verdict(mine, parameters)

    def verdict(self, values: Mapping[str, Any], parameters: G) -> JudgeResult:
        """The record for an exposure with these stored values."""
        failed: list[str] = []
        reasons: list[str] = []
        for one in self.criteria(parameters):
            if not one.asked:
                continue
            value = _number(values.get(one.value))
            if value is None:
                if _strict(parameters) and not one.may_lack:
                    failed.append(one.name)
                    reasons.append(one.why(None))
            elif not (one.low is None or value >= one.low) or not (one.high is None or value <= one.high):
                failed.append(one.name)
                reasons.append(one.why(value))
        if not failed:
            return JudgeResult(step=self.name, values=dict(values))
        return JudgeResult(
            step=self.name,
            status=Status.REJECTED,
            reason_code=f"{self.name}.{failed[0]}",
            reason="; ".join(reasons),
            values=dict(values),
            failed=failed,
        )

    def refused(self, columns: "Mapping[str, NDArray[np.float64]]", parameters: G) -> "NDArray[np.bool_]":
        """Which of many exposures are rejected: the same as :meth:`verdict`, for all at once.

        Parameters
        ----------
        columns
            Stored values by name, (n,) each, NaN where there is none.
        parameters
            The limits.

        Returns
        -------
        (n,) true for those that are rejected.
        """
        import numpy as np

        count = len(next(iter(columns.values()))) if columns else 0
        bad = np.zeros(count, dtype=bool)
        for one in self.criteria(parameters):
            if not one.asked:
                continue
            value = columns.get(one.value)
            if value is None:
                value = np.full(count, np.nan)
            known = np.isfinite(value)
            wrong = np.zeros(count, dtype=bool)
            if one.low is not None:
                wrong |= known & (value < one.low)
            if one.high is not None:
                wrong |= known & (value > one.high)
            if _strict(parameters) and not one.may_lack:
                wrong |= ~known
            bad |= wrong
        return bad


def _strict(parameters: StepParameters) -> bool:
    return getattr(parameters, "missing", "accept") == "reject"


def _number(value: Any) -> Any:
    """A finite number, or a word as it is; None for anything else."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | str) else None
