"""Steps that are judged from stored results: no worker runs them, no file is opened.

The coordinator judges them in the transaction that records what they hang on. They hand on the
very files that they were given, so they can stand between any two nodes.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from vitriflow.steps.base import Context, P, Port, Step
from vitriflow.steps.records import Artifact, Kind, Result, Status

_PASSED = (
    Kind.MOVIE,
    Kind.MICROGRAPH,
    Kind.POWER_SPECTRUM,
    Kind.MOTION,
    Kind.CTF,
    Kind.COORDINATES,
    Kind.PARTICLES,
)


class JudgeResult(Result):
    """What a judged step leaves: what it looked at, and what it thought of it."""

    values: dict[str, float | int | str | bool | None] = Field(
        default_factory=dict, description="the numbers that it was judged by, by name"
    )
    failed: list[str] = Field(default_factory=list, description="names of the criteria that it didn't meet")
    overruled_by: str | None = Field(default=None, description="person whose verdict stands instead")
    stop: bool = Field(default=False, description="a signal to triggers that wait for one from this node")


J = TypeVar("J", bound=JudgeResult)


def passed_on(*needed: Kind) -> dict[str, Port]:
    """Ports named after kinds, all optional but those of the kinds ``needed``."""
    return {
        kind.value: Port(kind, f"handed on as {kind.value}", optional=kind not in needed) for kind in _PASSED
    }


class JudgedStep(Step[P, J]):
    """A step that the coordinator judges, from the records of the nodes that it takes its inputs from.

    An input port has the name of a kind, and the output port of that name hands on what came in. What is
    judged are the numbers in the records of the nodes wired to it (behind other judged steps, too).
    """

    folder = "External"
    inputs: ClassVar[Mapping[str, Port]] = passed_on()
    outputs: ClassVar[Mapping[str, Port]] = {
        name: Port(port.kind, port.doc, optional=True) for name, port in passed_on().items()
    }
    # How many of its newest records it has to see to go on after a restart; None: all of them, 0: none.
    remembers: ClassVar[int | None] = 0

    def fresh(self) -> Any:
        """What it remembers before the first item. It's copied often: keep it small."""
        return None

    def learn(self, memory: Any, record: Mapping[str, Any]) -> Any:
        """What it remembers after a record of its own (as JSON values); ``memory`` may be changed."""
        return memory

    @abstractmethod
    def judge(self, values: Mapping[str, Any], memory: Any, parameters: P, item: str) -> J:
        """Judge one item.

        Parameters
        ----------
        values
            Numbers and words from the records, by name.
        memory
            From :meth:`learn`. Not to be changed.
        parameters
            The node's parameters.
        item
            Name of the item.

        Returns
        -------
        A record without outputs. Where ``hands_on`` says so, the engine adds the files that came in.
        """

    def hands_on(self, record: J) -> bool:
        """Whether what came in goes on. An item that stays behind here without being rejected isn't faulty."""
        return record.status is Status.DONE

    def alarm(self, memory: Any, record: J, parameters: P) -> str | None:
        """What people are told at once because of this record and those before; None for nothing."""
        return None

    def run(self, inputs: Mapping[str, Artifact], parameters: P, context: Context) -> J:
        """Judge by hand: with ``values`` in the context's metadata."""
        record = self.judge(
            dict(context.metadata.get("values") or {}), self.fresh(), parameters, context.item
        )
        if self.hands_on(record):
            record.outputs = dict(inputs)
        return record
