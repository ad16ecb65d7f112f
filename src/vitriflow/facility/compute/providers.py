"""A pool of facility.toml as a provider of Parsl: how its pilot jobs are asked for."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vitriflow.config import PoolSection, as_walltime
from vitriflow.errors import BadConfig
from vitriflow.facility.compute.serving import GPUS_VARIABLE

#: Where each scheduler tells a job which GPUs it has.
_GPUS_GIVEN = "${CUDA_VISIBLE_DEVICES:-${SGE_HGR_%s:-}}"


def python_of(pool: PoolSection) -> str:
    """The Python that runs on the nodes."""
    return str(pool.python or sys.executable)


def worker_init(pool: PoolSection) -> str:
    """Shell lines before the workers start: the facility's own, and what the workers go by."""
    lines = [
        *pool.worker_init,
        f'export {GPUS_VARIABLE}="{_GPUS_GIVEN % pool.gpu_resource}"',
        f"export VITRIFLOW_THREADS={pool.threads_per_worker}",
        f"export PARSL_CORES={pool.workers * pool.threads_per_worker}",
        *(f"export {name}={pool.threads_per_worker}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")),
        "export PARSL_MEMORY_GB=1000000",  # memory is asked of the scheduler, and held to by the workers
    ]
    return "\n".join(lines) + "\n"


def arguments(pool: PoolSection) -> dict[str, Any]:
    """What Parsl's provider of this kind is made with, apart from its launcher."""
    values: dict[str, Any] = {
        "init_blocks": pool.nodes_min,
        "min_blocks": pool.nodes_min,
        "max_blocks": pool.nodes_max,
        "parallelism": 1.0,
    }
    if pool.kind != "google":
        values |= {"nodes_per_block": 1, "worker_init": worker_init(pool)}
    if pool.limited:
        values["walltime"] = as_walltime(pool.walltime_min)
    if pool.kind in ("slurm", "gridengine", "lsf", "pbs"):
        values["cmd_timeout"] = 30
    return values | _OWN[pool.kind](pool)


def _local(_pool: PoolSection) -> dict[str, Any]:
    return {}


def _slurm(pool: PoolSection) -> dict[str, Any]:
    return {
        "partition": pool.partition,
        "account": pool.account,
        "qos": pool.qos,
        "cores_per_node": pool.cores,
        "mem_per_node": pool.memory_GB,
        "gres": f"gpu:{pool.gpus_per_node}" if pool.gpus_per_node else None,
        "exclusive": pool.exclusive,
        "scheduler_options": _options("#SBATCH", pool),
    }


def _grid_engine(pool: PoolSection) -> dict[str, Any]:
    return {"queue": pool.queue, "scheduler_options": "\n".join(grid_engine_options(pool))}


def _lsf(pool: PoolSection) -> dict[str, Any]:
    gpus = [f'#BSUB -gpu "num={pool.gpus_per_node}"'] if pool.gpus_per_node else []
    memory = [f"#BSUB -M {pool.memory_GB}GB"] if pool.memory_GB else []
    return {
        "project": pool.account,
        "queue": pool.queue,
        "request_by_nodes": False,
        "bsub_redirection": True,  # bsub reads #BSUB lines from its standard input only
        "cores_per_block": pool.cores,
        "cores_per_node": pool.cores,
        "scheduler_options": "\n".join([*gpus, *memory, _options("#BSUB", pool)]).strip(),
    }


def _pbs(pool: PoolSection) -> dict[str, Any]:
    select = [f"ngpus={pool.gpus_per_node}"] if pool.gpus_per_node else []
    select += [f"mem={pool.memory_GB}gb"] if pool.memory_GB else []
    return {
        "account": pool.account,
        "queue": pool.queue,
        "cpus_per_node": pool.cores,
        "select_options": ":".join(select),
        "scheduler_options": _options("#PBS", pool),
    }


def _kubernetes(pool: PoolSection) -> dict[str, Any]:
    memory = f"{pool.memory_GB or 4 * pool.workers}Gi"
    gpus = {"nvidia.com/gpu": str(pool.gpus_per_node)} if pool.gpus_per_node else None
    return {
        "image": pool.image,
        "namespace": pool.namespace,
        "init_cpu": pool.cores,
        "max_cpu": pool.cores,
        "init_mem": memory,
        "max_mem": memory,
        "extra_requests": gpus,
        "extra_limits": gpus,
        "persistent_volumes": list(pool.volumes.items()),
    }


