import os
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from tests.facility.acquiring import frames, write_movie
from tests.facility.command import House, until
from tests.facility.conftest import QUICK
from vitriflow.catalog import Processing
from vitriflow.config import Config, MicroscopeSection
from vitriflow.facility.doctor import Health
from vitriflow.facility.doctor_microscopes import check_microscopes
from vitriflow.facility.gains import choose_gain, keep_gain
from vitriflow.formats import write_mrc


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    path = tmp_path / "movie.mrc"
    write_movie(path, frames())
    return path


def reference(folder: Path, name: str, *, age_h: float, side: int = 64, value: float = 1.0) -> Path:
    """A gain reference whose share's clock may be anywhere: only differences count."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    write_mrc(path, np.full((side, side), value, np.float32), pixel_size_A=1.0)
    moment = 2_000_000_000 - age_h * 3600
    os.utime(path, (moment, moment))
    return path


def test_the_newest_reference_that_fits_is_chosen(tmp_path: Path, movie: Path) -> None:
    gains = tmp_path / "gains"
    scope = MicroscopeSection(gain_folder=gains)
    assert choose_gain(scope, movie) is None
    old = reference(gains, "old.mrc", age_h=10)
    new = reference(gains / "2026", "new.mrc", age_h=5)
    reference(gains, "other mode.mrc", age_h=1, side=32)
    reference(gains, "dark.mrc", age_h=0.5, value=0.0)
    (gains / "half written.mrc").write_bytes(b"\0" * 100)
    assert choose_gain(scope, movie) == new
    assert choose_gain(scope, movie, {"gain_reference": r"X:\gains\old.mrc"}) == old


def test_a_camera_of_its_own_folder_uses_only_that(tmp_path: Path, movie: Path) -> None:
    mine = reference(tmp_path / "k3", "mine.mrc", age_h=10)
    other = reference(tmp_path / "falcon", "other.mrc", age_h=1)
    cameras = {
        "k3": {"names": ["EF-CCD"], "gain_folder": tmp_path / "k3"},
        "falcon": {"names": ["Falcon"], "gain_folder": tmp_path / "falcon"},
    }
    scope = MicroscopeSection.model_validate({"cameras": cameras})
    assert choose_gain(scope, movie, {"camera": "EF-CCD"}) == mine
    assert choose_gain(scope, movie, {"detector": "BM-Falcon"}) == other
    assert choose_gain(scope, movie) == other


def test_the_reference_is_kept_with_the_session(tmp_path: Path) -> None:
    path = reference(tmp_path / "gains", "gain.mrc", age_h=1)
    kept = keep_gain(path, tmp_path / "session" / "gain")
    assert kept.read_bytes() == path.read_bytes()
    path.unlink()
    assert keep_gain(path, tmp_path / "session" / "gain") == kept
    assert [entry.name for entry in kept.parent.iterdir()] == ["gain.mrc"]


def test_the_doctor_says_of_each_microscope_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    scope = {
        "voltage_kV": 300,
        "sources": [tmp_path / "share", tmp_path / "unmounted"],
        "gain_folder": tmp_path / "no gains",
        "drives": {"X:": tmp_path / "no drive"},
        "cameras": {"k3": {"pixel_sizes_A": {"81000": 1.06}}},
        "defects": tmp_path / "no defects.txt",
    }
    found = list(check_microscopes(Config.model_validate({"microscopes": {"tem1": scope}})))
    assert "300 kV; Cs by default; k3 (1 calibrated magnifications)" in found[0].text
    assert "files are copied" in found[0].text
    bad = " ".join(one.text for one in found if one.health == Health.BAD)
    for missing in ("unmounted", "no gains", "drive X:", "no defects.txt"):
        assert missing in bad
    assert all(one.remedy for one in found if one.health != Health.GOOD)
    assert any("not on a mounted share" in one.text for one in found) or (tmp_path / "share").is_mount()


def test_run_chooses_the_newest_that_fits_the_first_movie_and_keeps_to_it(tmp_path: Path) -> None:
    gains, source = tmp_path / "gains", tmp_path / "source"
    chosen = reference(gains, "fits.mrc", age_h=5)
    reference(gains, "other mode.mrc", age_h=1, side=32)
    house = House(tmp_path / "house", more=f'[microscopes.tem1]\ngain_folder = "{gains}"\n')
    template = house.folder / "quick.yaml"
    template.write_text(QUICK, encoding="utf-8")
    typed = ("run", source, "--template", template)
    source.mkdir()
    with house.running(*typed):
        until(lambda: "results in" in house.said)
        assert house.read(lambda orm: list(orm.scalars(select(Processing)))) == []  # it waits for a movie
        write_movie(source / "first.mrc", frames(1))
        until(lambda: house.exposures() and len(house.outcomes()) == 1)
    reference(gains, "newer.mrc", age_h=0)
    write_movie(source / "second.mrc", frames(2))
    house.vitriflow(*typed, "--once")
    (processing,) = house.read(lambda orm: list(orm.scalars(select(Processing))))
    kept = Path(processing.parameters["gain_reference"])
    assert kept.read_bytes() == chosen.read_bytes()
    assert kept.parent == Path(house.session().root) / "gain"
    assert (house.counts().exposures.came_in, house.counts().reconciles) == (2, True)
    assert len([text for text in house.events() if text.startswith("Gain reference: ")]) == 1


def test_a_folder_of_broken_movies_alone_is_dealt_with_without_a_reference(tmp_path: Path) -> None:
    gains, source = tmp_path / "gains", tmp_path / "source"
    reference(gains, "fits.mrc", age_h=5)
    source.mkdir()
    (source / "broken.mrc").write_bytes(b"\1" * 2000)
    house = House(tmp_path / "house", patience_s=0.5, more=f'[microscopes.tem1]\ngain_folder = "{gains}"\n')
    house.vitriflow(
        "run", source, "--once", "--template", "single-particle", "--set", "particle_diameter_A=120"
    )
    assert house.counts().exposures.quarantined == 1
