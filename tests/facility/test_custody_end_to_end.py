"""Sessions of each layout, from the microscope's folder to the archive and back, by a newcomer's commands alone."""

import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from tests.facility.command import House, until
from tests.facility.conftest import QUICK, STRONG, Played, play
from vitriflow.catalog import Exposure, FileState, Measure, OpticsGroup, Session, SourceFile
from vitriflow.cli import app

LAYOUTS: dict[str, dict[str, int]] = {
    "epu": {"exposures": 1},
    "serialem": {"exposures": 1},
    "tomo5": {"exposures": 1, "tilts": 2},
}
MICROSCOPE = """
[microscopes.{name}]
sources = ["{source}"]
mode = "copy"
voltage_kV = 200.0
"""
MORE = """
[release]
min_age_h = 0.0

[storage.tiers.vault]
kind = "directory"
path = "{vault}"
"""


class Facility:
    """Three microscopes, one of each software, and an archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "vault").mkdir()
        self.played = {name: self._play(name) for name in LAYOUTS}
        scopes = [MICROSCOPE.format(name=name, source=folder / name) for name in LAYOUTS]
        self.house = House(folder / "house", more="".join([*scopes, MORE.format(vault=folder / "vault")]))
        self.house.reconfigure('copies = ["disk", "vault"]\n')
        self.template = self.house.folder / "quick.yaml"
        self.template.write_text(QUICK, encoding="utf-8")
        self.written = {name: contents(folder / name / "session") for name in LAYOUTS}

    def _play(self, name: str) -> Played:
        played = play(self.folder / "played" / name, layout=name, unique=1, movie=STRONG, **LAYOUTS[name])
        shutil.copytree(played.source, self.folder / name / "session")
        return played

    def say(self, *arguments: object) -> str:
        """A command as a person types it; run in this process, where starting one is all it would add."""
        result = CliRunner().invoke(app, [*map(str, arguments), "--config", str(self.house.config)])
        assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception}"
        return result.stdout

    def session(self, name: str) -> Session:
        return self.house.read(lambda orm: orm.scalars(select(Session).where(Session.key == name)).one())

    def rows(self, table: Any, name: str) -> list[Any]:
        number = self.session(name).id
        return self.house.read(lambda orm: list(orm.scalars(select(table).where(table.session_id == number))))


def contents(folder: Path) -> dict[str, bytes]:
    """What each file below a folder holds."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_from_the_microscopes_folder_to_the_archive_and_back(tmp_path: Path) -> None:
    facility = Facility(tmp_path)
    for name, played in facility.played.items():
        settings = ("--template", facility.template, "--set", f"gain_reference={played.gain}")
        facility.say("start", "-m", name, "--source", "session", "--session", name, *settings)
    facility.house.vitriflow("acquire", "--once")
    facility.house.vitriflow("process", "--once")
    for name in LAYOUTS:
        facility.say("stop", name)
        check_taken_in(facility, name)
    check_pages(facility)
    for name in LAYOUTS:
        check_freed_archived_and_recalled(facility, name)


def check_taken_in(facility: Facility, name: str) -> None:
    """Every file is copied and proved, every movie an exposure with a known optics group, and processed."""
    assert contents(Path(facility.session(name).root) / "raw") == facility.written[name]
    assert {row.state for row in facility.rows(SourceFile, name)} == {FileState.PROVED}
    exposures = facility.rows(Exposure, name)
    assert len(exposures) == len(facility.played[name].report.movies)
    groups = {group.number for group in facility.rows(OpticsGroup, name)}
    assert groups
    assert {row.optics_group for row in exposures} <= groups
    ids = [row.id for row in exposures]
    query = select(Measure.status).where(Measure.exposure_id.in_(ids))
    assert facility.house.read(lambda orm: list(orm.scalars(query))) == ["done"] * len(ids)
    facility.say("verify", name)


def answers(pages: httpx.Client) -> bool:
    """Whether the server listens."""
    try:
        return pages.get("/api/health").status_code == 200
    except httpx.TransportError:
        return False


def check_pages(facility: Facility) -> None:
    """Exposures with their optics groups, and latencies, as the pages' own server gives them."""
    with facility.house.running("serve", "--port", 0):
        address = until(lambda: re.search(r"http://[0-9.]+:\d+", facility.house.said)).group()
        with httpx.Client(base_url=address, timeout=120) as pages:
            until(lambda: answers(pages))  # it says where before it listens
            for name in LAYOUTS:
                detail = pages.get(f"/api/sessions/{name}").json()
                number = len(facility.played[name].report.movies)
                assert detail["summary"]["counts"]["done"] == number
                assert detail["spans"]["proved"]["n"] == number
                found = pages.get(f"/api/sessions/{name}/exposures").json()["exposures"]
                assert len(found) == number
                assert "optics group" in pages.get(f"/sessions/{name}/exposures/{found[0]['id']}").text


def check_freed_archived_and_recalled(facility: Facility, name: str) -> None:
    source, raw = facility.folder / name / "session", Path(facility.session(name).root) / "raw"
    assert "copies_missing" in facility.say("release", name, "--free", "--verbose")
    assert contents(source) == facility.written[name]  # not before it's archived
    facility.say("archive", name)
    facility.say("release", name)
    assert contents(source) == facility.written[name]  # that was a dry run
    facility.say("release", name, "--free")
    assert contents(source) == {}
    facility.say("archive", name, "--remove-from-disk")
    assert contents(raw) == {}
    assert facility.session(name).residence == "archived"
    facility.say("recall", name)
    assert contents(raw) == facility.written[name]
    facility.say("verify", name)
    assert facility.session(name).residence == "both"
