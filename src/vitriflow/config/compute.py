"""What facility.toml says of where work is done: this machine, clusters, clouds, and who gets how much."""

import math
import re
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator

from vitriflow.config.sections import Section

HERE = "local"  # the name of this machine's own worker processes
Kind = Literal["local", "slurm", "gridengine", "lsf", "pbs", "kubernetes", "aws", "google"]
#: Kinds that the tests run for real; the others are rendered to their configuration only.
TESTED_KINDS = ("local", "slurm", "gridengine")
#: Kinds that a job of several nodes (MPI) can be sent to.
BATCH_KINDS = ("slurm", "gridengine")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_ONE_LINE = re.compile(r"[^\r\n\0]*")
# What acts only for some kinds; given for another kind it's refused.
_ONLY: dict[str, tuple[str, ...]] = {
    "partition": ("slurm",),
    "qos": ("slurm",),
    "exclusive": ("slurm",),
    "queue": ("gridengine", "lsf", "pbs"),
    "account": ("slurm", "gridengine", "lsf", "pbs"),
    "options": ("slurm", "gridengine", "lsf", "pbs"),
    "worker_init": ("local", "slurm", "gridengine", "lsf", "pbs", "kubernetes", "aws"),
    "walltime_min": ("slurm", "gridengine", "lsf", "pbs", "aws"),
    "drain_min": ("slurm", "gridengine", "lsf", "pbs", "aws"),
    "memory_GB": ("slurm", "gridengine", "lsf", "pbs", "kubernetes"),
    "cores_per_node": ("slurm", "gridengine", "lsf", "pbs", "kubernetes"),
    "parallel_environment": ("gridengine",),
    "mpi_environment": ("gridengine",),
    "memory_resource": ("gridengine",),
    "gpu_resource": ("gridengine",),
    "mpirun": ("slurm", "gridengine"),
    "image": ("kubernetes", "aws"),
    "namespace": ("kubernetes",),
    "volumes": ("kubernetes",),
    "region": ("aws", "google"),
    "instance_type": ("aws", "google"),
    "key_name": ("aws",),
    "key_file": ("google",),
    "cloud_project": ("google",),
    "image_project": ("google",),
    "image_family": ("google",),
    "cost_per_node_h": ("slurm", "gridengine", "lsf", "pbs", "kubernetes", "aws", "google"),
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "kubernetes": ("image", "volumes"),
    "aws": ("image", "key_name"),
    "google": ("cloud_project", "key_file", "region", "image_project", "image_family"),
}


