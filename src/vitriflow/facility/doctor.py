"""Checks an installation and says what to do about what it finds."""

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from vitriflow.catalog import Catalog, check_schema
from vitriflow.config import Config
from vitriflow.errors import VitriflowError
from vitriflow.facility.archive_status import check_tiers
from vitriflow.facility.compute import check_pools
from vitriflow.facility.doctor_airflow import check_airflow
from vitriflow.facility.doctor_microscopes import check_microscopes
from vitriflow.facility.findings import Finding, Health
from vitriflow.steps import find_step, step_names
from vitriflow.storage import free_bytes
from vitriflow.storage.acl import can_do_acls

__all__ = ["Finding", "Health", "examine"]


def examine(config: Config) -> Iterator[Finding]:
    """Run all checks of one machine's installation, in the order a person would."""
    checks: tuple[Callable[[Config], Iterator[Finding]], ...] = (
        _python,
        _libraries,
        _machine,
        _gpus,
        _storage,
        examine_acls,
        _catalog,
        _steps,
        check_microscopes,
        check_tiers,
        check_airflow,
        check_pools,
        _programs,
    )
    for check in checks:
        yield from check(config)


def _python(_config: Config) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", Health.GOOD, version)
    if sys.getfilesystemencoding().lower() != "utf-8":
        yield Finding(
            "file names",
            Health.BAD,
            f"the file system encoding is {sys.getfilesystemencoding()}",
            "Start vitriflow with LANG=C.UTF-8.",
        )


def _libraries(_config: Config) -> Iterator[Finding]:
    names = ("torch", "numba", "imagecodecs", "tifffile", "mrcfile", "starfile", "mdocfile")
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken binary raises anything; the doctor must go on
            yield Finding(
                name,
                Health.BAD,
                f"can't be loaded: {error}",
                "Run 'make clean setup', or reinstall vitriflow.",
            )
            return
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    yield Finding("libraries", Health.GOOD, found)


def _machine(config: Config) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory()
    workers, threads = config.compute.resolved(cores)
    text = f"{cores} cores, {_size(memory.total)} of memory: {workers} workers of {threads} threads"
    needed = workers * 3 * 1024**3
    if memory.available < needed:
        yield Finding(
            "machine",
            Health.NOTE,
            f"{text}; {_size(memory.available)} free, large movies may need {_size(needed)}",
            "Set compute.workers lower in facility.toml, or close other programs.",
        )
    else:
        yield Finding("machine", Health.GOOD, text)
    if workers * threads > cores:
        yield Finding(
            "compute",
            Health.NOTE,
            f"{workers} workers of {threads} threads on {cores} cores get in each other's way",
            "Leave compute.workers and compute.threads_per_worker out of facility.toml.",
        )


def _gpus(config: Config) -> Iterator[Finding]:
    import torch  # loaded by _libraries already

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(count))
    wanted = config.compute.gpus
    if wanted and max(wanted) >= count:
        yield Finding(
            "GPUs",
            Health.BAD,
            f"compute.gpus asks for {wanted}, found {count}",
            "Check 'nvidia-smi', and that PyTorch is a GPU build (the default one of the registry).",
        )
    elif count:
        yield Finding("GPUs", Health.GOOD, names)
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "GPUs",
            Health.NOTE,
            "a GPU driver is installed, but this PyTorch can't use it",
            "Install the default build of torch 2.13.0 into this environment.",
        )
    else:
        yield Finding("GPUs", Health.GOOD, "none; the CPU does the work")


def _storage(config: Config) -> Iterator[Finding]:
    root = config.storage.root
    free = free_bytes(root)
    if not root.exists():
        yield Finding(
            "storage", Health.NOTE, f"{root} isn't there yet", "The first 'vitriflow run' makes it."
        )
    else:
        problem = _try_writing(root)
        if problem:
            yield Finding(
                "storage", Health.BAD, f"{root}: {problem}", "Give this user the right to write there."
            )
    if free < config.storage.reserve_bytes:
        yield Finding(
            "disk",
            Health.BAD,
            f"{_size(free)} free at {root}, the reserve is {_size(config.storage.reserve_bytes)}",
            "Free space, or lower storage.reserve_bytes: processing pauses below it.",
        )
    else:
        yield Finding("disk", Health.GOOD, f"{_size(free)} free at {root}")


def examine_acls(config: Config) -> Iterator[Finding]:
    """Say whether the file system of the storage root keeps POSIX ACLs, and whether that matters."""
    root = config.storage.root
    if not root.is_dir():
        return
    why = can_do_acls(root)
    if why is None:
        text = (
            "kept in step with the people of experiments" if config.access.acls else "possible, not asked for"
        )
        yield Finding("ACLs", Health.GOOD, f"{root}: {text}")
    elif config.access.acls:
        yield Finding(
            "ACLs",
            Health.BAD,
            f"{root}: {why}",
            "Mount it with POSIX ACLs, or set access.acls = false and give access by groups.",
        )
    else:
        yield Finding("ACLs", Health.NOTE, f"{root}: {why}; experiments can't be kept apart by accounts")


def _try_writing(root: Path) -> str | None:
    """Write, sync, rename and remove a small file, with a name that has a space and an umlaut."""
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=".doctor-") as folder:
            path = Path(folder) / "a b ü.tmp"
            with path.open("wb") as stream:
                stream.write(b"vitriflow")
                stream.flush()
                os.fsync(stream.fileno())
            path.replace(path.with_suffix(".txt"))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _catalog(config: Config) -> Iterator[Finding]:
    url = config.catalog_url
    shown = url.split("@")[-1]
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        yield Finding(
            "catalog", Health.NOTE, f"{shown} isn't there yet", "The first 'vitriflow run' makes it."
        )
        return
    try:
        catalog = Catalog(url)
        try:
            check_schema(catalog)
        finally:
            catalog.close()
    except VitriflowError as error:
        yield Finding("catalog", Health.BAD, str(error))
    except Exception as error:  # any driver's own error: the doctor must go on
        yield Finding(
            "catalog",
            Health.BAD,
            f"{shown}: {error}",
            "Check catalog.url in facility.toml and that the server runs.",
        )
    else:
        yield Finding("catalog", Health.GOOD, shown)


def _steps(_config: Config) -> Iterator[Finding]:
    broken = []
    for name in step_names():
        try:
            find_step(name)
        except Exception as error:  # a facility's own step may fail in any way
            broken.append(f"{name} ({error})")
    if broken:
        yield Finding(
            "steps",
            Health.BAD,
            "can't be loaded: " + "; ".join(broken),
            "Reinstall the package that offers them.",
        )
    else:
        yield Finding("steps", Health.GOOD, ", ".join(step_names()))


_PROGRAMS = {
    "relion_refine": ("RELION", "--version"),
    "ctffind": ("CTFFIND", None),
    "MotionCor3": ("MotionCor3", None),
    "topaz": ("Topaz", "--version"),
}


def _programs(_config: Config) -> Iterator[Finding]:
    found = []
    for program, (title, flag) in _PROGRAMS.items():
        path = shutil.which(program)
        if path is None:
            continue
        found.append(f"{title} {_version(path, flag)}".strip() if flag else title)
    text = ", ".join(found) if found else "none found; none is needed"
    yield Finding("outside programs", Health.GOOD, text)


def _version(path: str, flag: str) -> str:
    try:
        done = subprocess.run([path, flag], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "(does not start)"
    words = (done.stdout + done.stderr).split()
    return next((word for word in words if word[:1].isdigit()), "")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
