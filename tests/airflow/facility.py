"""A facility with two microscopes whose sessions Airflow conducts, as commands make it."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from tests.facility.command import House, until
from tests.servers import free_port
from vitriflow.catalog import Experiment, Measure, Processing, ResultRow, Sample, Session

TEMPLATE = """\
name: tiny
title: Tiny
nodes:
  align: {step: debug.noop, inputs: {movie: exposure.movie}, set: {write: true}}
  ctf: {step: debug.noop, inputs: {micrograph: align.micrograph}, set: {write: true}}
  pick: {step: debug.noop, inputs: {micrograph: align.micrograph}, set: {write: true}}
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

    def made(self, session: str, node: str) -> list[dict[str, Any]]:
        """Present records of a node in a session."""
        query = (
            select(ResultRow.record)
            .join(Processing, Processing.id == ResultRow.processing_id)
            .join(Session, Session.id == Processing.session_id)
            .where(Session.key == session, ResultRow.node == node, ResultRow.revision == 1)
        )
        return list(self.read(lambda orm: list(orm.scalars(query))))
