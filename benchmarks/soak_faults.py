"""What goes wrong during a soak, at random."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from benchmarks.soak import Soak

# Chance of each at each exposure
CHANCES = {
    "acquire killed (-9)": 0.012,
    "a session's process killed (-9)": 0.012,
    "process killed (-9)": 0.008,
    "source cut short, for good": 0.008,
    "source cut short, whole later": 0.012,
    "source replaced under its name": 0.012,
    "permission denied, for a while": 0.015,
    "clock jumped": 0.08,
    "name used twice": 0.008,
    "share vanished and returned": 0.008,
    "destination full, for a while": 0.006,
    "byte flipped in a proved copy": 0.008,
}


class Faults:
    """Makes trouble, and remembers what it did."""

    def __init__(self, soak: "Soak") -> None:
        self.soak = soak
        self.random: random.Random = soak.random
        self.done: Counter[str] = Counter()
        self.flipped: set[str] = set()
        self.spoilt: set[Path] = set()  # sources that were cut short or replaced
        self.later: list[tuple[float, str, Path]] = []  # what's put right again, and when
        self.not_tried: list[str] = []
        if not soak.mounted:
            self.not_tried.append("a full destination (mounting takes root)")

    def before(self, path: Path) -> None:
        """Something may happen before a movie is written."""
        self._put_right(time.monotonic())
        for fault in ("acquire killed (-9)", "a session's process killed (-9)", "process killed (-9)"):
            if self._by_chance(fault):
                self._kill(fault)
        if self._by_chance("share vanished and returned"):
            self._vanish()
        if self.soak.mounted and not self._fills() and self._by_chance("destination full, for a while"):
            self._fill()
        if self._by_chance("byte flipped in a proved copy"):
            self._flip()

    def after(self, path: Path) -> None:
        """Something may happen to a movie that was just written."""
        if self._by_chance("clock jumped"):
            moment = time.time() + self.random.uniform(-40, 40) * 3600
            os.utime(path, (moment, moment))
            self.done["clock jumped"] += 1
        for fault in ("source cut short, for good", "source cut short, whole later"):
            if self._by_chance(fault):
                self._cut(fault, path)
                return
        if self._by_chance("source replaced under its name"):
            self.later.append((time.monotonic() + self.random.uniform(0, 6), "replace", path))
            self.done["source replaced under its name"] += 1
        elif self._by_chance("permission denied, for a while"):
            path.chmod(0)
            self.later.append((time.monotonic() + self.random.uniform(1, 15), "allow", path))
            self.done["permission denied, for a while"] += 1
        elif self._by_chance("name used twice"):
            self.soak.write_movie(path.with_suffix(".mrcs"))
            self.done["name used twice"] += 1

    def finish(self) -> None:
        """Put right all that is put right later."""
        while self.later:
            self.soak.keep_services()
            self._put_right(time.monotonic())
            time.sleep(0.2)

    def _by_chance(self, fault: str) -> bool:
        return self.random.random() < CHANCES[fault]

    def _kill(self, fault: str) -> None:
        name = (
            "process"
            if fault.startswith("process")
            else self.random.choice(["acquire --label one", "acquire --label two"])
        )
        service = self.soak.services.get(name)
        if service is None or service.poll() is not None:
            return
        if fault.startswith("a session's"):
            children = [
                child
                for other in self.soak.services.values()
                if other.poll() is None
                for child in psutil.Process(other.pid).children()
                if _takes_in(child)
            ]
            if not children:
                return
            children[0].kill()
        else:
            os.kill(service.pid, signal.SIGKILL)
            service.wait()
        self.done[fault] += 1

    def _vanish(self) -> None:
        """The share goes away whole, also in the middle of a copy, and comes back."""
        share = self.soak.share
        away = share.with_name("share that is away")
        share.rename(away)
        time.sleep(self.random.uniform(0.5, 4))
        away.rename(share)
        self.done["share vanished and returned"] += 1

    def _fills(self) -> bool:
        return any(what == "room" for _, what, _ in self.later)

    def _fill(self) -> None:
        ballast = self.soak.disk / "ballast"
        free = os.statvfs(self.soak.disk)
        size = free.f_bavail * free.f_frsize
        try:
            with ballast.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, max(1, size - 2**20))
        except OSError:
            ballast.unlink(missing_ok=True)
            return
        self.later.append((time.monotonic() + self.random.uniform(2, 8), "room", ballast))
        self.done["destination full, for a while"] += 1

    def _flip(self) -> None:
        rows = [
            row for row in self.soak.rows().values() if row.state == "proved" and row.key.endswith(".mrc")
        ]
        rows = [row for row in rows if str(row.destination) not in self.flipped]
        if not rows:
            return
        row = self.random.choice(rows)
        sessions = list(self.soak.disk.glob("data/2*/*/*/*/raw"))
        path = sessions[0].parent / str(row.destination)
        with path.open("r+b") as stream:
            stream.seek(path.stat().st_size // 2)
            byte = stream.read(1)
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte[0] ^ 4]))
        self.flipped.add(str(row.destination))
        self.done["byte flipped in a proved copy"] += 1

    def _cut(self, fault: str, path: Path) -> None:
        whole = path.read_bytes()
        if fault.endswith("for good"):
            with path.open("r+b") as stream:
                stream.truncate(len(whole) // 3)
        else:
            with path.open("r+b") as stream:
                stream.truncate(len(whole) // 2)
            kept = self.soak.folder / f"kept {path.name}"
            kept.write_bytes(whole)
            self.later.append((time.monotonic() + self.random.uniform(1, 12), "whole", path))
        self.spoilt.add(path)
        self.done[fault] += 1

    def _put_right(self, moment: float) -> None:
        for entry in [entry for entry in self.later if entry[0] <= moment]:
            self.later.remove(entry)
            _, what, path = entry
            if what == "room":
                path.unlink(missing_ok=True)
            elif what == "allow":
                path.chmod(0o644)
            elif what == "replace":
                self.soak.write_movie(path)
            elif what == "whole":
                kept = self.soak.folder / f"kept {path.name}"
                with path.open("r+b") as stream:
                    stream.write(kept.read_bytes())
                kept.unlink()


def _takes_in(process: psutil.Process) -> bool:
    """Whether a process takes a session in; a zombie doesn't."""
    try:
        return "vitriflow.facility.service" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
