"""Templates by command: looked at, checked, drawn, shared, and launched with their questions answered."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from tests.facility.conftest import play
from vitriflow.catalog import Catalog, Measure, Processing
from vitriflow.cli.app import app
from vitriflow.errors import BadParameter, BadTemplate

ASKING = """name: asking
title: Asks one thing
prompts:
  seconds: {title: How long, unit: s, least: 0, most: 1}
nodes:
  all: {step: debug.noop, inputs: {movie: exposure.movie}}
  flow: {step: trigger, inputs: {micrograph: all.micrograph}, set: {micrographs: 100}}
"""


def run(out: Path, *arguments: object, fails: type[Exception] | None = None) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(out)])
    if fails is not None:
        assert isinstance(result.exception, fails), (result.output, result.exception)
        return result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_a_template_is_cloned_changed_shared_and_found_by_its_name(tmp_path: Path) -> None:
    assert "standard" in run(tmp_path, "template", "list")
    copy = Path(run(tmp_path, "template", "clone", "standard", "ours").strip())
    assert copy.read_text().startswith("# Movies to 2D classes")
    assert "name: ours" in run(tmp_path, "template", "show", "ours")
    assert "ours: sound, 10 nodes" in run(tmp_path, "template", "check", "ours")
    run(tmp_path, "template", "export", "ours", "--to", tmp_path / "file.yaml")
    run(tmp_path, "template", "export", "ours", "--to", tmp_path / "file.yaml", fails=BadParameter)
    run(tmp_path, "template", "import", tmp_path / "file.yaml", fails=BadParameter)
    run(tmp_path, "template", "import", tmp_path / "file.yaml", "--name", "theirs")
    names = [row["name"] for row in json.loads(run(tmp_path, "template", "list", "--json"))]
    assert {"ours", "theirs", "single-particle"} <= set(names)
    run(tmp_path, "template", "clone", "standard", "Not Good", fails=BadParameter)


def test_a_check_says_what_is_asked_and_names_the_line_of_what_is_wrong(tmp_path: Path) -> None:
    assert "has to be given at launch: --set particle_diameter_A" in run(
        tmp_path, "template", "check", "single-particle"
    )
    (tmp_path / "asking.yaml").write_text(ASKING)
    told = run(tmp_path, "template", "check", tmp_path / "asking.yaml")
    assert "asks: How long (seconds): a number in s, at least 0 and at most 1; has to be answered" in told
    (tmp_path / "bad.yaml").write_text(ASKING.replace("debug.noop", "debug.nop"))
    error = run(tmp_path, "template", "check", tmp_path / "bad.yaml", fails=BadTemplate)
    assert "bad.yaml, line 6" in str(error)
    run(tmp_path, "template", "import", tmp_path / "bad.yaml", fails=BadTemplate)
    assert not (tmp_path / "templates").exists()


def test_a_graph_is_drawn_in_three_ways(tmp_path: Path) -> None:
    assert "motion -->|micrograph| pick" in run(
        tmp_path, "template", "graph", "single-particle", "--as", "mermaid"
    )
    assert "  micrograph <- motion.micrograph" in run(tmp_path, "template", "graph", "single-particle")
    drawn = json.loads(run(tmp_path, "template", "graph", "standard", "--as", "json"))
    assert {"from": "flow", "to": "classes", "port": "particles"} in drawn["edges"]
    run(tmp_path, "template", "graph", "standard", "--as", "poem", fails=BadParameter)


def test_a_launch_needs_its_answers_and_then_runs(tmp_path: Path) -> None:
    played = play(tmp_path / "microscope", exposures=1, unique=1)
    (tmp_path / "asking.yaml").write_text(ASKING)
    out = tmp_path / "out"
    launch = ["launch", tmp_path / "asking.yaml", played.source, "--once", "--no-ask"]
    error = run(out, *launch, fails=BadParameter)
    assert "How long (seconds)" in str(error)
    error = run(out, *launch, "--set", "seconds=9", fails=BadParameter)
    assert "at most 1; found 9" in str(error)
    run(out, *launch, "--set", "seconds=0.01")
    catalog = Catalog(f"sqlite:///{next(out.rglob('catalog.db'))}")
    (processing,) = catalog.read(lambda db: list(db.scalars(select(Processing))))
    assert processing.parameters["seconds"] == pytest.approx(0.01)
    assert catalog.read(lambda db: list(db.scalars(select(Measure.status)))) == ["done"]
    catalog.close()
