"""``python -m benchmarks.soak``: an unattended session in copy mode with everything going wrong at random.

A microscope writes movies; meanwhile services are killed, files cut short, replaced and held, the share
vanishes, the destination fills up, bytes flip on the disk, clocks jump, names clash. It ends when every file is
proved or reported, and then checks each of them against what the microscope wrote. Exit code 0: all held.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from sqlalchemy import select

from benchmarks.soak_faults import Faults
from vitriflow.catalog import Catalog, Event, Exposure, FileState, Measure, Session, SourceFile
from vitriflow.formats import MrcWriter

CONFIG = """\
[acquisition]
scan_interval_s = 0.5
quiet_s = 1.0
patience_s = 8.0

[compute]
workers = 1
threads_per_worker = 1
gpus = []

[storage]
root = "{disk}/data"
reserve_bytes = 0

[microscopes.tem1]
sources = ["{share}"]
mode = "copy"
"""
TEMPLATE = """\
name: soak
nodes:
  look: {step: debug.noop, inputs: {movie: exposure.movie}}
"""
SHAPE, FRAMES = (512, 512), 8
QUIET_END_S = 900.0  # without any progress for so long, it's given up


def _humble() -> list[str]:
    """What makes root obey permissions as others do; nothing for another user."""
    if os.geteuid():
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


class Soak:
    """One unattended run."""

    def __init__(self, folder: Path, exposures: int, every_s: float, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.exposures = exposures
        self.every_s = every_s
        self.share = folder / "share"
        self.disk = folder / "disk"
        self.source = self.share / "session"
        self.denied = _humble()
        for path in (self.share, self.disk):
            path.mkdir()
        self.mounted = self._mount()
        self.source.mkdir()
        self.config = folder / "facility.toml"
        self.config.write_text(CONFIG.format(disk=self.disk, share=self.share))
        (folder / "soak.yaml").write_text(TEMPLATE)
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts: Counter[str] = Counter()
        self.log = (folder / "log").open("ab")
        generator = np.random.default_rng(seed)
        self.stack = generator.poisson(1.0, (FRAMES * 4, *SHAPE)).astype(np.uint8)
        self.faults = Faults(self)

    def _mount(self) -> bool:
        """A disk of its own for the results, so that it can be filled; without root there's none."""
        size = self.exposures * FRAMES * SHAPE[0] * SHAPE[1] * 13 // 10 + 300 * 2**20
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(self.disk)]
        return not os.geteuid() and not subprocess.run(command, capture_output=True, check=False).returncode

    def close(self) -> None:
        for process in self.services.values():
            process.kill()
            process.wait()
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.disk)], check=False)

    # -- services ---------------------------------------------------------------------------

    def command(self, *arguments: object) -> list[str]:
        return [
            *self.denied,
            sys.executable,
            "-m",
            "vitriflow.cli",
            *map(str, arguments),
            "--config",
            str(self.config),
        ]

    def call(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """A command as a user types it."""
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )

    def keep_services(self) -> None:
        """Start what isn't there, as systemd does. Two nodes acquire."""
        for name in ("acquire --label one", "acquire --label two", "process"):
            process = self.services.get(name)
            if process is None or process.poll() is not None:
                self.restarts[name] += process is not None
                self.services[name] = subprocess.Popen(
                    self.command(*name.split()),
                    stdout=self.log,
                    stderr=self.log,
                    cwd=self.folder,
                )

    # -- the microscope ---------------------------------------------------------------------

    def write_movie(self, path: Path) -> None:
        """Write one movie, with frames of its own, in its own time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        order = [self.random.randrange(len(self.stack)) for _ in range(FRAMES)]
        with MrcWriter(path, SHAPE, np.dtype(np.uint8), pixel_size_A=1.0, n_frames=FRAMES) as writer:
            for number in order:
                writer.write(np.roll(self.stack[number], self.random.randrange(1000)))

    def play(self) -> None:
        """Write everything, with trouble between."""
        for number in range(self.exposures):
            self.keep_services()
            name = f"GridSquare_{number // 100}/exposure {number:04d}"
            path = self.source / f"{name}.mrc"
            self.faults.before(path)
            self.write_movie(path)
            path.with_suffix(".txt").write_text(f"note of {number}\n")
            self.faults.after(path)
            time.sleep(self.every_s * self.random.uniform(0.5, 1.5))
        self.faults.finish()

    # -- the end ----------------------------------------------------------------------------

    def settle(self) -> bool:
        """Wait until every file is proved or reported, and every exposure dealt with."""
        last, since = "", time.monotonic()
        while time.monotonic() - since < QUIET_END_S:
            self.keep_services()
            states, waiting = self.states()
            if not waiting:
                return True
            if str(states) != last:
                last, since = str(states), time.monotonic()
            time.sleep(1.0)
        return False

    def states(self) -> tuple[Counter[str], int]:
        """Files by state, and how much isn't dealt with yet."""
        rows, exposures, measured = self.rows(), self.read(Exposure), self.read(Measure)
        found = Counter(row.state for row in rows.values())
        on_disk = {str(path.relative_to(self.source)) for path in self.source.rglob("*") if path.is_file()}
        ended = (FileState.PROVED, FileState.PROBLEM)
        open_files = sum(row.state not in ended for row in rows.values()) + len(on_disk - set(rows))
        settled = {row.exposure_id for row in measured if row.status != "open"}
        return found, open_files + sum(row.id not in settled for row in exposures)

    def rows(self) -> dict[str, SourceFile]:
        """Newest generation of each file."""
        return {row.key: row for row in sorted(self.read(SourceFile), key=lambda row: row.generation)}

    def read(self, table: Any) -> list[Any]:
        catalog = Catalog(f"sqlite:///{self.disk / 'data' / 'catalog.db'}")
        try:
            return catalog.read(lambda orm: list(orm.scalars(select(table))))
        finally:
            catalog.close()

    def check(self) -> dict[str, Any]:
        """Compare every file that the microscope holds with what is proved; name whatever isn't right."""
        root = Path(self.read(Session)[0].root)
        wrong: list[str] = []
        proved, reported = 0, Counter[str]()
        rows = self.rows()
        for path in sorted(p for p in self.source.rglob("*") if p.is_file()):
            key = str(path.relative_to(self.source))
            row = rows.get(key)
            if row is None:
                wrong.append(f"{key}: nothing is known of it")
            elif row.state == FileState.PROVED:
                proved += 1
                flipped = str(row.destination) in self.faults.flipped
                if blake3(path.read_bytes()).hexdigest() != row.blake3:
                    wrong.append(f"{key}: proved with other bytes than the source's")
                elif (
                    not flipped
                    and blake3((root / str(row.destination)).read_bytes()).hexdigest() != row.blake3
                ):
                    wrong.append(f"{key}: its copy isn't what was proved")
            elif row.state == FileState.PROBLEM and row.problem:
                reported[str(row.problem_code)] += 1
            else:
                wrong.append(f"{key}: {row.state}")
        verified = json.loads(self.call("verify", self.read(Session)[0].key, "--json").stdout or "{}")
        said = json.dumps(verified)
        wrong += [
            f"{name}: flipped after it was proved, and not found"
            for name in self.faults.flipped
            if name not in said
        ]
        status = Counter(row.status for row in self.read(Measure))
        problems = Counter(str(row.problem_code) for row in self.read(Exposure) if row.state == "problem")
        return {
            "files_proved": proved,
            "files_reported": dict(reported),
            "exposures": len(self.read(Exposure)),
            "exposures_by_outcome": dict(status),
            "exposures_reported": dict(problems),
            "flipped_after_proof_and_found": len(self.faults.flipped),
            "events": len(self.read(Event)),
            "wrong": wrong,
        }


