"""One session with everything wrong that a microscope, a share or a person can do to files.

Each bad file is set aside with a code and a sentence; everything else goes on.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.facility.command import House
from tests.facility.conftest import Played, play
from vitriflow.formats import TiffWriter, read_star
from vitriflow.simulate import Fault

pytestmark = pytest.mark.slow

SPOILT = {
    Fault.TRUNCATED: "file.truncated",
    Fault.EMPTY: "file.empty",
    Fault.GARBAGE: "file.unreadable",
    Fault.ZEROS: "image.all_zero",
    Fault.CONSTANT: "image.constant",
    Fault.NAN: "image.not_finite",
    Fault.WRONG_SIZE: "gain.wrong_size",
}
HARMLESS = (Fault.NO_METADATA, Fault.BAD_METADATA, Fault.DUPLICATE)
STRANGE = "Gitter 1 (süß)/Probe ß 电镜 #1%.mrc"
TWIN = "plain/twin.mrc", "plain/twin.tif"


@dataclass(frozen=True)
class Spoilt:
    """A session full of faults that was processed, and which movie has which."""

    played: Played
    house: House
    faulty: dict[Fault, str]
    sound: list[str]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Spoilt:
    folder = tmp_path_factory.mktemp("spoilt")
    faults = [*SPOILT, *HARMLESS]
    number = len(faults) + 1
    played = play(folder, exposures=number, unique=1, faults=dict.fromkeys(faults, 1 / number))
    source = played.source
    keys = {w.exposure.fault: str(w.movie.relative_to(source)) for w in played.report.movies}
    sound = source / keys[None]
    shutil.copy(sound, _folder(source / STRANGE))
    with TiffWriter(_folder(source / TWIN[1]), "lzw", 1.5) as writer:
        for _ in range(8):
            writer.write(np.ones((64, 64), np.uint8))
    shutil.copy(sound, source / TWIN[0])  # the fresher one is looked at first
    (source / "a folder called movie.mrc").mkdir()
    (source / "nowhere.mrc").symlink_to(source / "what was never written.mrc")
    house = House(folder / "house")
    house.vitriflow("run", source, "--once", *played.settings)
    faulty = {fault: keys[fault] for fault in faults}
    return Spoilt(played, house, faulty, [keys[None], STRANGE, *(keys[fault] for fault in HARMLESS)])


def _folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_all_is_accounted_for(spoilt: Spoilt) -> None:
    counts = spoilt.house.counts()
    assert counts.reconciles
    assert counts.arriving == 0
    assert counts.exposures.open == counts.exposures.failed == 0
    assert counts.exposures.quarantined == len(SPOILT) + 1  # and one of the twins
    assert counts.exposures.came_in == len(spoilt.faulty) + 1 + 1 + 1 + 2  # sound, again, strange, twins


@pytest.mark.parametrize("fault", SPOILT)
def test_a_bad_movie_is_set_aside_with_its_reason(spoilt: Spoilt, fault: Fault) -> None:
    status, code, why = spoilt.house.outcomes()[spoilt.faulty[fault]]
    assert (status, code) == ("quarantined", SPOILT[fault])
    assert why is not None
    assert len(why.split()) > 2  # words, not a code


def test_reasons_say_what_was_expected_and_what_was_found(spoilt: Spoilt) -> None:
    reasons = {fault: spoilt.house.outcomes()[key][2] or "" for fault, key in spoilt.faulty.items()}
    assert "frames" in reasons[Fault.TRUNCATED]
    assert "is empty" in reasons[Fault.EMPTY]
    assert "512 x 480" in reasons[Fault.WRONG_SIZE]
    assert "512 x 512" in reasons[Fault.WRONG_SIZE]
    assert "NaN" in reasons[Fault.NAN]


def test_everything_else_goes_on(spoilt: Spoilt) -> None:
    outcomes = spoilt.house.outcomes()
    assert {key: outcomes[key][0] for key in spoilt.sound} == dict.fromkeys(spoilt.sound, "done")


def test_of_two_files_that_would_share_results_one_is_taken(spoilt: Spoilt) -> None:
    outcomes = spoilt.house.outcomes()
    statuses = {key: outcomes[key][:2] for key in TWIN}
    (late,) = [key for key, (_, code) in statuses.items() if code == "file.duplicate_name"]
    (first,) = set(TWIN) - {late}
    assert first in (outcomes[late][2] or "")
    assert statuses[first][1] != "file.duplicate_name"


def test_a_copy_of_a_movie_in_another_folder_is_an_exposure_of_its_own(spoilt: Spoilt) -> None:
    name = Path(spoilt.faulty[Fault.DUPLICATE]).name
    copies = [key for key in spoilt.house.outcomes() if Path(key).name == name]
    assert len(copies) == 2
    assert {spoilt.house.outcomes()[key][0] for key in copies} == {"done"}
    outputs = [spoilt.house.records("motion")[key]["outputs"]["micrograph"]["path"] for key in copies]
    assert len(set(outputs)) == 2


def test_names_with_blanks_and_other_scripts_keep_their_names_and_reach_relion_by_plain_ones(
    spoilt: Spoilt,
) -> None:
    made = Path(spoilt.house.records("motion")[STRANGE]["outputs"]["micrograph"]["path"])
    assert made.is_file()
    assert made.stem == Path(STRANGE).stem
    (star,) = (spoilt.house.project / "CtfFind").glob("*/micrographs_ctf.star")
    assert '"' not in star.read_text(encoding="ascii")


def test_each_good_movie_is_in_the_relion_project_or_people_are_told_why_not(spoilt: Spoilt) -> None:
    (star,) = (spoilt.house.project / "CtfFind").glob("*/micrographs_ctf.star")
    table = read_star(star)
    listed = len(table["micrographs"])
    told = {event.split(": ")[1] for event in spoilt.house.events() if event.startswith("Not in the RELION")}
    assert listed + len(told) == spoilt.house.counts().exposures.done
    # A movie at a guessed voltage never shares a group with the others.
    volts = dict(zip(table["optics"]["rlnOpticsGroup"], table["optics"]["rlnVoltage"], strict=True))
    of = dict(
        zip(table["micrographs"]["rlnMicrographName"], table["micrographs"]["rlnOpticsGroup"], strict=True)
    )
    used = {
        f"MotionCorr/job002/{key}": record["provenance"]["parameters"]["voltage_kV"]
        for key, record in spoilt.house.records("ctf").items()
    }
    compared = {name: (float(volts[group]), used[name]) for name, group in of.items() if name in used}
    assert len(compared) >= 5
    assert all(written == taken for written, taken in compared.values())


def test_a_movie_without_metadata_is_processed_and_says_what_it_did_not_know(spoilt: Spoilt) -> None:
    key = spoilt.faulty[Fault.NO_METADATA]
    motion, ctf = spoilt.house.records("motion")[key], spoilt.house.records("ctf")[key]
    assert motion["pixel_size_A"] == pytest.approx(1.5, rel=1e-3)  # the movie's own header
    assert not motion["dose_weighted"]
    assert any("dose" in warning for warning in motion["warnings"])
    assert ctf["quality"] == "doubtful"  # at a voltage that nobody said
    assert ctf["provenance"]["parameter_sources"]["voltage_kV"] == "default"


def test_broken_metadata_is_told_and_the_movie_processed_with_what_the_other_file_says(
    spoilt: Spoilt,
) -> None:
    key = spoilt.faulty[Fault.BAD_METADATA]
    row = spoilt.house.exposures()[key]
    assert any("xml" in problem.lower() for problem in row.details["problems"])
    assert spoilt.house.outcomes()[key][0] == "done"


def test_folders_and_dead_links_named_like_movies_are_no_exposures(spoilt: Spoilt) -> None:
    keys = spoilt.house.exposures()
    assert not [key for key in keys if "folder called" in key or "nowhere" in key]


def test_status_tells_each_of_them_in_words(spoilt: Spoilt) -> None:
    key = spoilt.house.session().key
    text = spoilt.house.vitriflow("status", key).stdout
    for fault, code in SPOILT.items():
        assert spoilt.faulty[fault] in text, code
    assert "would overwrite each other" in text