class PoolSection(Section):
    """Pilot jobs of one cluster, queue or cloud: they start under backlog and go when there's nothing to do."""

    kind: Kind = Field(
        description=f"what it runs on; {', '.join(TESTED_KINDS)} are tested, others rendered only"
    )
    scratch: Path = Field(
        description="folder that this machine and the nodes both see under this path; a run's scripts and logs go there"
    )
    nodes_min: int = Field(default=0, ge=0, le=10_000, description="nodes that are kept though idle")
    nodes_max: int = Field(default=1, ge=1, le=10_000, description="nodes at most")
    workers_per_node: int = Field(default=1, ge=1, le=512, description="calls side by side on a node")
    threads_per_worker: int = Field(default=1, ge=1, le=256, description="CPU threads of each")
    gpus_per_node: int = Field(
        default=0, ge=0, le=64, description="GPUs of a node; each has one worker, which sees no other"
    )
    cores_per_node: int | None = Field(
        default=None, ge=1, description="cores to ask for; workers times threads without"
    )
    memory_GB: int | None = Field(default=None, ge=1, description="memory of a node to ask for (GB)")
    walltime_min: float = Field(default=240.0, ge=1, description="time limit of a pilot job (min)")
    drain_min: float | None = Field(
        default=None,
        ge=0,
        description="so long before its time limit a pilot takes no new calls (min); 10, or a quarter of it, without",
    )
    idle_s: float = Field(default=120.0, ge=0, description="a node without work is given back after (s)")
    poll_s: float = Field(default=10.0, gt=0, le=600, description="time between two looks at the queue (s)")
    lost_after_s: float = Field(
        default=60.0, ge=4, description="a node that isn't heard of for so long is lost (s)"
    )
    wait_alarm_min: float = Field(
        default=15.0, gt=0, description="an alarm is raised when no pilot started for so long (min)"
    )
    partition: str | None = Field(default=None, description="Slurm partition")
    queue: str | None = Field(default=None, description="queue (Grid Engine, LSF, PBS)")
    account: str | None = Field(default=None, description="account or project that is charged")
    qos: str | None = Field(default=None, description="Slurm quality of service")
    exclusive: bool = Field(default=False, description="take whole nodes (Slurm)")
    parallel_environment: str | None = Field(
        default=None, description="Grid Engine's parallel environment for several cores of one node"
    )
    mpi_environment: str | None = Field(
        default=None, description="Grid Engine's parallel environment for several nodes"
    )
    memory_resource: str = Field(default="h_vmem", description="Grid Engine's resource for memory, per slot")
    gpu_resource: str = Field(default="gpu", description="Grid Engine's resource for GPUs")
    options: tuple[str, ...] = Field(
        default=(), description='more options of the scheduler, such as "--constraint=v100", one each'
    )
    worker_init: tuple[str, ...] = Field(
        default=(), description='shell lines on the node before work starts, such as "module load cuda"'
    )
    python: Path | None = Field(
        default=None, description="Python with vitriflow on the nodes; that of this process without"
    )
    mpirun: str = Field(
        default="mpirun -n {mpi}",
        description="how MPI programs are started, {mpi} being the number of processes",
    )
    address: str | None = Field(
        default=None, description="address of this machine that nodes reach; all are tried without"
    )
    image: str | None = Field(default=None, description="container image (Kubernetes) or machine image (AWS)")
    namespace: str = Field(default="default", description="Kubernetes namespace")
    volumes: dict[str, str] = Field(
        default_factory=dict, description="Kubernetes claims by name, and where they're mounted"
    )
    region: str | None = Field(default=None, description="region of the cloud")
    instance_type: str | None = Field(default=None, description="machine type of the cloud")
    key_name: str | None = Field(default=None, description="name of the key pair (AWS)")
    key_file: Path | None = Field(default=None, description="file with the service account's key (Google)")
    cloud_project: str | None = Field(default=None, description="project of the cloud (Google)")
    image_project: str | None = Field(default=None, description="project of the machine image (Google)")
    image_family: str | None = Field(default=None, description="family of the machine image (Google)")
    cost_per_node_h: float = Field(default=0.0, ge=0, description="price of a node for an hour")

    @field_validator("options", "worker_init")
    @classmethod
    def _are_lines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            if not line.strip() or not _ONE_LINE.fullmatch(line):
                raise ValueError(f"one line of text in each string, not {line!r}")
        return value

    @field_validator(
        "partition",
        "queue",
        "account",
        "qos",
        "parallel_environment",
        "mpi_environment",
        "memory_resource",
        "gpu_resource",
    )
    @classmethod
    def _is_a_word(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.,@*-]*", value):
            raise ValueError(f"a name of letters, digits, and _ . , @ * -, not {value!r}")
        return value

    @field_validator("mpirun")
    @classmethod
    def _names_its_processes(cls, value: str) -> str:
        try:
            filled = value.format(mpi=4)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"a command with {{mpi}} and no other braces, not {value!r}") from error
        if filled == value or not _ONE_LINE.fullmatch(value):
            raise ValueError(f"one line with {{mpi}} in it, not {value!r}")
        return value

    @model_validator(mode="after")
    def _acts(self) -> "PoolSection":
        for name in sorted(self.model_fields_set):
            if name in _ONLY and self.kind not in _ONLY[name]:
                raise ValueError(
                    f"no '{name}', which acts only with kind {', '.join(_ONLY[name])}; not {self.kind}"
                )
        for name in _NEEDED.get(self.kind, ()):
            if not getattr(self, name):
                raise ValueError(f"a value for '{name}', which kind {self.kind} needs")
        if self.nodes_min > self.nodes_max:
            raise ValueError(f"nodes_min of at most nodes_max ({self.nodes_max}), not {self.nodes_min}")
        if self.gpus_per_node and self.workers_per_node not in (1, self.gpus_per_node):
            raise ValueError(
                f"one worker to a GPU: workers_per_node = {self.gpus_per_node} or left out, not {self.workers_per_node}"
            )
        if self.cores_per_node is not None and self.cores_per_node < self.workers * self.threads_per_worker:
            raise ValueError(
                f"cores_per_node of at least {self.workers * self.threads_per_worker} (workers times threads), "
                f"not {self.cores_per_node}"
            )
        if self.kind == "gridengine" and self.cores > 1 and self.parallel_environment is None:
            raise ValueError(f"a parallel_environment for {self.cores} cores of one node")
        if self.drain_min is not None and self.drain_min >= self.walltime_min:
            raise ValueError(f"drain_min below walltime_min ({self.walltime_min:g}), not {self.drain_min:g}")
        return self

    @property
    def workers(self) -> int:
        """Calls side by side on a node: one for each GPU, where there are any."""
        return self.gpus_per_node or self.workers_per_node

    @property
    def cores(self) -> int:
        """Cores to ask for on a node."""
        return self.cores_per_node or self.workers * self.threads_per_worker

    @property
    def slots(self) -> int:
        """Calls side by side when all nodes are there."""
        return self.nodes_max * self.workers

    @property
    def drain_s(self) -> float:
        """How long before its time limit a pilot takes no new calls (s)."""
        minutes = min(10.0, self.walltime_min / 4) if self.drain_min is None else self.drain_min
        return 60.0 * minutes

    @property
    def limited(self) -> bool:
        """Whether pilots have a time limit."""
        return self.kind in _ONLY["walltime_min"]


