"""A microscope whose acquisition software is said: another program's files are told, and taken in."""

from pathlib import Path

from tests.facility.acquiring import Acquiring, frames, write_movie

EPU = "Images-Disc1/GridSquare_1/Data/FoilHole_2_Data_3_4_20261121_101500_Fractions.mrc"
TOLD = "here are files of"


def acquire(folder: Path, software: str, *names: str) -> Acquiring:
    made = Acquiring(folder, mode="in_place", microscopes={"tem1": {"software": software}})
    for number, name in enumerate(names):
        write_movie(made.source / name, frames(number))
    whole_and_told(made, len(names))
    return made


def whole_and_told(made: Acquiring, number: int) -> None:
    """All are taken in; the look that did it is over."""
    with made.running():
        made.until(lambda: [row.state for row in made.exposures().values()] == ["complete"] * number)
        made.until(lambda: made.reports[-1].look.found == number and not made.reports[-1].look.waiting)


def test_another_programs_files_are_told_once_and_taken_in(tmp_path: Path) -> None:
    made = acquire(tmp_path, "serialem", "plain.mrc", EPU, EPU.replace("FoilHole_2", "FoilHole_3"))
    write_movie(made.source / EPU.replace("FoilHole_2", "FoilHole_4"), frames(9))
    whole_and_told(made, 4)  # another process: it knows what was told
    (text,) = [text for text in made.events() if TOLD in text]
    assert "facility.toml says SerialEM (microscopes.tem1.software)" in text
    assert "files of EPU" in text


def test_its_own_files_and_those_that_say_nothing_are_as_expected(tmp_path: Path) -> None:
    made = acquire(tmp_path, "epu", EPU, "plain.mrc")
    assert not [text for text in made.events() if TOLD in text]
