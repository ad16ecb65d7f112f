"""simulate and demo: a microscope that isn't there, and the whole judged against its truth."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.facility.command import House, until

pytestmark = pytest.mark.slow
SMALL = ("--shape", "192x256", "--frames", "4", "--format", "mrc")


def test_simulate_writes_movies_and_their_truth_and_says_where(house: House) -> None:
    done = house.vitriflow("simulate", "play", "--exposures", "2", "--name", "Süd 1", *SMALL)
    folder = house.folder / "play" / "microscope" / "Süd 1"
    movies = sorted(folder.rglob("*_Fractions.mrc"))
    assert len(movies) == 2
    for movie in movies:
        truth = json.loads((house.folder / "play" / "truth" / f"{movie.stem}.json").read_text())
        assert truth["fault"] is None
        assert movie.with_suffix(".xml").is_file()
    for word in ("2 movies in play/microscope/Süd 1", "GainReference.mrc", "play/truth"):
        assert word in done.stdout


def test_simulate_refuses_what_it_cannot_play_in_words(house: House) -> None:
    assert "--shape" in house.vitriflow("simulate", "play", "--shape", "big", expect=2).stderr
    refused = house.vitriflow("simulate", "play", "--layout", "epu", "--tilts", "3", *SMALL, expect=2)
    assert "EPU doesn't tilt" in refused.stderr


def test_an_interrupted_microscope_stops_cleanly_and_leaves_a_movie_cut_off(house: House) -> None:
    call = ("simulate", "play", "--exposures", "9", "--every", "1", "--write-seconds", "20", *SMALL)
    with house.running(*call) as process:
        until(lambda: list((house.folder / "play").rglob("*_Fractions.mrc")))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    (movie,) = (house.folder / "play").rglob("*_Fractions.mrc")
    assert house.vitriflow("validate", movie, expect=1)
    assert not (house.folder / "play" / ".pool").exists()


def test_the_demo_ends_by_itself_within_its_tolerances(house: House) -> None:
    done = house.vitriflow("demo", "--exposures", "1", "--every", "1", "--once", "--out", "demo")
    assert re.search(r"Open http://127\.0\.0\.1:[1-9]\d*/sessions/demo", done.stdout)
    assert "All results are within their tolerances." in done.stdout
    assert "p50" in done.stdout
    rows = [line for line in done.stdout.splitlines() if "yes" in line.split()]
    assert len(rows) == 1
    assert (house.folder / "demo" / "results" / "catalog.db").is_file()


def test_the_demo_replaces_its_own_folder_and_no_other(house: House) -> None:
    theirs = house.folder / "thesis"
    theirs.mkdir()
    (theirs / "chapter1.tex").write_text("years of work")
    refused = house.vitriflow("demo", "--once", "--out", theirs, expect=2)
    assert "a demo made" in refused.stderr
    assert [p.name for p in Path(theirs).iterdir()] == ["chapter1.tex"]
