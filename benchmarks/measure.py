"""The harness: programs as processes of their own, on the same cores and files, taking turns.

Wall time, CPU time and peak memory are those of the whole process tree. Every number that is
shown is a median with the least and the greatest beside it.
"""

import contextlib
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

CACHE_VARIABLE = "VITRIFLOW_BENCH_CACHE"
RESULTS_VARIABLE = "VITRIFLOW_BENCH_RESULTS"
CORES = 2
_SAMPLE_S = 0.1
_SAMPLES_A_LISTING = 4  # looking for new children costs more than reading their memory
_LIMIT_S = 3600.0


@dataclass(frozen=True)
class Usage:
    """What one run of one program took.

    ``peak_bytes`` is the largest resident memory of the process tree, sampled every 0.1 s, and at
    least the largest that the kernel saw in the first process of it.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    returncode: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)


class Failed(RuntimeError):
    """A program that was to be measured didn't do its work."""


def measure(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    cores: int = CORES,
    allowed: tuple[int, ...] = (0,),
) -> Usage:
    """Run a program to its end on so many cores.

    Raises
    ------
    Failed
        When its exit code isn't among ``allowed``, with the end of what it said.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, on_cores(cores):
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, "OMP_NUM_THREADS": str(cores), **(environment or {})},
        )
        watch = _Watch(process.pid)
        if process.stdin is not None:
            process.stdin.write((stdin or "").encode())
            process.stdin.close()
        killer = threading.Timer(_LIMIT_S, process.kill)
        killer.start()
        _, status, resources = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        peak = watch.stop()  # not ru_maxrss: until it execs, a child counts our own pages as its
        out.seek(0)
        err.seek(0)
        usage = Usage(
            wall,
            resources.ru_utime + resources.ru_stime,
            peak,
            process.returncode,
            out.read(),
            err.read(),
        )
    if usage.returncode not in allowed:
        said = (usage.stderr or usage.stdout)[-1500:].decode(errors="replace")
        raise Failed(f"{command[0]} ended with {usage.returncode}:\n{said}")
    return usage


class _Watch:
    """Samples the memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._peak = 0
        self._end = threading.Event()
        self._process = psutil.Process(pid)
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        children: list[psutil.Process] = []
        number = 0
        while not self._end.wait(_SAMPLE_S):
            with contextlib.suppress(psutil.Error):
                if number % _SAMPLES_A_LISTING == 0:
                    children = self._process.children(recursive=True)
                number += 1
                together = sum(map(_resident_bytes, [self._process, *children]))
                self._peak = max(self._peak, together, _own_peak_bytes(self._process.pid))

    def stop(self) -> int:
        self._end.set()
        self._thread.join()
        return self._peak


def _own_peak_bytes(pid: int) -> int:
    """The kernel's own peak of a process since it was exec'ed (proc(5), VmHWM); 0 when it's gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it has just ended


@contextlib.contextmanager
def on_cores(number: int) -> Iterator[None]:
    """Hold this thread, and the programs that it starts, to the first ``number`` cores it may use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of several values."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values), len(values))

    def text(self, digits: int = 1) -> str:
        """``63.1 (60.2..66.0)``, or the value alone when there's one."""
        middle = f"{self.median:.{digits}f}"
        return middle if self.count == 1 else f"{middle} ({self.low:.{digits}f}..{self.high:.{digits}f})"

    def record(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Turn:
    """One program's run: its usage, and times that it told itself."""

    usage: Usage
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Series:
    """All runs of one program."""

    name: str
    turns: list[Turn] = field(default_factory=list)

    def wall(self) -> Spread:
        return Spread.of([turn.usage.wall_s for turn in self.turns])

    def cpu(self) -> Spread:
        return Spread.of([turn.usage.cpu_s for turn in self.turns])

    def peak_GB(self) -> Spread:
        return Spread.of([turn.usage.peak_bytes / 1e9 for turn in self.turns])

    def extra(self, name: str) -> Spread:
        return Spread.of([turn.extra[name] for turn in self.turns])

    def record(self) -> dict[str, Any]:
        names = self.turns[0].extra if self.turns else {}
        return {
            "wall_s": self.wall().record(),
            "cpu_s": self.cpu().record(),
            "peak_GB": self.peak_GB().record(),
            **{name: self.extra(name).record() for name in names},
        }


def alternate(programs: Mapping[str, Callable[[int], Turn]], rounds: int) -> dict[str, Series]:
    """Let programs take turns, ``rounds`` times each, every second round in the other order."""
    series = {name: Series(name) for name in programs}
    for number in range(rounds):
        order = list(programs)[:: 1 if number % 2 == 0 else -1]
        for name in order:
            series[name].turns.append(programs[name](number))
    return series


@contextlib.contextmanager
def workspace(name: str) -> Iterator[Path]:
    """A folder for inputs: below ``$VITRIFLOW_BENCH_CACHE``, where they stay, else a passing one."""
    cache = os.environ.get(CACHE_VARIABLE)
    if cache:
        folder = Path(cache).absolute() / name
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix=f"vitriflow-bench-{name}-") as folder_name:
            yield Path(folder_name)


def results_folder() -> Path:
    """Where tables and plots go."""
    folder = Path(os.environ.get(RESULTS_VARIABLE, "results"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def warm_cache(path: Path) -> None:
    """Read a file once, so that no program pays for the disk's first read."""
    with path.open("rb") as file:
        while file.read(1 << 22):
            pass


def load_note() -> dict[str, Any]:
    """How busy the machine is with other things, said beside the numbers."""
    return {"load_average_1_min": round(os.getloadavg()[0], 2), "cores": len(os.sched_getaffinity(0))}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def plot_scatter(
    path: Path,
    series: Mapping[str, Sequence[tuple[float, float]]],
    labels: tuple[str, str],
    title: str,
    *,
    diagonal: bool = False,
    log: bool = False,
) -> Path:
    """Draw points, one colour a series."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.0, 4.5))
    points = [point for several in series.values() for point in several]
    for name, several in series.items():
        if several:
            x, y = zip(*several, strict=True)
            axes.scatter(x, y, label=name, s=28, alpha=0.8)
    if log and all(x > 0 and y > 0 for x, y in points):
        axes.set_xscale("log")
        axes.set_yscale("log")
    if diagonal and points:
        low, high = min(map(min, points)), max(map(max, points))
        axes.plot([low, high], [low, high], color="grey", linewidth=0.8, label="equal")
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    if len(series) > 1 or diagonal:
        axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def plot_bars(path: Path, values: Mapping[str, Mapping[str, float]], unit: str, title: str) -> Path:
    """Draw stacked bars: one bar for each outer name, its parts by the inner ones."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.0, 0.8 + 0.6 * len(values)))
    names = list(dict.fromkeys(part for parts in values.values() for part in parts))
    left = [0.0] * len(values)
    for name in names:
        widths = [parts.get(name, 0.0) for parts in values.values()]
        axes.barh(list(values), widths, left=left, label=name)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel=unit, title=title)
    if len(names) > 1:
        axes.legend(frameon=False, fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
