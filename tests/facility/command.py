"""The ``vitriflow`` command as a user types it, in a folder of its own, and what it left behind."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from sqlalchemy import select

from vitriflow.catalog import Attempt, Catalog, Event, Exposure, Measure, Processing, ResultRow, Session
from vitriflow.cli import main
from vitriflow.pipeline import Counts, counts

PATIENT_S = 240.0  # nothing here needs that long, even on a busy machine
# Commands that start workers, serve, take signals, or set the threads of the process that they run in
OWN = {"run", "serve", "acquire", "process", "up", "demo", "simulate", "step run"}
QUICK = """\
[acquisition]
scan_interval_s = 0.2
quiet_s = 0.3
patience_s = {patience_s}

[compute]
workers = {workers}
threads_per_worker = 1
gpus = []
"""


def until(what: Callable[[], Any], timeout_s: float = PATIENT_S) -> Any:
    """Wait until something holds, and give it."""
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, "this should have happened by now"
        time.sleep(0.1)
    return found


class House:
    """One user's folder: a facility.toml with short times, a storage root, and the command."""

    def __init__(self, folder: Path, *, patience_s: float = 2.0, workers: int = 1, more: str = "") -> None:
        self.folder = folder
        self.root = folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "facility.toml"
        text = QUICK.format(patience_s=patience_s, workers=workers)
        self.prefix: tuple[str, ...] = ()  # what the command is started by
        self._text = f'{text}\n{more}\n[storage]\nroot = "{self.root}"\n'
        self.reconfigure("")

    def reconfigure(self, storage: str) -> None:
        """Write facility.toml with more lines about storage."""
        self.config.write_text(f"{self._text}{storage}\n", encoding="utf-8")

    # -- the command ----------------------------------------------------------------------

    def vitriflow(
        self, *arguments: object, expect: int = 0, here: bool | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end; its exit code has to be the one expected.

        Those that need one run in a process of their own. To the others it would add an interpreter's
        start and nothing else, so they run in this one, unless told otherwise.
        """
        words = [str(argument) for argument in arguments]
        if here is None:
            here = not self.prefix and words[0] not in OWN and " ".join(words[:2]) not in OWN
        done = self._run_here(words) if here else self._run_apart(words)
        assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def _run_apart(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self._command(words),
            capture_output=True,
            text=True,
            timeout=PATIENT_S,
            cwd=self.folder,
            env=_environment(),
            check=False,
        )

    def _run_here(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        code: object = 0
        with (
            chdir(self.folder),
            patch.dict(os.environ, _environment(), clear=True),
            patch.object(sys, "argv", ["vitriflow", *words]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as ended:
                code = ended.code
        said, complained = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))  # type: ignore[attr-defined]
        code = code if isinstance(code, int) else int(code is not None)
        return subprocess.CompletedProcess(words, code, said, complained)

    def json(self, *arguments: object, expect: int = 0, here: bool | None = None) -> Any:
        """What the command prints with --json."""
        return json.loads(self.vitriflow(*arguments, "--json", expect=expect, here=here).stdout)

    @contextmanager
    def running(self, *arguments: object) -> "Iterator[subprocess.Popen[bytes]]":
        """The command in a process group of its own; whatever is left of it is killed at the end."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                self._command(arguments),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_environment(),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            kill_group(process)

    def _command(self, arguments: Iterable[object]) -> list[str]:
        return [*self.prefix, sys.executable, "-m", "vitriflow.cli", *map(str, arguments)]

    @property
    def said(self) -> str:
        """What a running command said so far."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    # -- what it left ---------------------------------------------------------------------

    def read(self, work: Callable[[Any], Any], url: str | None = None) -> Any:
        """Ask the catalog, as another process would."""
        catalog = Catalog(url or f"sqlite:///{self.root / 'catalog.db'}")
        try:
            return catalog.read(work)
        finally:
            catalog.close()

    def counts(self, url: str | None = None) -> Counts:
        """Counts of the only processing."""
        catalog = Catalog(url or f"sqlite:///{self.root / 'catalog.db'}")
        try:
            number = catalog.read(lambda orm: orm.scalars(select(Processing.id)).one())
            return counts(catalog, number)
        finally:
            catalog.close()

    def exposures(self) -> dict[str, Exposure]:
        """Exposures by their key."""
        return {row.key: row for row in self.read(lambda orm: list(orm.scalars(select(Exposure))))}

    def outcomes(self) -> dict[str, tuple[str, str | None, str | None]]:
        """Status, reason code and reason of each exposure that came in, by its key."""
        query = select(Exposure.key, Measure.status, Measure.reason_code, Measure.reason).join(
            Measure, Measure.exposure_id == Exposure.id
        )
        return {
            key: (status, code, why) for key, status, code, why in self.read(lambda o: list(o.execute(query)))
        }

    def records(self, node: str) -> dict[str, dict[str, Any]]:
        """Result records of a node by exposure key."""
        query = (
            select(Exposure.key, ResultRow.record)
            .join(Exposure, Exposure.id == ResultRow.item_id)
            .where(ResultRow.node == node)
        )
        rows = self.read(lambda orm: [(key, record) for key, record in orm.execute(query)])
        return dict(rows)

    def results(self) -> list[tuple[str, str]]:
        """(exposure key, node) of each result there is, one entry for each."""
        query = select(Exposure.key, ResultRow.node).join(Exposure, Exposure.id == ResultRow.item_id)
        return sorted((key, node) for key, node in self.read(lambda orm: list(orm.execute(query))))

    def events(self, url: str | None = None) -> list[str]:
        """What people were told, oldest first."""
        return list(self.read(lambda orm: list(orm.scalars(select(Event.text).order_by(Event.id))), url))

    def attempts(self) -> int:
        """Attempts that didn't end well."""
        return len(self.read(lambda orm: list(orm.scalars(select(Attempt.id)))))

    def session(self) -> Session:
        """The only session."""
        found: Session = self.read(lambda orm: orm.scalars(select(Session)).one())
        return found

    @property
    def project(self) -> Path:
        """The RELION project of the only session."""
        return Path(self.session().root) / "processed" / "live"


def _environment() -> dict[str, str]:
    names = {"VITRIFLOW_CONFIG", "FORCE_COLOR", "COLUMNS"}
    return {name: value for name, value in os.environ.items() if name not in names} | {"COLUMNS": "200"}


def group_of(process: "subprocess.Popen[bytes]") -> list[int]:
    """Processes that live and belong to the group that this one leads."""
    found = []
    for other in psutil.process_iter():
        try:
            if os.getpgid(other.pid) == process.pid and other.status() != psutil.STATUS_ZOMBIE:
                found.append(other.pid)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """End all that one command started, at once: what a power cut leaves, short of the disk."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(120)
