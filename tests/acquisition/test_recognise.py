from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.acquisition import FileKind, item_of, look, recognise
from vitriflow.acquisition.recognise import metadata_keys, sum_of_movie

DATA = "Images-Disc1/GridSquare_5324661/Data"


@pytest.mark.parametrize(
    ("key", "kind", "software"),
    [
        (f"{DATA}/FoilHole_5_Data_1_2_20231020_234209_Fractions.mrc", FileKind.MOVIE, "epu"),
        (f"{DATA}/FoilHole_5_Data_1_2_20231020_234209_fractions.tiff", FileKind.MOVIE, "epu"),
        (f"{DATA}/FoilHole_5_Data_1_2_20231020_234209_EER.eer", FileKind.MOVIE, "epu"),
        (f"{DATA}/FoilHole_5_Data_1_2_20231020_234209.xml", FileKind.METADATA, "epu"),
        (f"{DATA}/FoilHole_5_Data_1_2_20231020_234209.jpg", FileKind.PREVIEW, "epu"),
        ("Images-Disc1/GridSquare_1/GridSquare_20231020_111111.mrc", FileKind.GRID_SQUARE_IMAGE, "epu"),
        ("Images-Disc1/GridSquare_1/FoilHoles/FoilHole_5_20231020_1.mrc", FileKind.FOIL_HOLE_IMAGE, "epu"),
        ("Sample3/Atlas/Atlas_1.mrc", FileKind.ATLAS, "epu"),
        ("EpuSession.dm", FileKind.SESSION, "epu"),
        ("Position_12_001_-10.00_20231020_234209_EER.eer", FileKind.MOVIE, "tomo5"),
        ("Position_12.mdoc", FileKind.METADATA, "tomo5"),
        ("Position_12_override.mdoc", FileKind.METADATA, "tomo5"),
        ("20231020_EER_GainReference.gain", FileKind.GAIN, ""),
        ("CountRef_Nov21_10.12.mrc", FileKind.GAIN, "serialem"),
        ("SuperRef_x.dm4", FileKind.GAIN, "serialem"),
        ("name_00012_-3.0_date.tif.mdoc", FileKind.METADATA, "serialem"),
        ("grid.st", FileKind.MONTAGE, "serialem"),
        ("ein Bild ü.tif", FileKind.MOVIE, ""),
        ("movie.mrc.tmp", FileKind.TEMPORARY, ""),
        (".hidden.mrc", FileKind.TEMPORARY, ""),
        ("notes.docx", FileKind.UNKNOWN, ""),
    ],
)
def test_names_of_the_field_are_recognised(key: str, kind: FileKind, software: str) -> None:
    found = recognise(key)
    assert (found.kind, found.software) == (kind, software)


def test_every_file_of_a_real_epu_session_is_metadata_of_a_movie(real_data: Path) -> None:
    files = list(look(real_data / "epu-afis-session"))
    assert len(files) == 378
    assert {recognise(file.key).kind for file in files} == {FileKind.METADATA}


def test_metadata_of_a_movie_is_looked_for_under_its_known_names() -> None:
    names = metadata_keys("a/Position_12_001_-10.00_20231020_234209_EER.eer")
    assert "a/Position_12.mdoc" in names
    assert "a/x_Fractions.xml" in metadata_keys("a/x_Fractions.mrc")
    assert "a/x.xml" in metadata_keys("a/x_Fractions.mrc")
    assert "a/x.tif.mdoc" in metadata_keys("a/x.tif")


def test_the_sum_that_epu_leaves_beside_a_movie_is_named_after_it() -> None:
    assert sum_of_movie("a/FoilHole_5_Data_1_Fractions.mrc") == "a/FoilHole_5_Data_1"
    assert sum_of_movie("a/FoilHole_5_Data_1.mrc") is None


@given(st.text(min_size=1, max_size=60))
def test_any_name_gets_an_answer(name: str) -> None:
    assert recognise(name).kind in FileKind
    assert recognise(name + "_Fractions.tiff").kind in FileKind


@given(
    st.from_regex(
        r"FoilHole_[0-9]{1,9}_Data_[0-9_]{1,40}_(Fractions|fractions|FRACTIONS)\.(mrc|tiff|tif)",
        fullmatch=True,
    )
)
def test_any_foil_hole_movie_is_epus(name: str) -> None:
    found = recognise(f"{DATA}/{name}")
    assert (found.kind, found.software) == (FileKind.MOVIE, "epu")
    assert item_of(name) == name.rsplit(".", 1)[0]
