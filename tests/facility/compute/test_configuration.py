"""[compute] in facility.toml: all of it acts or is refused, and every kind is rendered to Parsl's configuration."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vitriflow.config import ComputeSection, Config, PoolSection, load_config
from vitriflow.config.compute import TESTED_KINDS
from vitriflow.errors import BadConfig
from vitriflow.facility.compute import Party, arguments, check_pools
from vitriflow.facility.compute.providers import make_provider
from vitriflow.facility.compute.schedulers import grid_engine_reason
from vitriflow.facility.findings import Health

NEEDED: dict[str, dict[str, Any]] = {
    "local": {},
    "slurm": {},
    "gridengine": {},
    "lsf": {},
    "pbs": {},
    "kubernetes": {"image": "registry.example.org/vitriflow", "volumes": {"data": "/data"}},
    "aws": {"image": "ami-1", "key_name": "key"},
    "google": {
        "cloud_project": "p",
        "key_file": "key.json",
        "region": "europe-west1",
        "image_project": "debian-cloud",
        "image_family": "debian-12",
    },
}


def pool(kind: str, **values: Any) -> PoolSection:
    return PoolSection.model_validate({"kind": kind, "scratch": "/shared", **NEEDED[kind], **values})


def refused(text: str, folder: Path) -> str:
    path = folder / "facility.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadConfig) as caught:
        load_config(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("gridengine", {"partition": "cpu"}, "no 'partition', which acts only with kind slurm"),
        ("slurm", {"queue": "cpu"}, "no 'queue'"),
        ("local", {"walltime_min": 10}, "no 'walltime_min'"),
        ("local", {"memory_GB": 10}, "no 'memory_GB'"),
        ("slurm", {"nodes_min": 3}, "nodes_min of at most nodes_max"),
        ("slurm", {"gpus_per_node": 2, "workers_per_node": 3}, "one worker to a GPU"),
        ("slurm", {"workers_per_node": 4, "cores_per_node": 2}, "cores_per_node of at least 4"),
        ("slurm", {"walltime_min": 10, "drain_min": 10}, "drain_min below walltime_min"),
        ("gridengine", {"workers_per_node": 2}, "a parallel_environment"),
        ("slurm", {"partition": "cpu; rm -rf"}, "a name of letters"),
        ("slurm", {"options": ["a\nb"]}, "one line of text"),
        ("slurm", {"mpirun": "mpirun"}, "{mpi}"),
        ("kubernetes", {"image": None}, "a value for 'image'"),
    ],
)
def test_what_would_not_act_is_refused(kind: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        pool(kind, **values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu = 'farm'", "cpu to name a section [compute.pools.farm]"),
        ("[compute.pools.farm]\nkind = 'slurm'\nscratch = '/s'", "nothing uses 'farm'"),
        ("gpu = 'farm'\n[compute.pools.farm]\nkind = 'slurm'\nscratch = '/s'", "gpus_per_node in"),
        (
            "cpu = 'farm'\n[compute.pools.farm]\nkind = 'slurm'\nscratch = '/s'\ngpus_per_node = 1",
            "no gpus_per_node in",
        ),
        ("cpu = 'f'\n[compute.pools.f]\nkind = 'slurm'\nscratch = '/s'\nnodes = 3", "nodes_max"),
        (
            "batch = 'f'\n[compute.pools.f]\nkind = 'pbs'\nscratch = '/s'",
            "batch to name a pool of kind slurm",
        ),
        ("[[compute.shutdowns]]\nname = 'w'\nstarts = 2026-12-20\nends = 2026-12-21", "shutdowns"),
        ("[compute.burst]\npool = 'cloud'\nbandwidth_bytes_per_s = 1e6", "burst to name a section"),
    ],
)
def test_a_configuration_that_does_not_fit_together_is_refused_with_its_line(
    text: str, said: str, tmp_path: Path
) -> None:
    assert said in refused(f"[compute]\n{text}\n", tmp_path)


def test_relative_folders_are_below_the_file(tmp_path: Path) -> None:
    path = tmp_path / "facility.toml"
    path.write_text("[compute]\ncpu = 'f'\n[compute.pools.f]\nkind = 'slurm'\nscratch = 'shared'\n")
    assert load_config(path).compute.pools["f"].scratch == tmp_path / "shared"


def test_the_first_project_that_fits_counts() -> None:
    compute = ComputeSection.model_validate(
        {
            "projects": {
                "inhouse": {"experiments": ["em2026-0*"], "weight": 2.0, "cpu_calls": 8},
                "users": {"experiments": ["em*"]},
            }
        }
    )
    assert Party.of(compute, "em2026-012") == Party("em2026-012", "inhouse", 2.0, 8, None)
    assert Party.of(compute, "em2026-112").project == "users"
    assert Party.of(compute, "other").account == "experiment other"


FULL: dict[str, dict[str, Any]] = {
    "slurm": {"partition": "gpu", "account": "em", "qos": "live", "memory_GB": 64, "gpus_per_node": 4},
    "gridengine": {"queue": "em.q", "account": "em", "memory_GB": 64, "parallel_environment": "smp",
                   "workers_per_node": 8},
    "lsf": {"queue": "em", "account": "em", "memory_GB": 64, "gpus_per_node": 4},
    "pbs": {"queue": "em", "account": "em", "memory_GB": 64, "gpus_per_node": 4},
    "kubernetes": {"memory_GB": 64, "gpus_per_node": 4},
    "aws": {"region": "eu-central-1", "instance_type": "g5.xlarge"},
    "google": {"instance_type": "n1-standard-8"},
}  # fmt: skip
RENDERED: dict[str, dict[str, Any]] = {
    "slurm": {"partition": "gpu", "account": "em", "qos": "live", "mem_per_node": 64, "gres": "gpu:4",
              "cores_per_node": 4, "walltime": "04:00:00", "exclusive": False},
    "gridengine": {"queue": "em.q", "walltime": "04:00:00", "scheduler_options":
                   "#$ -V\n#$ -pe smp 8\n#$ -l h_vmem=8G\n#$ -A em"},
    "lsf": {"queue": "em", "project": "em", "walltime": "04:00:00", "cores_per_block": 4,
            "scheduler_options": '#BSUB -gpu "num=4"\n#BSUB -M 64GB'},
    "pbs": {"queue": "em", "account": "em", "cpus_per_node": 4, "select_options": "ngpus=4:mem=64gb"},
    "kubernetes": {"image": "registry.example.org/vitriflow", "max_mem": "64Gi", "max_cpu": 4,
                   "extra_limits": {"nvidia.com/gpu": "4"}, "persistent_volumes": [("data", "/data")]},
    "aws": {"image_id": "ami-1", "key_name": "key", "region": "eu-central-1", "instance_type": "g5.xlarge"},
    "google": {"project_id": "p", "region": "europe-west1", "os_family": "debian-12",
               "instance_type": "n1-standard-8"},
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(RENDERED))
def test_every_kind_is_rendered_to_what_its_provider_takes(kind: str) -> None:
    rendered = arguments(pool(kind, nodes_min=1, nodes_max=5, **FULL[kind]))
    assert {name: rendered[name] for name in RENDERED[kind]} == RENDERED[kind]
    assert (rendered["min_blocks"], rendered["max_blocks"], rendered["init_blocks"]) == (1, 5, 1)


@pytest.mark.parametrize("kind", ["lsf", "pbs"])
def test_what_is_not_tested_is_taken_by_parsl_and_its_jobs_say_what_was_asked(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = pool(kind, worker_init=["module load cuda"], options=["-x special"], **FULL[kind])
    provider = make_provider("farm", section)
    provider.script_dir = str(tmp_path)
    asked = []
    monkeypatch.setattr(
        provider, "execute_wait", lambda cmd, timeout=None: asked.append(cmd) or (1, "", "no such program")
    )
    with pytest.raises(Exception, match=r"ubmit|None"):
        assert provider.submit("worker", 1, "pilot") is not None, "None"
    assert all(command.startswith("qsub") for command in asked)  # LSF's goes its own way, to no bsub
    (script,) = (path.read_text() for path in tmp_path.iterdir())
    mark = {"lsf": "#BSUB", "pbs": "#PBS"}[kind]
    for line in (f"{mark} -x special", "module load cuda", "worker"):
        assert line in script
    assert "4" in script.split("ngpus=" if kind == "pbs" else "num=")[1][:2]


def test_the_doctor_says_of_each_pool_what_is_missing_and_what_is_not_tested(tmp_path: Path) -> None:
    def finding(section: PoolSection) -> Any:
        compute = ComputeSection.model_construct(pools={"farm": section})
        (found,) = check_pools(Config().model_copy(update={"compute": compute}))
        return found

    found = finding(pool("lsf", scratch=tmp_path))
    assert found.health == Health.BAD
    assert "not found: bsub, bjobs, bkill" in found.text
    found = finding(pool("local", scratch=tmp_path / "nowhere"))
    assert found.health == Health.BAD
    assert "nowhere" in found.text
    assert finding(pool("local", scratch=tmp_path)).health == Health.GOOD
    found = finding(pool("kubernetes", scratch=tmp_path))
    assert found.health in (Health.BAD, Health.NOTE)  # without the package that it needs, or rendered only
    assert "local" in TESTED_KINDS
    assert "kubernetes" not in TESTED_KINDS


def test_the_reason_is_found_in_what_qstat_says() -> None:
    info = """\
job_number:                 7
error reason    1:          11/21/2026 can't chdir to /nowhere
scheduling info:            queue instance "cpu.q@localhost" dropped because it is disabled
                            All queues dropped because of overload or full
"""
    assert "chdir to /nowhere" in grid_engine_reason(info)
    rest = "\n".join(line for line in info.splitlines() if not line.startswith("error"))
    assert grid_engine_reason(rest) == (
        'queue instance "cpu.q@localhost" dropped because it is disabled; '
        "All queues dropped because of overload or full"
    )