class CallLimits(Section):
    """How many calls may run side by side. Calls of GPU work count by themselves."""

    cpu_calls: int | None = Field(
        default=None, ge=0, description="at once on CPUs, all together; no limit without"
    )
    gpu_calls: int | None = Field(default=None, ge=0, description="at once on GPUs, all together")
    experiment_cpu_calls: int | None = Field(
        default=None, ge=0, description="of one experiment at once on CPUs"
    )
    experiment_gpu_calls: int | None = Field(
        default=None, ge=0, description="of one experiment at once on GPUs"
    )
    project_cpu_calls: int | None = Field(default=None, ge=0, description="of one project at once on CPUs")
    project_gpu_calls: int | None = Field(default=None, ge=0, description="of one project at once on GPUs")


class ShutdownSection(CallLimits):
    """Other limits for a time, such as a shutdown of the facility; those given here replace the usual ones."""

    name: str = Field(min_length=1, description="what it's called in messages")
    starts: AwareDatetime = Field(description="with a time zone: 2026-12-20T08:00:00+01:00")
    ends: AwareDatetime = Field(description="with a time zone")

    @model_validator(mode="after")
    def _has_a_length(self) -> "ShutdownSection":
        if self.ends <= self.starts:
            raise ValueError(f"an end after its start ({self.starts}), not {self.ends}")
        return self


class ProjectSection(Section):
    """Experiments that share limits, and how much they get."""

    experiments: tuple[str, ...] = Field(
        min_length=1, description='names, or patterns such as "em2026-*"; the first project that fits counts'
    )
    weight: float = Field(
        default=1.0, gt=0, le=1000, description="share of its experiments when there isn't enough for all"
    )
    cpu_calls: int | None = Field(
        default=None, ge=0, description="of the project at once on CPUs; no limit without"
    )
    gpu_calls: int | None = Field(default=None, ge=0, description="of the project at once on GPUs")


class BurstSection(Section):
    """A second pool that is used only while the forecast delay is too long, where that's worth it."""

    pool: str = Field(description="name of the pool that takes what overflows")
    delay_limit_s: float = Field(default=900.0, gt=0, description="used only above this forecast delay (s)")
    bandwidth_bytes_per_s: float = Field(gt=0, description="to the other site, measured (bytes/s)")
    stage: bool = Field(
        default=True, description="copy inputs there and results back; false where it sees the same files"
    )
    speed: float = Field(
        default=1.0, gt=0, description="how much faster a call runs there than on the first pool"
    )
    most_cost: float | None = Field(default=None, ge=0, description="spent at most by one run of the service")
    cost_per_GB: float = Field(default=0.0, ge=0, description="price of moving a GB")


