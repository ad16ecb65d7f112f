"""``trigger``: holds exposures until there are enough of them, or until it's time, and lets them go together."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from vitriflow.steps.base import StepParameters
from vitriflow.steps.judging import JudgedStep, JudgeResult

Release = Literal["once", "growing", "batches"]


class TriggerParameters(StepParameters):
    """When exposures go on. Any of the conditions that are set lets them go."""

    release: Release = Field(
        default="batches",
        description="once: one batch; batches: those that came since the last one; growing: all up to now",
    )
    micrographs: int | None = Field(
        default=None, ge=1, description="so many exposures wait; 1 lets each go by itself"
    )
    particles: int | None = Field(
        default=None, ge=1, description="exposures with so many particles together wait"
    )
    after_s: float | None = Field(
        default=None,
        gt=0,
        description="the one that waits longest has waited so long (s), on a stalled stream too",
    )
    stop_on: str | None = Field(
        default=None,
        description="name of a node, on any branch, whose signal to stop releases what waits, and ends it",
    )

    @model_validator(mode="after")
    def _some(self) -> "TriggerParameters":
        if self.micrographs is None and self.particles is None and self.after_s is None:
            raise ValueError("one of micrographs, particles and after_s has to be set")
        return self


class TriggerResult(JudgeResult):
    """An exposure that has reached a trigger."""

    particles: int = Field(default=0, description="that it brings")


class Trigger(JudgedStep[TriggerParameters, TriggerResult]):
    """Lets exposures go on to steps of scope batch, together.

    What waits when the session is closed, or when the stream ends, is released then.
    """

    name = "trigger"
    version = "1"
    summary = "Holds exposures until there are enough, or until it's time, for steps that take many at once"
    Parameters = TriggerParameters
    Record = TriggerResult

    def judge(
        self, values: Mapping[str, Any], memory: Any, parameters: TriggerParameters, item: str
    ) -> TriggerResult:
        """Everything that arrives waits; with how many particles."""
        for name in ("n_particles", "n_picks"):
            number = values.get(name)
            if isinstance(number, int | float) and number >= 0:
                return TriggerResult(step=self.name, particles=int(number), values={name: number})
        return TriggerResult(step=self.name)