def _aws(pool: PoolSection) -> dict[str, Any]:
    return {
        "image_id": pool.image,
        "key_name": pool.key_name,
        "region": pool.region or "us-east-2",
        "instance_type": pool.instance_type or "t2.small",
        "state_file": str(pool.scratch / "aws-state.json"),
    }


def _google(pool: PoolSection) -> dict[str, Any]:
    return {
        "project_id": pool.cloud_project,
        "key_file": str(pool.key_file),
        "region": pool.region,
        "os_project": pool.image_project,
        "os_family": pool.image_family,
        "instance_type": pool.instance_type or "n1-standard-1",
    }


_OWN: Mapping[str, Callable[[PoolSection], dict[str, Any]]] = {
    "local": _local,
    "slurm": _slurm,
    "gridengine": _grid_engine,
    "lsf": _lsf,
    "pbs": _pbs,
    "kubernetes": _kubernetes,
    "aws": _aws,
    "google": _google,
}


def grid_engine_options(pool: PoolSection, nodes: int = 1, mpi: int = 1) -> list[str]:
    """Lines for qsub: cores, memory, GPUs, account."""
    lines = ["#$ -V"]
    if nodes > 1 or mpi > 1:
        if pool.mpi_environment is not None:
            lines.append(f"#$ -pe {pool.mpi_environment} {mpi}")
    elif pool.parallel_environment is not None:
        lines.append(f"#$ -pe {pool.parallel_environment} {pool.cores}")
    if pool.memory_GB:
        lines.append(f"#$ -l {pool.memory_resource}={pool.memory_GB / pool.cores:g}G")  # it's per slot
    if pool.gpus_per_node:
        lines.append(f"#$ -l {pool.gpu_resource}={pool.gpus_per_node}")
    if pool.account:
        lines.append(f"#$ -A {pool.account}")
    return [*lines, *(f"#$ {option}" for option in pool.options)]


def _options(mark: str, pool: PoolSection) -> str:
    return "\n".join(f"{mark} {option}" for option in pool.options)


def make_provider(name: str, pool: PoolSection) -> Any:
    """The provider of Parsl for a pool.

    Raises
    ------
    BadConfig
        When Parsl refuses it, or a package or command that this kind needs isn't there.
    """
    # Parsl takes a second to import, and only who has pools needs it.
    import parsl.providers as known
    from parsl.errors import OptionalModuleMissing
    from parsl.launchers import SimpleLauncher

    from vitriflow.facility.compute.schedulers import GridEngineJobs, LocalJobs, SlurmJobs

    kinds: Mapping[str, Any] = {
        "local": LocalJobs,
        "slurm": SlurmJobs,
        "gridengine": GridEngineJobs,
        "lsf": known.LSFProvider,
        "pbs": known.PBSProProvider,
        "kubernetes": known.KubernetesProvider,
        "aws": known.AWSProvider,
        "google": known.GoogleCloudProvider,
    }
    values = arguments(pool)
    if pool.kind != "kubernetes":
        values["launcher"] = SimpleLauncher()
    try:
        return kinds[pool.kind](**values)
    except OptionalModuleMissing as error:
        raise BadConfig(
            f"[compute.pools.{name}]",
            f"the packages that kind {pool.kind} needs",
            str(error),
            "Install them into vitriflow's environment with pip.",
        ) from error
    except Exception as error:  # a cloud's own library says no in any way it likes
        raise BadConfig(
            f"[compute.pools.{name}]",
            f"settings that Parsl's {pool.kind} provider takes",
            f"{type(error).__name__}: {error}",
            "Compare with the how-to on clusters, and with Parsl's documentation of this provider.",
        ) from error


def launch_command(pool: PoolSection) -> str:
    """The command of a pilot: Parsl's worker pool, by the Python of this pool; Parsl fills in the rest."""
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

    program, _, rest = DEFAULT_LAUNCH_CMD.partition(" ")
    module = f"parsl.executors.high_throughput.{program.removesuffix('.py')}"
    return f"exec {shlex.quote(python_of(pool))} -m {module} {rest}"


def interchange_command() -> list[str]:
    """The command of the interchange: it goes when this process goes."""
    # By its path: it needs nothing of vitriflow, whose import takes a second.
    return [sys.executable, str(Path(__file__).with_name("interchange.py")), str(os.getpid())]
