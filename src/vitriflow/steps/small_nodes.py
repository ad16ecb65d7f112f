"""Small judged nodes: ``counter``, ``sampler`` and ``balance.defocus``. What they keep back isn't faulty."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from vitriflow.steps.base import StepParameters
from vitriflow.steps.judging import JudgedStep, JudgeResult, passed_on
from vitriflow.steps.records import Kind


class PassResult(JudgeResult):
    """Whether an item went on."""

    passed: bool = Field(default=True, description="whether it goes on; one that doesn't isn't faulty")
    why: str = Field(default="", description="why it stayed behind")


class CounterParameters(StepParameters):
    """How many are enough."""

    enough: int = Field(ge=1, description="so many exposures go on; those after them stay behind")


class Counter(JudgedStep[CounterParameters, PassResult]):
    """Counts exposures; when there are enough it keeps the others back, and tells triggers to stop."""

    name = "counter"
    version = "1"
    summary = "Lets so many exposures go on, then signals triggers to stop and keeps the others back"
    Parameters = CounterParameters
    Record = PassResult
    remembers = None

    def fresh(self) -> int:
        """None so far."""
        return 0

    def learn(self, memory: int, record: Mapping[str, Any]) -> int:
        """One more that went on."""
        return memory + bool(record.get("passed"))

    def judge(
        self, values: Mapping[str, Any], memory: int, parameters: CounterParameters, item: str
    ) -> PassResult:
        """Whether there are still too few."""
        passed = memory < parameters.enough
        return PassResult(
            step=self.name,
            passed=passed,
            why="" if passed else f"there are {parameters.enough} already",
            values={"number": memory + 1 if passed else memory},
            stop=memory + 1 >= parameters.enough,
        )

    def hands_on(self, record: PassResult) -> bool:
        """Those that passed."""
        return record.passed


class SamplerParameters(StepParameters):
    """How many to take."""

    fraction: float = Field(gt=0, le=1, description="part of the exposures that goes on (0 to 1)")
    method: Literal["even", "random"] = Field(
        default="even",
        description="every so many by order of arrival, or by chance (the same by name each time)",
    )
    seed: int = Field(default=0, description="of the choice by chance")


class Sampler(JudgedStep[SamplerParameters, PassResult]):
    """Lets a part of the exposures go on: for a quick look at a large session."""

    name = "sampler"
    version = "1"
    summary = "Lets a part of the exposures go on, evenly or by chance; the others stay behind unprocessed"
    Parameters = SamplerParameters
    Record = PassResult
    remembers = None

    def fresh(self) -> tuple[int, int]:
        """How many came, and how many went on."""
        return 0, 0

    def learn(self, memory: tuple[int, int], record: Mapping[str, Any]) -> tuple[int, int]:
        """One more came."""
        came, passed = memory
        return came + 1, passed + bool(record.get("passed"))

    def judge(
        self, values: Mapping[str, Any], memory: tuple[int, int], parameters: SamplerParameters, item: str
    ) -> PassResult:
        """Whether it's this one's turn."""
        came, passed = memory
        if parameters.method == "random":
            digest = hashlib.blake2b(f"{parameters.seed}/{item}".encode(), digest_size=8).digest()
            chosen = int.from_bytes(digest, "big") / 2**64 < parameters.fraction
        else:
            chosen = passed < (came + 1) * parameters.fraction - 1e-9
        return PassResult(step=self.name, passed=chosen, why="" if chosen else "not in the sample")

    def hands_on(self, record: PassResult) -> bool:
        """Those in the sample."""
        return record.passed


class BalanceParameters(StepParameters):
    """How even is even."""

    bin_A: float = Field(default=2500.0, gt=0, description="width of a bin of mean defocus (A)")
    most_in_bin: int | None = Field(default=None, ge=1, description="of one bin, at most; None: no limit")
    ratio: float = Field(
        default=3.0, ge=1, description="a bin may hold so many times the mean of those that hold any"
    )
    free: int = Field(default=10, ge=1, description="each bin takes so many in any case")


class Balance(JudgedStep[BalanceParameters, PassResult]):
    """Keeps exposures of a defocus back of which there are many already, so that the others count."""

    name = "balance.defocus"
    version = "1"
    summary = "Keeps back exposures of a defocus of which there are too many already"
    inputs = passed_on(Kind.CTF)
    Parameters = BalanceParameters
    Record = PassResult
    remembers = None

    def fresh(self) -> dict[str, int]:
        """Exposures that went on, by bin."""
        return {}

    def learn(self, memory: dict[str, int], record: Mapping[str, Any]) -> dict[str, int]:
        """One more in its bin."""
        place = (record.get("values") or {}).get("bin")
        if record.get("passed") and place is not None:
            memory[str(place)] = memory.get(str(place), 0) + 1
        return memory

    def judge(
        self, values: Mapping[str, Any], memory: dict[str, int], parameters: BalanceParameters, item: str
    ) -> PassResult:
        """Whether its bin still has room."""
        defocus = values.get("defocus_A")
        if not isinstance(defocus, int | float):
            return PassResult(step=self.name, values={"defocus_A": None})
        place = str(int(defocus // parameters.bin_A))
        there = memory.get(place, 0)
        mean = sum(memory.values()) / len(memory) if memory else 0.0
        most = max(float(parameters.free), parameters.ratio * mean)
        if parameters.most_in_bin is not None:
            most = min(most, parameters.most_in_bin)
        passed = there < most
        low = int(place) * parameters.bin_A
        why = (
            "" if passed else f"{there} exposures of {low:g} to {low + parameters.bin_A:g} A went on already"
        )
        return PassResult(
            step=self.name, passed=passed, why=why, values={"defocus_A": defocus, "bin": int(place)}
        )

    def hands_on(self, record: PassResult) -> bool:
        """Those that passed."""
        return record.passed
