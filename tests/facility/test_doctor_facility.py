"""``doctor --facility``: what machines share, each with what to do."""

import socket
from pathlib import Path

import pytest

from tests.facility.command import House
from tests.steps.programs.standin import StandIn
from vitriflow.config import Config
from vitriflow.facility.doctor_facility import check_collector, check_database, check_shares
from vitriflow.facility.doctor_programs import check_programs
from vitriflow.facility.findings import Finding, Health


def config_of(tmp_path: Path, **sections: object) -> Config:
    return Config.model_validate({"storage": {"root": str(tmp_path)}, **sections})


def only(findings: object) -> Finding:
    (found,) = list(findings)  # type: ignore[call-overload]
    assert isinstance(found, Finding)
    return found


def test_the_command_checks_it_all_and_exits_with_one_when_something_is_wrong(house: House) -> None:
    house.config.write_text(house.config.read_text() + "\n[programs]\nctffind4 = '/nowhere/ctffind'\n")
    house.root.mkdir(exist_ok=True)
    said = house.vitriflow("doctor", "--facility", expect=1).stdout
    assert "program CTFFIND 4" in said
    assert "/nowhere/ctffind" in said
    assert "[programs] ctffind4 = '/path/to/it'" in said
    assert "share storage.root" in said
    assert "SQLite" in said
    assert "1 thing to put right" in said


def test_programs_are_found_with_their_versions_and_wrong_ones_told(tmp_path: Path) -> None:
    new = StandIn(tmp_path / "a", "topaz").tell(version_arguments=("--version",), version="TOPAZ 0.2.5")
    old = StandIn(tmp_path / "b", "cryolo").tell(version_arguments=("--version",), version="cryolo 1.0.1")
    named = {"topaz": str(new.path), "cryolo": str(old.path), "typo": "/x"}
    found = {one.subject: one for one in check_programs(config_of(tmp_path, programs=named))}
    assert found["program Topaz"].health is Health.GOOD
    assert "0.2.5 (for pick.topaz)" in found["program Topaz"].text
    assert found["program crYOLO"].health is Health.BAD
    assert "any_version = true" in found["program crYOLO"].remedy
    assert found["program typo"].health is Health.NOTE
    assert "not installed" in found["outside programs"].text


def test_a_broken_yaml_program_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "mine.yaml").write_text("name: pick.mine\nkind: pick\nsummry: oops\n")
    (tmp_path / "facility.toml").write_text("[programs]\nfolder = 'programs'\n")
    monkeypatch.setenv("VITRIFLOW_CONFIG", str(tmp_path / "facility.toml"))
    found = [one for one in check_programs(config_of(tmp_path)) if one.subject == "YAML program"]
    assert "line " in only(found).text


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    url = f"postgresql+psycopg://vitriflow:secret@127.0.0.1:{port}/vitriflow"
    finding = only(check_database(config_of(tmp_path, catalog={"url": url})))
    assert finding.health is Health.BAD
    assert "Start PostgreSQL" in finding.remedy
    assert "secret" not in finding.text


def test_shares_that_are_missing_are_told(tmp_path: Path) -> None:
    good = list(check_shares(config_of(tmp_path)))
    assert [one.health for one in good] == [Health.GOOD]
    gone = config_of(tmp_path / "gone", programs={"folder": str(tmp_path / "nothing")})
    assert [one.health for one in check_shares(gone)] == [Health.BAD, Health.BAD]


def test_a_collector_is_asked_for(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert only(check_collector(config_of(tmp_path, logs={"syslog": address}))).health is Health.GOOD
    assert only(check_collector(config_of(tmp_path, logs={"syslog": address}))).health is Health.BAD
    assert not list(check_collector(config_of(tmp_path)))