class ComputeSection(CallLimits):
    """Where work is done, and who gets how much of it."""

    workers: int | None = Field(
        default=None, ge=1, le=512, description="processes side by side; one for every 2 cores without"
    )
    threads_per_worker: int | None = Field(
        default=None, ge=1, le=256, description="threads of each; the cores shared out without"
    )
    gpus: list[int] | None = Field(
        default=None, description="GPU numbers to use; all found without, [] for none"
    )
    cpu: str = Field(
        default=HERE, description="pool of work without GPUs: local (this machine), or a pool's name"
    )
    gpu: str = Field(default=HERE, description="pool of GPU work: local (this machine), or a pool's name")
    batch: str | None = Field(
        default=None,
        description="pool whose scheduler takes steps of several nodes (MPI), each as a job of its own",
    )
    pools: dict[str, PoolSection] = Field(default_factory=dict, description="pools: [compute.pools.NAME]")
    projects: dict[str, ProjectSection] = Field(
        default_factory=dict, description="projects: [compute.projects.NAME]"
    )
    shutdowns: tuple[ShutdownSection, ...] = Field(
        default=(), description="times of other limits: [[compute.shutdowns]]"
    )
    burst: BurstSection | None = Field(default=None, description="a second, elastic pool: [compute.burst]")

    @field_validator("pools", "projects")
    @classmethod
    def _are_named(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not _NAME.fullmatch(name) or name == HERE:
                raise ValueError(f"a name of letters, digits, - and _ that isn't '{HERE}', not {name!r}")
        return value

    @model_validator(mode="after")
    def _pools_are_known(self) -> "ComputeSection":
        used = {role: name for role, name in (("cpu", self.cpu), ("gpu", self.gpu)) if name != HERE}
        if self.batch is not None:
            used["batch"] = self.batch
        if self.burst is not None:
            used["burst"] = self.burst.pool
        for role, name in used.items():
            if name not in self.pools:
                raise ValueError(f"{role} to name a section [compute.pools.{name}]")
        idle = sorted(self.pools.keys() - set(used.values()))
        if idle:
            raise ValueError(
                f"every pool to be named by cpu, gpu, batch or burst.pool; nothing uses '{idle[0]}'"
            )
        if self.gpu != HERE and not self.pools[self.gpu].gpus_per_node:
            raise ValueError(f"gpus_per_node in [compute.pools.{self.gpu}], which GPU work is sent to")
        if self.cpu != HERE and self.cpu != self.gpu and self.pools[self.cpu].gpus_per_node:
            raise ValueError(
                f"no gpus_per_node in [compute.pools.{self.cpu}], which only CPU work is sent to"
            )
        if self.batch is not None and self.pools[self.batch].kind not in BATCH_KINDS:
            raise ValueError(f"batch to name a pool of kind {' or '.join(BATCH_KINDS)}")
        if self.burst is not None and self.burst.pool in (self.cpu, self.gpu):
            raise ValueError("burst.pool to be another pool than cpu and gpu")
        return self

    def resolved(self, cores: int) -> tuple[int, int]:
        """Workers and threads of each on a machine with that many cores."""
        workers = self.workers or max(1, cores // 2)
        return workers, self.threads_per_worker or max(1, cores // workers)

    def project_of(self, experiment: str) -> str | None:
        """The first project whose names or patterns fit an experiment."""
        for name, project in self.projects.items():
            if any(fnmatchcase(experiment, pattern) for pattern in project.experiments):
                return name
        return None

    def limits_at(self, moment: datetime) -> CallLimits:
        """Limits at a time: the usual ones, and over them those of the shutdown that is then."""
        names = CallLimits.model_fields
        values = {name: getattr(self, name) for name in names}
        for period in self.shutdowns:
            if period.starts <= moment < period.ends:
                values |= {name: getattr(period, name) for name in names if name in period.model_fields_set}
        return CallLimits(**values)

    def shutdown_at(self, moment: datetime) -> str | None:
        """Name of the shutdown at a time."""
        return next((one.name for one in self.shutdowns if one.starts <= moment < one.ends), None)


def as_walltime(minutes: float) -> str:
    """Minutes as HH:MM:SS, rounded up to a whole minute."""
    whole = math.ceil(minutes)
    return f"{whole // 60:02d}:{whole % 60:02d}:00"
