"""A facility with two microscopes whose sessions Airflow conducts, as commands make it."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select
from typer.testing import CliRunner

from tests.facility.command import House, until
from tests.servers import free_port
from vitriflow.catalog import Experiment, Lot, Measure, Processing, ResultRow, Sample, Session
from vitriflow.cli import app
from vitriflow.pipeline import make_plan, parse_template

TEMPLATE = """\
name: tiny
title: Tiny
nodes:
  align: {step: motion.native, inputs: {movie: exposure.movie}, set: {patches_y: 0, patches_x: 0}}
  ctf: {step: debug.noop, inputs: {micrograph: align.micrograph}, set: {write: true}}
  pick: {step: debug.noop, inputs: {micrograph: align.micrograph}, set: {write: true}}
  preview: {step: preview, inputs: {micrograph: align.micrograph}}
"""
CONFIG = """
[processing]
template = "{template}"

[processing.parameters]
seconds = 0.0

[airflow]
conducts = true
runs = {runs}
largest_batch = {largest}

[web]
port = {port}

[microscopes.tem1]
sources = ["{folder}/tem1"]
mode = "copy"

[microscopes.tem2]
sources = ["{folder}/tem2"]
mode = "copy"
"""


class ConductedHouse(House):
    """Its folder, its commands, and what an operator does by REST."""

    def __init__(self, folder: Path, template: str = TEMPLATE, runs: int = 2, largest: int = 4) -> None:
        self.port = free_port()
        folder.mkdir(parents=True)
        for name in ("tem1", "tem2"):
            (folder / name).mkdir()
        path = folder / "tiny.yaml"
        path.write_text(template, encoding="utf-8")
        more = CONFIG.format(template=path, port=self.port, folder=folder, runs=runs, largest=largest)
        super().__init__(folder, workers=1, more=more)

    @property
    def address(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.port}"

    def say(self, *arguments: object) -> str:
        """A command as somebody types it, in this process."""
        result = CliRunner().invoke(app, [*map(str, arguments), "--config", str(self.config)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    @contextmanager
    def up(self) -> "Iterator[subprocess.Popen[bytes]]":
        """All of its services."""
        with self.running("up") as services:
            until(self._answers)
            yield services

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/api/health", timeout=5).status_code < 500
        except httpx.HTTPError:
            return False

    def begin(self, experiment: str, sample: str, microscope: str, source: str) -> tuple[str, str]:
        """Make an experiment and a sample and activate it, as commands do: the session and the name of its DAG."""
        (self.folder / microscope / source).mkdir(exist_ok=True)
        self.vitriflow("experiment", "add", experiment, "--title", "Tests")
        self.vitriflow("sample", "add", experiment, sample)
        self.vitriflow(
            "sample", "activate", experiment, sample, "--microscope", microscope, "--source", source
        )

        def look(orm: Any) -> tuple[str, str]:
            row = orm.scalar(select(Session).order_by(Session.id.desc()).limit(1))
            grid = orm.get_one(Sample, row.sample_id)
            return row.key, f"{orm.get_one(Experiment, grid.experiment_id).name}_{grid.id}"

        found: tuple[str, str] = self.read(look)
        return found

    def expose(self, microscope: str, source: str, movie: Path, name: str) -> None:
        """Let a movie appear on a microscope's disk."""
        place = self.folder / microscope / source
        shutil.copy(movie, place / f".{name}")
        (place / f".{name}").rename(place / name)

    def ended(self, session: str, processing: str = "live") -> dict[str, int]:
        """How the exposures of a session stand."""

        def look(orm: Any) -> dict[str, int]:
            query = (
                select(Measure.status)
                .join(Processing, Processing.id == Measure.processing_id)
                .join(Session, Session.id == Processing.session_id)
                .where(Session.key == session, Processing.name == processing)
            )
            found: dict[str, int] = {}
            for status in orm.scalars(query):
                found[status] = found.get(status, 0) + 1
            return found

        counted: dict[str, int] = self.read(look)
        return counted

    def job_of(self, session: str, node: str) -> Path:
        """The folder of a node's files, once the session's processing has begun."""

        def look(orm: Any) -> Processing | None:
            query = select(Processing).join(Session, Session.id == Processing.session_id)
            found: Processing | None = orm.scalar(query.where(Session.key == session))
            return found

        row = until(lambda: self.read(look))
        plan = make_plan(parse_template(row.template, "template"), row.parameters)
        return Path(row.root) / plan[node].folder

    def lots(self, session: str) -> int:
        """How many lots a session's exposures were handed out in."""
        query = (
            select(func.count(Lot.id))
            .join(Processing, Processing.id == Lot.processing_id)
            .join(Session, Session.id == Processing.session_id)
            .where(Session.key == session)
        )
        return int(self.read(lambda orm: orm.scalar(query)))

    def made(self, session: str, node: str, processing: str = "live") -> list[dict[str, Any]]:
        """Present records of a node in a session."""
        query = (
            select(ResultRow.record)
            .join(Processing, Processing.id == ResultRow.processing_id)
            .join(Session, Session.id == Processing.session_id)
            .where(
                Session.key == session,
                Processing.name == processing,
                ResultRow.node == node,
                ResultRow.revision == 1,
            )
        )
        return list(self.read(lambda orm: list(orm.scalars(query))))
