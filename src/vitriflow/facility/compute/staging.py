"""A pool on another site: a call's inputs are copied to it, and what it made is brought back.

The other site's scratch folder is where its pool has it: on a file system that both sides mount. Inputs
are read once and compared by their BLAKE3; results are copied to temporary names beside their final
ones and renamed, so that nobody ever sees a part of one.
"""

import itertools
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from blake3 import blake3

from vitriflow.facility.compute.problems import Problem
from vitriflow.pipeline import GroupCall, GroupReturn
from vitriflow.steps import Artifact, find_step

P = ParamSpec("P")
T = TypeVar("T")

_BLOCK = 8 * 1024**2
_SIDE_BY_SIDE = 64  # each waits for its call there


class StagedPool(Executor):
    """Runs calls on a pool that doesn't see our files.

    Parameters
    ----------
    inner
        The pool of the other site; shut down with this one.
    folder
        Folder of that site for inputs and results of calls, seen from here under this path too.
    moved
        Told how many bytes each call's inputs had.
    """

    def __init__(self, inner: Executor, folder: Path, moved: Callable[[int], None] | None = None) -> None:
        self._inner = inner
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.moved = moved or (lambda _size: None)
        self.slots: dict[str, int] = dict(getattr(inner, "slots", {"cpu": 1, "gpu": 0}))
        self.threads = int(getattr(inner, "threads", 1))
        side_by_side = max(1, min(_SIDE_BY_SIDE, sum(self.slots.values())))
        self._movers = ThreadPoolExecutor(side_by_side, thread_name_prefix="staging")
        self._numbers = itertools.count(1)
        self._shared = threading.Lock()  # of files that all calls use: gain references, defects
        self._there: dict[Path, Path] = {}

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Stage a call of nodes, run it there, bring back what it made. Other calls run as they are."""
        first: Any = args[0] if args else None
        if not isinstance(first, GroupCall):
            return self._inner.submit(fn, *args, **kwargs)
        return self._movers.submit(self._whole, fn, first)  # type: ignore[arg-type]

    def _whole(self, function: Callable[[GroupCall], GroupReturn], call: GroupCall) -> GroupReturn:
        place = self._folder / f"call-{os.getpid()}-{next(self._numbers)}"
        place.mkdir(mode=0o700)
        try:
            staged, outs = self._staged(call, place)
            back = self._inner.submit(function, staged).result()
            names = {str(there): str(here) for there, here in outs.items()}
            for there, here in outs.items():
                _bring_back(there, here)
            names |= {str(there): str(here) for here, there in self._there.items()}
            for node, away in zip(call.nodes, staged.nodes, strict=True):
                for port, source in away.inputs.items():
                    given = node.inputs[port]
                    if isinstance(source, Artifact) and isinstance(given, Artifact):
                        names[str(source.path)] = str(given.path)
            return GroupReturn(_renamed(back.records, names), f"{back.worker} (staged)")
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _staged(self, call: GroupCall, place: Path) -> tuple[GroupCall, dict[Path, Path]]:
        nodes = []
        outs: dict[Path, Path] = {}
        size = 0
        for number, node in enumerate(call.nodes):
            inputs = dict(node.inputs)
            for port, source in node.inputs.items():
                if isinstance(source, Artifact):
                    target = place / "in" / str(number) / port / source.path.name
                    size += copy_checked(source.path, target)
                    inputs[port] = source.model_copy(update={"path": target})
            out = place / "out" / str(number)
            out.mkdir(parents=True)
            outs[out] = Path(node.out)
            parameters = {name: self._file(node.step, name, value) for name, value in node.parameters.items()}
            nodes.append(replace(node, inputs=inputs, parameters=parameters, out=str(out)))
        self.moved(size)
        return replace(call, nodes=tuple(nodes)), outs

    def _file(self, step: str, name: str, value: Any) -> Any:
        """A parameter that's a file (a gain reference) is moved once, for all calls."""
        field = find_step(step).Parameters.model_fields.get(name)
        is_path = field is not None and "Path" in str(field.annotation)
        if not is_path or not isinstance(value, str) or not Path(value).is_file():
            return value
        path = Path(value)
        facts = path.stat()
        with self._shared:
            target = self._folder / "shared" / f"{facts.st_size}-{facts.st_mtime_ns}" / path.name
            if not target.exists():
                copy_checked(path, target)
            self._there[path] = target
        return str(target)

    def problems(self) -> list[Problem]:
        """What's wrong with the pool of the other site."""
        found: list[Problem] = list(getattr(self._inner, "problems", list)())
        return found

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the pool of the other site down, and remove what was moved there."""
        self._inner.shutdown(wait=wait, cancel_futures=cancel_futures)
        self._movers.shutdown(wait=wait, cancel_futures=cancel_futures)
        shutil.rmtree(self._folder, ignore_errors=True)


def copy_checked(source: Path, target: Path) -> int:
    """Copy a file, read the copy again, and compare; how many bytes it has.

    Raises
    ------
    OSError
        When it can't be read or written, or the copy isn't the same.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    size = 0
    sent = blake3()
    try:
        with source.open("rb") as stream, temporary.open("wb") as made:
            while block := stream.read(_BLOCK):
                sent.update(block)
                made.write(block)
                size += len(block)
            made.flush()
            os.fsync(made.fileno())
        found = blake3()
        with temporary.open("rb") as stream:
            while block := stream.read(_BLOCK):
                found.update(block)
        if found.digest() != sent.digest():
            raise OSError(f"{target}: the copy of {source} isn't the same")
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return size


def _bring_back(there: Path, here: Path) -> None:
    """Copy what a node made to where it belongs; names that steps use for unfinished files stay away."""
    for path in sorted(there.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            copy_checked(path, here / path.relative_to(there))


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The same with paths of the other site replaced by ours, wherever they stand in a text."""
    if isinstance(value, str):
        for there in sorted(names, key=len, reverse=True):
            value = value.replace(there, names[there])
        return value
    if isinstance(value, dict):
        return {key: _renamed(inner, names) for key, inner in value.items()}
    return [_renamed(inner, names) for inner in value] if isinstance(value, list | tuple) else value
