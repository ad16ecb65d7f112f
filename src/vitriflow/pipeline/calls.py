"""What goes to a worker and what comes back: plain data that can be pickled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vitriflow.errors import Reason
from vitriflow.steps import Artifact, BatchItem

# Failures of the moment: the same task may go well on the next try.
RETRYABLE = frozenset(
    {
        str(Reason.UNREADABLE),
        str(Reason.DISK_FULL),
        str(Reason.OUT_OF_MEMORY),
        str(Reason.TIME_LIMIT),
        str(Reason.WORKER_DIED),
    }
)
# Failures that take the whole worker with them, so that nobody can say which node was at fault:
# the nodes of the call are then tried again one by one.
FATAL = frozenset({str(Reason.OUT_OF_MEMORY), str(Reason.TIME_LIMIT), str(Reason.WORKER_DIED)})


@dataclass(frozen=True)
class Promise:
    """An input that an earlier node of the same call makes."""

    node: str
    port: str


@dataclass(frozen=True)
class NodeCall:
    """One node to run for one item.

    ``inputs`` are files that exist, or promises; an input port that isn't there is one that
    nobody could make. ``needed`` are the ports without which the node can't run.
    """

    node: str
    step: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Artifact | Promise]
    needed: frozenset[str]
    out: str


@dataclass(frozen=True)
class GroupCall:
    """Consecutive nodes for one item, run in one worker.

    ``memory_bytes`` and ``time_limit_s`` are what a pool may hold the call to.
    """

    exposure_id: int
    item: str
    nodes: tuple[NodeCall, ...]
    metadata: Mapping[str, Any]
    gpu: bool = False
    threads: int = 1
    memory_bytes: int = 0
    time_limit_s: float = 600.0

    @property
    def item_id(self) -> int:
        """Number of the exposure."""
        return self.exposure_id


@dataclass(frozen=True)
class BatchCall:
    """One node to run for one batch, in one worker.

    ``node.inputs`` are files that other nodes made of the batch as a whole; ``state`` is what the node
    left of its newest batch that ended well.
    """

    batch_id: int
    item: str
    node: NodeCall
    items: tuple[BatchItem, ...]
    state: str | None
    gpu: bool = False
    threads: int = 1
    memory_bytes: int = 0
    time_limit_s: float = 600.0

    @property
    def item_id(self) -> int:
        """Number of the batch."""
        return self.batch_id

    @property
    def nodes(self) -> tuple[NodeCall, ...]:
        """The node."""
        return (self.node,)


@dataclass(frozen=True)
class GroupReturn:
    """Records of the nodes that ran, by node, as JSON values. A node that isn't there didn't run."""

    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    worker: str = ""


def failed_for_now(record: Mapping[str, Any]) -> bool:
    """Whether a record tells of a failure that another try may mend."""
    code = record.get("reason_code")
    return code == str(Reason.DISK_FULL) or (record["status"] == "failed" and code in RETRYABLE)
