"""A YAML file alone makes a program a step; a wrong one is told with its line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.facility.command import House
from tests.steps.programs.cases import Made
from tests.steps.programs.standin import StandIn
from vitriflow.cli import app
from vitriflow.errors import BadTemplate
from vitriflow.formats import read_coordinates
from vitriflow.steps import (
    Artifact,
    Kind,
    PickResult,
    Status,
    find_step,
    make_parameters,
    run_step,
    step_names,
)
from vitriflow.steps.base import Context
from vitriflow.steps.programs import broken_files
from vitriflow.steps.programs.described import read_description

MINE = """\
name: pick.mine
summary: Our own picker
kind: pick
program: mine
executables: [mine]
version_of: {pattern: 'mine (\\d+\\.\\d+)'}
parameters:
  threshold: {type: float, unit: sigma, default: 1.5, least: 0, most: 9, meaning: least score}
  fast: {type: bool, default: false, meaning: quick and rough}
  note: {type: text, meaning: any text}
  way: {type: choice, choices: [log, dog], default: dog, meaning: how}
command:
  - --in={input}
  - -t
  - '{threshold}'
  - {when: fast, arguments: [--fast]}
  - {unless: fast, arguments: [--slow, '{way}']}
  - {when: note, arguments: ['{note}']}
outputs:
  coordinates: {file: '{stem}.box', reader: box}
"""


@pytest.fixture
def folder(tmp_path: Path, configure: Callable[[str], Path]) -> Path:
    place = tmp_path / "programs"
    place.mkdir()
    (place / "mine.yaml").write_text(MINE)
    configure(f"[programs]\nfolder = 'programs'\nmine = {str(tmp_path / 'bin' / 'mine')!r}\n")
    return place


def test_a_file_in_the_facilitys_folder_is_a_step_like_any_other(
    folder: Path, made: Made, tmp_path: Path
) -> None:
    boxes = made.file("mine.box", "".join(f"{x - 10:.0f}\t{y - 10:.0f}\t20\t20\n" for y, x in made.picks_yx))
    program = StandIn(tmp_path / "bin", "mine").tell(says="mine 2.1", files={"micrograph.box": boxes})
    assert "pick.mine" in step_names()
    step = find_step("pick.mine")
    odd = "a b; $(touch oops) {threshold}"
    values = {"particle_diameter_A": 80, "note": odd, "fast": True, "threshold": 2}
    record = run_step(
        step,
        {"micrograph": Artifact(kind=Kind.MICROGRAPH, path=made.micrograph)},
        make_parameters("pick.mine", step.Parameters, values),
        Context(tmp_path / "out", "m"),
    )
    assert (record.status, record.reason) == (Status.DONE, None)
    assert program.calls == [["--in=micrograph.mrc", "-t", "2", "--fast", odd]]
    assert isinstance(record, PickResult)
    assert (record.n_picks, record.threshold, record.program) == (len(made.picks_yx), 2.0, "mine 2.1")
    yx, _ = read_coordinates(record.outputs["coordinates"].path)
    assert abs(yx - made.picks_yx).max() <= 1.0


def test_a_changed_file_is_read_again_and_a_broken_one_does_not_stop_the_others(folder: Path) -> None:
    assert find_step("pick.mine").summary == "Our own picker"
    (folder / "mine.yaml").write_text(MINE.replace("Our own picker", "Another now"))
    (folder / "broken.yaml").write_text(
        MINE.replace("kind: pick", "kind: pik").replace("pick.mine", "pick.broken")
    )
    (folder / "twice.yaml").write_text(MINE)
    assert find_step("pick.mine").summary == "Another now"
    wrong = broken_files()
    assert set(wrong) == {"broken.yaml", "twice.yaml"}
    assert "line 3" in str(wrong["broken.yaml"])
    with pytest.raises(BadTemplate, match="line 3"):
        find_step("pick.broken")


@pytest.mark.parametrize(
    ("old", "new", "line", "found"),
    [
        ("kind: pick\n", "kind: pick\ncolour: red\n", 4, "a known name"),
        ("name: pick.mine", "name: Mine", 1, "a name such as"),
        ("type: float", "type: number", 8, "number"),
        ("'{threshold}'", "'{treshold}'", 15, "treshold"),
        ("'{threshold}'", "'{threshold!r}'", 15, "a plain name"),
        ("'{threshold}'", "'{threshold.__class__}'", 15, "a plain name"),
        ("'{threshold}'", "'{threshold'", 15, "braces"),
        ("when: fast", "when: quick", 16, "quick"),
        ("when: fast", "when: fast, unless: fast", 16, "either when or unless"),
        ("reader: box", "reader: ctffind", 20, "a reader of"),
        ("reader: box", "pattern: '(x)(y)'", 20, "one group"),
        ("  coordinates:", "  shifts:", 20, "one of coordinates"),
        ("executables: [mine]\n", "", 1, "nothing"),
        ("executables: [mine]", "executables: [mine", 6, "YAML"),
        (
            "version_of: {pattern: 'mine (\\d+\\.\\d+)'}",
            "version_of: {pattern: '(('}",
            6,
            "regular expression",
        ),
        ("summary: Our own picker", "name: pick.mine", 2, "each name once"),
        ("default: 1.5, ", "default: 1.5, required: true, ", 8, "either required or a default"),
    ],
)
def test_a_wrong_file_names_its_line(old: str, new: str, line: int, found: str) -> None:
    assert old in MINE
    with pytest.raises(BadTemplate) as caught:
        read_description(MINE.replace(old, new, 1), "mine.yaml")
    assert f"mine.yaml, line {line}" in str(caught.value)
    assert found in str(caught.value)


def test_shells_have_no_place_in_it() -> None:
    with pytest.raises(BadTemplate, match="command"):
        read_description(MINE.replace("command:\n", "command: mine -x | tee\nrest:\n"), "mine.yaml")


def test_the_commands_list_describe_and_run_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path / "house")
    boxes = made.file("one.box", "90 90 20 20\n")
    program = StandIn(tmp_path / "bin", "mine").tell(says="mine 2.1", files={"micrograph.box": boxes})
    (house.folder / "programs").mkdir()
    (house.folder / "programs" / "mine.yaml").write_text(MINE)
    (house.folder / "programs" / "bad.yaml").write_text("name: pick.bad\n")
    section = f"[programs]\nfolder = 'programs'\nmine = {str(program.path)!r}\n"
    house.config.write_text(f"{house.config.read_text()}\n{section}")
    monkeypatch.setenv("VITRIFLOW_CONFIG", str(house.config))
    listed = " ".join(CliRunner().invoke(app, ["step", "list"]).output.split())
    assert "pick.mine" in listed
    assert "motion.unblur" in listed
    assert "bad.yaml" in listed
    assert "(sigma)" in CliRunner().invoke(app, ["step", "describe", "pick.mine"]).output
    words = ["--out", str(tmp_path / "out"), "--set", "particle_diameter_A=80", "--json"]
    done = house.vitriflow("step", "run", "pick.mine", str(made.micrograph), *words).stdout
    assert '"n_picks": 1' in done
    assert '"program": "mine 2.1"' in done
