"""The elogbook as an operator types it."""

import json
from pathlib import Path

import pytest

from tests.facility.command import House

SOURCES = '[microscopes.tem1]\nsources = ["{folder}/tem1"]\n'


@pytest.fixture
def house(tmp_path: Path) -> House:
    (tmp_path / "tem1" / "grid_a").mkdir(parents=True)
    return House(tmp_path / "house", more=SOURCES.format(folder=tmp_path))


def test_an_experiment_its_samples_and_a_session_from_the_command_line(house: House, tmp_path: Path) -> None:
    house.vitriflow("experiment", "add", "cm1", "--title", "Ribosomes", "--starts", "2026-05-01")
    house.vitriflow("sample", "add", "cm1", "s1", "--set", "particle_diameter_A=150", "--set", "symmetry=C3")
    house.vitriflow("sample", "edit", "cm1", "s1", "--set", "symmetry=null", "--title", "70S")
    house.vitriflow("sample", "clone", "cm1", "s1", "s2")
    key = house.vitriflow("sample", "activate", "cm1", "s2", "--source", "grid_a").stdout.strip()
    samples = {one["name"]: one for one in house.json("sample", "list", "cm1")}
    assert samples["s1"]["settings"] == samples["s2"]["settings"] == {"particle_diameter_A": 150.0}
    assert (samples["s2"]["state"], samples["s2"]["active_session"]) == ("active", key)
    notes = tmp_path / "notes.txt"
    notes.write_text("see here", encoding="utf-8")
    house.vitriflow("log", "write", "cm1", "Ice is **thin**", "--tag", "ice", "--file", notes)
    log = house.json("log", "list", "cm1")
    assert [one["automatic"] for one in log] == [False, True]
    assert log[0]["files"][0]["name"] == "notes.txt"
    (experiment,) = house.json("experiment", "list")
    assert (experiment["samples"], experiment["active"]) == (2, 1)
    refused = house.vitriflow("experiment", "edit", "cm1", "--state", "closed", expect=2)
    assert key in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sample", "add", "none", "s1"), "experiment 'none'"),
        (("experiment", "add", "a b"), "experiment's name"),
        (("experiment", "add", "x", "--starts", "soon"), "--starts"),
        (("log", "write", "none", "x", "--file", "/no/such"), "/no/such"),
    ],
)
def test_what_cannot_be_is_refused_by_name(house: House, arguments: tuple[str, ...], named: str) -> None:
    assert named in house.vitriflow(*arguments, expect=2).stderr


def test_the_form_lists_every_parameter_with_what_it_does(house: House) -> None:
    fields = {one["name"]: one for one in json.loads(house.vitriflow("sample", "form", "--json").stdout)}
    assert fields["particle_diameter_A"]["required"]
    assert fields["n_frames"]["acts"] == "check"
