"""The whole way by commands: copied, proved, freed by permit, archived, off the disk, back, and proved again."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from tests.facility.command import House
from tests.facility.conftest import play
from vitriflow.catalog import SourceFile
from vitriflow.cli import app
from vitriflow.simulate import MovieSpec

TEMPLATE = """\
name: nothing
nodes:
  look: {step: debug.noop, inputs: {movie: exposure.movie}}
"""
TINY = MovieSpec(shape=(64, 64), n_frames=3, pixel_size_A=1.5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["serialem"])  # all three: test_custody_end_to_end.py
def test_from_the_microscopes_folder_to_the_archive_and_back(tmp_path: Path, layout: str) -> None:
    (tmp_path / "vault").mkdir()
    settings = f"""
[release]
min_age_h = 0.0
copies = ["disk", "vault"]

[storage.tiers.vault]
path = "{tmp_path / "vault"}"
"""
    house = House(tmp_path / "house", more=settings)
    template = tmp_path / "nothing.yaml"
    template.write_text(TEMPLATE)
    more = {"tilts": 2} if layout == "tomo5" else {}
    played = play(tmp_path / "tem1", layout=layout, exposures=2, movie=TINY, **more)
    source = played.source
    came = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    house.vitriflow("run", source, "--copy", "--once", "--template", template)
    session = house.session()
    raw = Path(session.root) / "raw"

    def say(*words: str) -> Any:
        """What a command answers: in this process, since each start of its own takes seconds."""
        done = CliRunner().invoke(app, [*words, "--json", "--config", str(house.config)])
        assert done.exit_code == 0, f"{done.output}{done.exception!r}"
        return json.loads(done.stdout)

    early = say("release", session.key)
    assert early["dry_run"] is True
    assert early["refused"]["counts"] == {"copies_missing": len(came)}
    assert say("archive", session.key)["files"] == len(came)
    assert say("release", session.key)["files"] == len(came)
    assert {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()} == came
    assert say("release", session.key, "--free")["files"] == len(came)
    assert [path for path in source.rglob("*") if path.is_file()] == []
    assert source.is_dir()

    copied = {str(path.relative_to(raw)): path.read_bytes() for path in raw.rglob("*") if path.is_file()}
    assert copied.keys() == came
    assert say("archive", session.key, "--remove-from-disk")["residence"] == "archived"
    assert not any(path.is_file() for path in raw.rglob("*"))
    assert say("recall", session.key)["residence"] == "both"
    assert {str(p.relative_to(raw)): p.read_bytes() for p in raw.rglob("*") if p.is_file()} == copied
    say("verify", session.key)
    log = [json.loads(line) for line in (house.root / "freed.jsonl").read_text().splitlines()]
    assert {line["key"] for line in log if line["what"] == "freed"} == came
    assert all(row.freed_at is not None for row in house.read(lambda o: list(o.scalars(select(SourceFile)))))
