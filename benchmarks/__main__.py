"""``python -m benchmarks short|full [--only NAME]`` runs them one after the other, into results/."""

import argparse
import importlib
import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

import vitriflow

# Each is a module with ``run(full: bool) -> tuple[str, dict]``: a Markdown section and its data.
BENCHMARKS = ("engine", "web", "end_to_end", "picking")
FOLDER = Path("results")


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": psutil.cpu_count(),
        "memory_GiB": round(psutil.virtual_memory().total / 1024**3, 1),
        "processor": _processor(),
        "python": platform.python_version(),
        "vitriflow": vitriflow.__version__,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("set", choices=("short", "full"))
    parser.add_argument("--only", choices=BENCHMARKS, action="append")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    facts = machine()
    heading = ", ".join(f"{name} {value}" for name, value in facts.items())
    sections = [f"# Benchmarks, {arguments.set} set\n\n{heading}\n"]
    data: dict[str, object] = {"machine": facts}
    for name in arguments.only or BENCHMARKS:
        print(f"== {name} ...", flush=True)
        started = time.monotonic()
        section, values = importlib.import_module(f"benchmarks.{name}").run(arguments.set == "full")
        print(section, flush=True)
        sections.append(section)
        data[name] = {**values, "benchmark_seconds": round(time.monotonic() - started, 1)}
    (FOLDER / f"{arguments.set}.md").write_text("\n".join(sections), encoding="utf-8")
    (FOLDER / f"{arguments.set}.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {FOLDER}/{arguments.set}.md and .json")


if __name__ == "__main__":
    main()