def report(found: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{found['written']} exposures of {SHAPE[0]} x {SHAPE[1]} x {FRAMES} were written with trouble in "
        f"{found['minutes']:.0f} min until all was settled and checked, "
        f"seed {found['seed']}; finished {found['date']}, {found['cores']} cores, load {found['load']:.1f}.",
        "",
        "| trouble | times |",
        "| --- | --- |",
        *(f"| {name} | {number} |" for name, number in sorted(found["faults"].items())),
        "",
        "| outcome | files or exposures |",
        "| --- | --- |",
        f"| files proved | {found['files_proved']} |",
        *(
            f"| files reported: {name} | {number} |"
            for name, number in sorted(found["files_reported"].items())
        ),
        "| copies damaged after they were proved, all found by `vitriflow verify` "
        f"| {found['flipped_after_proof_and_found']} |",
        f"| exposures | {found['exposures']} |",
        *(
            f"| exposures {name} | {number} |"
            for name, number in sorted(found["exposures_by_outcome"].items())
        ),
        f"| files lost, or proved wrongly | {len(found['wrong'])} |",
        "",
    ]
    if found["not_tried"]:
        lines += ["Not tried here: " + "; ".join(found["not_tried"]) + ".", ""]
    return "\n".join(lines + [f"- {line}" for line in found["wrong"]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--exposures", type=int, default=1000)
    parser.add_argument("--every", type=float, default=0.8, help="seconds between two exposures")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--keep", action="store_true", help="leave the folder, to look at it")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vitriflow-soak-"))
    soak = Soak(folder, arguments.exposures, arguments.every, arguments.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        opened = soak.call("start", "--source", "session", "--template", folder / "soak.yaml")
        if opened.returncode:
            print(opened.stderr, file=sys.stderr)
            return 2
        soak.play()
        settled = soak.settle()
        found = soak.check()
        if not settled:
            found["wrong"].insert(0, f"not everything was dealt with: {soak.states()[0]}")
    finally:
        soak.close()
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    found |= {
        "written": arguments.exposures,
        "seed": arguments.seed,
        "minutes": (time.monotonic() - started) / 60,
        "faults": dict(soak.faults.done) | {f"restarts of {n}": c for n, c in soak.restarts.items() if c},
        "not_tried": soak.faults.not_tried,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "soak.json").write_text(json.dumps(found, indent=2) + "\n")
    (arguments.results / "soak.md").write_text(report(found))
    print(report(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
