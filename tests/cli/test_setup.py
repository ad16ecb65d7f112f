"""init, doctor, facility.toml and --set: setting up, and being told what is wrong."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vitriflow
from tests.facility.command import House


def test_version_and_help_answer(house: House) -> None:
    assert house.vitriflow("--version", here=False).stdout.strip() == vitriflow.__version__
    assert "doctor" in house.vitriflow("--help").stdout


def test_init_writes_a_configuration_that_doctor_accepts(house: House) -> None:
    house.config.unlink()
    house.vitriflow("init")
    assert tomllib.loads(house.config.read_text(encoding="utf-8"))["facility"]["name"]
    done = house.vitriflow("doctor")
    assert "All good." in done.stdout


def test_init_keeps_a_configuration_that_is_there(house: House) -> None:
    before = house.config.read_text()
    assert "--force" in house.vitriflow("init", expect=2).stderr
    assert house.config.read_text() == before
    house.vitriflow("init", "--force")
    assert house.config.read_text() != before


def test_doctor_finds_a_missing_gain_and_too_many_gpus_and_says_what_to_do(house: House) -> None:
    text = house.config.read_text().replace("gpus = []", "gpus = [0, 97]")
    house.config.write_text(f'{text}\n[microscopes.tem1]\ngain_reference = "gone.mrc"\n')
    done = house.vitriflow("doctor", expect=1).stdout
    assert f"gain_reference: no file {house.folder / 'gone.mrc'}" in done
    assert "microscopes.tem1.gain_reference" in done
    assert "compute.gpus asks for [0, 97]" in done
    assert "nvidia-smi" in done
    assert "2 things to put right" in done


def test_doctor_finds_a_storage_root_that_cannot_be_written_and_a_disk_that_is_too_full(house: House) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root writes everywhere without setpriv")
    house.root.mkdir()
    house.root.chmod(0o500)
    house.reconfigure(f"reserve_bytes = {2**60}")
    house.prefix = (
        ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    )
    try:
        done = house.vitriflow("doctor", expect=1).stdout
    finally:
        house.root.chmod(0o700)
    assert "Permission denied" in done
    assert "right to write there" in done
    assert "reserve_bytes" in done


def test_doctor_finds_a_database_that_does_not_answer_and_hides_its_password(house: House) -> None:
    url = "postgresql+psycopg://vitriflow:secret@127.0.0.1:9/none"
    house.config.write_text(f'{house.config.read_text()}\n[catalog]\nurl = "{url}"\n')
    done = house.vitriflow("doctor", expect=1)
    assert "127.0.0.1:9/none" in done.stdout
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ("[compute]\nworkers = 0\n", 2, "greater than or equal to 1"),
        ("[storage]\n\nrot = 'x'\n", 3, "reserve_bytes"),
        ("[web]\nport = 'high'\n", 2, "valid integer"),
        ("[microscopes.tem1]\nvoltage_kV = -1\n", 2, "greater than 0"),
        ("[storage]\nroot = \n", 2, "TOML"),
    ],
)
def test_an_error_in_the_configuration_names_its_line(
    house: House, lines: str, line: int, words: str
) -> None:
    house.config.write_text(lines)
    done = house.vitriflow("status", expect=2)
    assert f"line {line}" in done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) < 4  # a message, no traceback


def test_a_configuration_that_is_not_there_is_told(house: House) -> None:
    done = house.vitriflow("status", "--config", "elsewhere.toml", expect=2, here=False)
    assert "vitriflow init" in done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("particle_diametr_A=150",), ("particle_diametr_A", "particle_diameter_A", "gain_reference")),
        (("particle_diameter_A=150", "particle_diameter_A=160"), ("each parameter once",)),
        (("particle_diameter_A=wide",), ("particle_diameter_A", "valid number")),
        ((), ("particle_diameter_A", "longest extent")),
    ],
)
def test_a_run_with_a_wrong_or_missing_parameter_is_refused_before_it_makes_anything(
    house: House, settings: tuple[str, ...], words: tuple[str, ...]
) -> None:
    source = house.folder / "movies"
    source.mkdir()
    given = [part for setting in settings for part in ("--set", setting)]
    done = house.vitriflow("run", source, "--once", *given, expect=2)
    for word in words:
        assert word in done.stderr
    assert not (house.root / "catalog.db").exists() or house.json("status") == []


def test_a_template_that_is_not_there_names_those_that_are(house: House) -> None:
    (house.folder / "movies").mkdir()
    done = house.vitriflow("run", "movies", "--once", "--template", "tomography", expect=2)
    assert "single-particle" in done.stderr


def test_an_empty_folder_is_done_at_once(house: House) -> None:
    (house.folder / "movies").mkdir()
    house.vitriflow("run", "movies", "--once", "--set", "particle_diameter_A=100")
    (entry,) = house.json("status")
    assert entry["counts"]["came_in"] == 0
    assert entry["state"] == "closed"


def test_validate_says_what_files_are_and_what_is_wrong(house: House) -> None:
    good, bad = house.config, house.folder / "bad.mrc"
    bad.write_bytes(b"no movie at all" * 100)
    done = house.vitriflow("validate", bad, expect=1)
    assert "not good" in done.stdout
    (record,) = house.json("validate", bad, expect=1)
    assert record["problems"]
    assert house.vitriflow("validate", good, house.folder / "nothing.mrc", expect=1).stdout


def test_the_command_is_installed_under_its_name() -> None:
    command = shutil.which("vitriflow", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == vitriflow.__version__
