"""``python -m benchmarks short|full [--only NAME]`` runs them one after the other, into results/.

One that fails doesn't stop the others: it's named in the table, and the exit code is 1.
"""

import argparse
import contextlib
import importlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import psutil

import vitriflow
from benchmarks.measure import CACHE_VARIABLE, CORES, RESULTS_VARIABLE, on_cores, results_folder
from benchmarks.report import DOCS, goals, goals_table, write_docs

# Each is a module with ``run(full: bool) -> tuple[str, dict]``: a Markdown section and its data.
BENCHMARKS = (
    "engine",
    "gates",
    "web",
    "web_pages",
    "end_to_end",
    "motion",
    "ctf",
    "picking",
    "copying",
    "scanning",
    "airflow",
    "gpu",
)


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    from benchmarks.peers import versions

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": psutil.cpu_count(),
        "memory_GiB": round(psutil.virtual_memory().total / 1024**3, 1),
        "processor": _processor(),
        "system": platform.platform(),
        "load_average_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "vitriflow": vitriflow.__version__,
        **versions(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("set", choices=("short", "full"))
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="may be given several times")
    parser.add_argument("--cache", type=Path, help="keep the simulated movies here, for the next run")
    parser.add_argument("--results", type=Path, help="folder for tables and plots (default: results)")
    parser.add_argument("--docs", action="store_true", help=f"replace what was run in {DOCS}")
    arguments = parser.parse_args()
    for variable, value in ((CACHE_VARIABLE, arguments.cache), (RESULTS_VARIABLE, arguments.results)):
        if value is not None:
            os.environ[variable] = str(value.absolute())
    folder = results_folder()
    facts = machine()
    # What others would type: where this machine keeps its files is nobody's business.
    command = " ".join(
        ["python -m benchmarks", arguments.set, *(f"--only {n}" for n in arguments.only or ())]
    )
    data: dict[str, object] = {"command": command, "machine": facts}
    sections: dict[str, str] = {}
    data["sections"] = sections
    failed = False
    for name in arguments.only or BENCHMARKS:
        print(f"== {name} ...", flush=True)
        started, busy = time.monotonic(), os.getloadavg()[0]
        try:
            run = importlib.import_module(f"benchmarks.{name}").run
            with contextlib.nullcontext() if name == "gpu" else on_cores(CORES):
                section, values = run(arguments.set == "full")
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            failed = True
            section, values = f"## {name}\n\nfailed: {error}\n", {"failed": str(error)}
        if not section.startswith("## "):
            section = f"## {name.replace('_', ' ').capitalize()}\n\n{section}\n"
        seconds = round(time.monotonic() - started, 1)
        section += f"\nTook {seconds:.0f} s; the machine's load average was {busy:.1f} before it began.\n"
        print(section, flush=True)
        sections[name] = section
        data[name] = {**values, "benchmark_seconds": seconds, "load_average_before": round(busy, 2)}
        _write(folder, arguments.set, data, sections.values())
    if goals(data):
        print(goals_table(goals(data)))
    print(f"Written to {folder}/{arguments.set}.md and .json")
    if arguments.docs:
        print("Put into", DOCS, *write_docs(folder, arguments.set, DOCS))
    sys.exit(1 if failed else 0)


def _write(folder: Path, name: str, data: dict[str, object], sections: Iterable[str]) -> None:
    """After each benchmark, so that what's there isn't lost when a later one is stopped."""
    facts = data["machine"]
    assert isinstance(facts, dict)
    heading = ", ".join(f"{key} {value}" for key, value in facts.items())
    lines = [f"# Benchmarks, {name} set", "", f"`{data['command']}`", "", heading, ""]
    lines += [goals_table(goals(data)), ""] if goals(data) else []
    lines += sections
    (folder / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
