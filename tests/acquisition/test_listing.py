"""Whole folders recognised: real ones, and listings of names as programs write them, with empty files."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from vitriflow.acquisition.listing import Entry, Listing, list_folder
from vitriflow.errors import BadParameter

SQUARE = "Images-Disc1/GridSquare_8999138"
SHOT = "FoilHole_9015883_Data_9017347_6_20250108_154915"
EPU3 = {
    "EpuSession.dm": "session",
    "Metadata/GridSquare_8999138.dm": "session",
    "Sample4/Atlas/Atlas.dm": "atlas",
    "Sample4/Atlas/Atlas_1.mrc": "atlas",
    "Sample4/Atlas/Tile_4590776_1_1.mrc": "atlas",
    f"{SQUARE}/GridSquare_20250108_151151.jpg": "grid_square_image",
    f"{SQUARE}/GridSquare_20250108_151151.xml": "grid_square_image",
    f"{SQUARE}/FoilHoles/FoilHole_9015889_20250108_154715.jpg": "foil_hole_image",
    f"{SQUARE}/FoilHoles/FoilHole_9015889_20250108_154715.xml": "foil_hole_image",
    f"{SQUARE}/Data/{SHOT}_EER.eer": "movie",
    f"{SQUARE}/Data/{SHOT}.mrc": "preview",  # the sum
    f"{SQUARE}/Data/{SHOT}.xml": "metadata",
    f"{SQUARE}/Data/{SHOT}.jpg": "preview",
    "20250101_EER_GainReference.gain": "gain",
    "notes.docx": "unknown",
    ".DS_Store": "unknown",
}
TOMO5 = {
    "Session.dm": "session",
    "Sample1/SearchMaps/SearchMap_1/SearchMap.mrc": "montage",
    "Sample1/SearchMaps/SearchMap_1/Tile_1.mrc": "montage",
    "Sample1/SearchMaps/Overview.mrc": "montage",
    "Sample1/Search map 2.mrc": "montage",
    "Sample1/Position_1_Overview.jpg": "preview",
    "Sample1/Batch/BatchPositionsList.xml": "session",
    "Sample1/Batch/Position_1_Search.mrc": "preview",
    "Sample1/Thumbnails/Position_1.png": "preview",
    "Sample1/Position_1_001_-0.00_20250715_012434_EER.eer": "movie",
    "Sample1/Position_1_002_3.00_20250715_012502_EER.eer": "movie",
    "Sample1/Position_1_2_001_0.00_20250715_013000_fractions.tiff": "movie",
    "Sample1/Position_1.mdoc": "metadata",
    "Sample1/Position_1_override.mdoc": "metadata",
    "Sample1/Position_1_2.mdoc": "metadata",
    "Sample1/Position_1.mrc": "preview",
    "Sample1/lam_3_001_-9.00_20250715_014000_Fractions.mrc": "movie",
    "Sample1/lam_3.mdoc": "metadata",
    "Sample1/lam_3.mrc": "preview",
}
SERIALEM = {
    "grid1.nav": "session",
    "grid1_LMM.mrc": "montage",
    "grid1_LMM.mrc.mdoc": "metadata",
    "grid1_MMM.st": "montage",
    "grid1_maps.mrc": "montage",
    "grid1_tgts.txt": "session",
    "grid1_tgt_001_view.mrc": "preview",
    "TS_01.mrc": "preview",
    "TS_01.mrc.mdoc": "metadata",
    "frames/TS_01_000_0.0_Oct08_07.39.05.tif": "movie",
    "frames/TS_01_001_-3.0_Oct08_07.40.05.tif": "movie",
    "frames/CountRef_TS_01_000.dm4": "gain",
    "frames/defects_TS_01_000.txt": "gain",
    "spa/g1_0042_X+1Y-1-2_Oct08_09.39.05.tif": "movie",
    "spa/g1_0042_X+1Y-1-2_Oct08_09.39.05.tif.mdoc": "metadata",
}


def make(folder: Path, names: dict[str, str]) -> Listing:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return list_folder(folder)


def by_path(listing: Listing) -> dict[str, Entry]:
    return {entry.path: entry for entry in listing.entries}


@pytest.mark.parametrize("names", [EPU3, TOMO5, SERIALEM], ids=["epu", "tomo5", "serialem"])
def test_names_are_enough_where_files_are_empty(tmp_path: Path, names: dict[str, str]) -> None:
    found = by_path(make(tmp_path, names))
    assert {path: entry.kind for path, entry in found.items()} == names


def test_what_belongs_to_an_exposure_of_epu_names_it(tmp_path: Path) -> None:
    found = by_path(make(tmp_path, EPU3))
    item = f"{SQUARE}/Data/{SHOT}_EER"
    mine = [path for path, entry in found.items() if entry.exposure == item]
    assert sorted(mine) == sorted(
        f"{SQUARE}/Data/{SHOT}{end}" for end in ("_EER.eer", ".mrc", ".xml", ".jpg")
    )
    assert Counter(entry.exposure for entry in found.values()) == {item: 4, None: 12}
    movie = found[f"{SQUARE}/Data/{SHOT}_EER.eer"]
    assert (movie.software, movie.grid_square, movie.foil_hole) == ("epu", "8999138", "9015883")
    assert found[f"{SQUARE}/FoilHoles/FoilHole_9015889_20250108_154715.jpg"].foil_hole == "9015889"


def test_tilt_series_of_tomo5_are_told_apart_and_an_override_makes_none(tmp_path: Path) -> None:
    found = by_path(make(tmp_path, TOMO5))
    series = {entry.tilt_series for entry in found.values()} - {None}
    assert series == {"Sample1/Position_1", "Sample1/Position_1_2", "Sample1/lam_3"}
    assert found["Sample1/lam_3.mdoc"].software == "tomo5"
    assert (
        found["Sample1/lam_3.mdoc"].tilt_series == found["Sample1/lam_3.mrc"].tilt_series == "Sample1/lam_3"
    )


def test_frames_and_stack_of_a_series_of_serialem_belong_together(tmp_path: Path) -> None:
    found = by_path(make(tmp_path, SERIALEM))
    mine = [path for path, entry in found.items() if entry.tilt_series == "TS_01"]
    assert len(mine) == 4
    spa = found["spa/g1_0042_X+1Y-1-2_Oct08_09.39.05.tif.mdoc"]
    assert spa.exposure == "spa/g1_0042_X+1Y-1-2_Oct08_09.39.05"
    assert spa.tilt_series is None


def test_the_real_epu_session(real_data: Path) -> None:
    listing = list_folder(real_data / "epu-afis-session")
    assert Counter((entry.kind, entry.software) for entry in listing.entries) == {("metadata", "epu"): 378}
    assert {entry.grid_square for entry in listing.entries} == {"5324661"}
    assert len({entry.foil_hole for entry in listing.entries}) == 63
    assert Counter(Counter(entry.exposure for entry in listing.entries).values()) == {2: 189}
    assert len(listing.optics_groups().groups) == 63
    first = next(entry for entry in listing.entries if not entry.path.endswith("_Fractions.xml")).metadata
    assert first is not None
    assert first["pixel_size_A"] == pytest.approx(0.8708, abs=1e-4)
    assert (first["voltage_kV"], first["nominal_magnification"]) == (300.0, 96000.0)
    assert first["dose_e_per_A2"] == pytest.approx(30.43, abs=0.01)
    assert (first["n_fractions"], first["phase_plate_used"]) == (22, False)
    assert {"beam_shift", "beam_tilt", "image_shift", "stage_x_um", "acquired_at", "software_version"} <= set(
        first
    )


def test_the_real_mdocs(real_data: Path) -> None:
    found = by_path(list_folder(real_data / "mdoc"))
    assert {path: (entry.kind, entry.software, entry.tilt_series) for path, entry in found.items()} == {
        "mdocfile-frame_set_single.mdoc": ("metadata", "serialem", None),
        "mdocfile-montage_section.mdoc": ("metadata", "serialem", None),
        "mdocfile-tilt_series.mdoc": ("metadata", "serialem", "TS_01"),
        "tomo5-Position_12.mdoc": ("metadata", "tomo5", "Position_12"),
    }
    tilts = found["mdocfile-tilt_series.mdoc"].metadata
    assert tilts is not None
    assert (tilts["n_exposures"], tilts["mdoc_kind"], tilts["tilt_axis_deg"]) == (41, "tilt series", 85.3)
    frames = found["mdocfile-frame_set_single.mdoc"]
    assert frames.exposure == "s_mmm_00993_33.0_Oct08_07.39.05"
    assert frames.metadata is not None
    assert (frames.metadata["energy_slit_eV"], frames.metadata["n_fractions"]) == (20.0, 12)


def test_a_movie_finds_its_section_in_the_mdoc_of_its_series(tmp_path: Path, real_data: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    shutil.copyfile(real_data / "mdoc/mdocfile-tilt_series.mdoc", tmp_path / "TS_01.mrc.mdoc")
    for name in ("TS_01_000_0.0.mrc", "TS_01_001_3.0.mrc"):
        (frames / name).write_bytes(b"x")
    (tmp_path / "TS_01.mrc").write_bytes(b"x")
    found = by_path(list_folder(tmp_path))
    movie = found["frames/TS_01_001_3.0.mrc"]
    assert movie.metadata is not None
    assert (movie.tilt_series, movie.metadata["tilt_angle_deg"]) == ("TS_01", pytest.approx(3.00113))
    assert (movie.metadata["metadata_file"], movie.metadata["tilt_order"]) == ("TS_01.mrc.mdoc", 1)
    assert (found["TS_01.mrc"].kind, found["TS_01.mrc"].tilt_series) == ("preview", "TS_01")


def test_frames_of_any_name_find_the_mdoc_that_names_them_among_others(tmp_path: Path) -> None:
    section = "[FrameSet = {n}]\nImageShift = {n}.5 0\nSubFramePath = X:\\d\\{name}\nNumSubFrames = 3\n"
    names = ["erste ψ.tif", "second.tif", "third.tif"]
    text = "".join(section.format(n=n, name=name) for n, name in enumerate(names))
    (tmp_path / "whole session.mdoc").write_text(f"T = SerialEM: here\n\n{text}", encoding="utf-8")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    found = by_path(list_folder(tmp_path))
    for n, name in enumerate(names):
        metadata = found[name].metadata
        assert metadata is not None
        assert (found[name].software, metadata["image_shift"]) == ("serialem", [n + 0.5, 0.0])
        assert found[name].tilt_series is None


def test_a_montage_is_told_by_its_mdoc_whatever_its_name(tmp_path: Path, real_data: Path) -> None:
    shutil.copyfile(real_data / "mdoc/mdocfile-montage_section.mdoc", tmp_path / "whatever.mrc.mdoc")
    (tmp_path / "whatever.mrc").write_bytes(b"x")
    entry = by_path(list_folder(tmp_path))["whatever.mrc"]
    assert (entry.kind, entry.exposure, entry.metadata) == ("montage", None, None)


def test_odd_names_links_and_closed_folders_stop_nothing(tmp_path: Path) -> None:
    bad = bytes(tmp_path) + b"/bad\xff.mrc"
    Path(bad.decode("utf-8", "surrogateescape")).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / ("x" * 200) / ("y" * 200) / ("z" * 200)).mkdir(parents=True)
    (tmp_path / ("x" * 200) / ("y" * 200) / ("z" * 200) / "deep.mrc").touch()
    (tmp_path / "50%25 glucose.mrc").touch()
    os.mkfifo(tmp_path / "fifo.mrc")
    listing = list_folder(tmp_path)
    paths = [entry.path for entry in listing.entries]
    assert "bad%FF.mrc" in paths
    assert "50%25 glucose.mrc" in paths
    assert any(path.endswith("deep.mrc") for path in paths)
    assert not any("loop" in path or "self" in path or "fifo" in path for path in paths)


@pytest.mark.parametrize("what", ["nothing", "a file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x"
    if what == "a file":
        path.touch()
    with pytest.raises(BadParameter, match="a folder that a microscope wrote"):
        list_folder(path)


def test_broken_metadata_is_told_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"x")
    (tmp_path / "a.xml").write_text("<MicroscopeImage><broken")
    (tmp_path / "a.tif.mdoc").write_text("no section here\n")
    found = by_path(list_folder(tmp_path))
    assert found["a.tif"].metadata is not None
    assert len(found["a.tif"].metadata["problems"]) == 2
    assert found["a.xml"].metadata is not None
    assert "line 1" in found["a.xml"].metadata["problems"][0]
