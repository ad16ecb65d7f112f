"""The commands of people, and a researcher's own on another machine, over a real server."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blake3
import pytest
from typer.testing import CliRunner

from tests.databases import new_sqlite
from tests.web.people import PASSWORD, Facility, facility
from vitriflow.catalog import Exposure, now
from vitriflow.cli.app import app
from vitriflow.cli.remote import Server
from vitriflow.errors import BadParameter, VitriflowError

MOVIE = b"0123456789" * 100


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    with facility(tmp_path_factory.mktemp("commands")) as made:
        deep = made.world.root / "raw" / "sub folder"
        deep.mkdir()
        (deep / "b.xml").write_bytes(b"<b/>")

        def prove(orm: Any) -> None:
            orm.add(
                Exposure(
                    session_id=made.world.session_id, key="movie_1.tiff", item="movie_1", path="x",
                    size=len(MOVIE), blake3=blake3.blake3(MOVIE).hexdigest(), first_seen_at=now(),
                )
            )  # fmt: skip

        made.world.catalog.write(prove)
        yield made


@pytest.fixture(autouse=True)
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITRIFLOW_TOKENS", str(tmp_path / "mine" / "tokens.json"))
    monkeypatch.delenv("VITRIFLOW_TOKEN", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "mine" / "tokens.json"


def run(*arguments: object, stdin: str = "", fails: type[Exception] | None = None) -> Any:
    result = CliRunner().invoke(app, [str(one) for one in arguments], input=stdin)
    if fails is not None:
        assert isinstance(result.exception, fails), (result.output, result.exception)
        return result
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


# ---- a researcher elsewhere


def test_a_researcher_signs_in_lists_and_gets_a_session_proved(
    house: Facility, tokens: Path, tmp_path: Path
) -> None:
    run("login", house.address, "--user", "rita", stdin=f"{PASSWORD}\n")
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    assert PASSWORD not in tokens.read_text()
    assert json.loads(run("ls", "--json").stdout) == [{"experiment": "C123", "sessions": 1}]
    assert [one["key"] for one in json.loads(run("ls", "C123", "--json").stdout)] == [house.world.key]
    raw = json.loads(run("ls", f"C123/{house.world.key}/raw", "--json").stdout)
    assert [one["name"] for one in raw] == ["movie_1.tiff", "sub folder/"]
    done = run("get", f"{house.world.key}/raw", "--to", tmp_path / "here", "--parallel", 2)
    assert "2 files fetched" in done.output
    assert "1 checked by BLAKE3" in done.output
    got = tmp_path / "here" / house.world.key / "raw"
    assert (got / "movie_1.tiff").read_bytes() == MOVIE
    assert (got / "sub folder" / "b.xml").read_bytes() == b"<b/>"
    assert "2 were here already" in run("get", f"{house.world.key}/raw", "--to", tmp_path / "here").output


def test_a_download_goes_on_where_it_was_and_wrong_bytes_are_fetched_again(
    house: Facility, tmp_path: Path
) -> None:
    run("login", house.address, "--token", house.tokens["rita"])
    folder = tmp_path / house.world.key / "raw"
    folder.mkdir(parents=True)
    (folder / "movie_1.tiff.part").write_bytes(MOVIE[:600])
    done = run("get", f"{house.world.key}/raw/movie_1.tiff", "--to", tmp_path)
    assert "(400 bytes)" in done.output
    assert (folder / "movie_1.tiff").read_bytes() == MOVIE
    (folder / "movie_1.tiff").write_bytes(b"x" * len(MOVIE))  # right size, wrong bytes
    run("get", f"{house.world.key}/raw/movie_1.tiff", "--to", tmp_path)
    assert (folder / "movie_1.tiff").read_bytes() == MOVIE
    (folder / "movie_1.tiff").unlink()
    (folder / "movie_1.tiff.part").write_bytes(b"x" * 600)  # another file's beginning
    run("get", f"{house.world.key}/raw/movie_1.tiff", "--to", tmp_path)
    assert (folder / "movie_1.tiff").read_bytes() == MOVIE


def test_a_file_that_is_not_the_one_that_was_proved_is_reported_and_not_kept(
    house: Facility, tmp_path: Path
) -> None:
    movie = house.world.root / "raw" / "movie_1.tiff"
    run("login", house.address, "--token", house.tokens["rita"])
    movie.write_bytes(b"y" * len(MOVIE))
    try:
        result = CliRunner().invoke(app, ["get", f"{house.world.key}/raw", "--to", str(tmp_path)])
    finally:
        movie.write_bytes(MOVIE)
    assert result.exit_code == 1
    assert "again and again" in result.output
    assert not (tmp_path / house.world.key / "raw" / "movie_1.tiff").exists()
    assert (tmp_path / house.world.key / "raw" / "sub folder" / "b.xml").exists()


def test_what_is_not_ones_own_is_not_there(house: Facility, tmp_path: Path) -> None:
    run("login", house.address, "--token", house.tokens["rita"])
    run("get", "foreign", "--to", tmp_path, fails=VitriflowError)
    assert run("ls", "X999").stdout.strip() == "Nothing."
    run("ls", "X999/foreign", fails=BadParameter)


def test_a_wrong_password_or_token_says_what_to_do(house: Facility, tokens: Path) -> None:
    run("login", house.address, "--user", "rita", stdin="wrong\n", fails=VitriflowError)
    run("login", house.address, "--token", "vitriflow_forged", fails=VitriflowError)
    assert not tokens.exists()
    with pytest.raises(BadParameter, match="vitriflow login URL"):
        run("ls")


def test_a_token_s_file_that_others_can_read_is_refused(house: Facility, tokens: Path) -> None:
    run("login", house.address, "--token", house.tokens["rita"])
    tokens.chmod(0o644)
    with pytest.raises(BadParameter, match="chmod 600"):
        run("ls")


@pytest.mark.parametrize("url", ["http://cryo.example.org", "ftp://x", "https://", "https://user:word@host"])
def test_an_address_that_would_give_a_token_away_is_refused(url: str) -> None:
    with pytest.raises(BadParameter):
        Server(url)
    assert Server("cryo.example.org").url == "https://cryo.example.org"


# ---- the facility's own machine


@pytest.fixture
def out(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    store.mkdir()
    catalog = new_sqlite(store / "catalog.db")
    catalog.close()
    return store


def test_the_first_administrator_is_added_by_a_command_and_audited(out: Path) -> None:
    made = run("people", "add", "Ada", "--administrator", "--generate", "--out", out)
    assert "Password: " in made.stdout
    found = json.loads(run("people", "list", "--json", "--out", out).stdout)
    assert [(one["login"], one["facility_role"], one["active"]) for one in found] == [
        ("ada", "administrator", True)
    ]
    rows = json.loads(run("audit", "--json", "--out", out).stdout)
    assert [(row["action"], row["subject"]) for row in rows] == [("people.add", "person ada")]
    assert rows[0]["login"].endswith("@command")
    run("people", "change", "ada", "--role", "none", "--out", out, fails=BadParameter)
    run("people", "add", "ada", "--generate", "--out", out, fails=BadParameter)


def test_a_pam_access_file_is_written_by_a_command(house: Facility, tmp_path: Path) -> None:
    config = tmp_path / "facility.toml"
    config.write_text(f'[catalog]\nurl = "sqlite:///{house.world.folder / "catalog.db"}"\n')
    for command in ("join", "leave"):
        run("people", command, "C123", "otto", "-c", config)
    path = tmp_path / "tem1.conf"
    run("access", "--microscope", "tem1", "--write-pam", path, "-c", config)
    assert "+:u_carl:ALL" in path.read_text().splitlines()
    assert "u_rita" not in path.read_text()
    run("access", "--write-pam", path, "-c", config, fails=BadParameter)
