"""mdoc and EPU metadata: units, dates, and what people are told of broken files."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitriflow.errors import BadFile, Reason
from vitriflow.formats import names_from_path, read_epu_xml, read_mdoc, read_star

SQUARE = "epu-afis-session/Images-Disc1/GridSquare_5324661/Data"
EPU = "FoilHole_5330589_Data_5338216_5338218_20200206_172047.xml"


def test_an_epu_file_is_turned_from_si_units_into_ours(real_data: Path) -> None:
    found = read_epu_xml(real_data / SQUARE / EPU)
    assert found.problems == []
    assert found.pixel_size_A == pytest.approx(0.87076783)
    assert found.voltage_kV == 300
    assert found.nominal_magnification == 96000
    assert found.dose_e_per_A2 == pytest.approx(30.416976)
    assert found.dose_on_camera_e_per_px == pytest.approx(23.0632654)
    assert found.nominal_defocus_A == pytest.approx(22_500)
    assert found.exposure_time_s == pytest.approx(33.3949338)
    assert (found.n_fractions, found.frames_per_fraction, found.n_raw_frames) == (22, 59, 1298)
    assert found.dose_per_frame_e_per_A2 == pytest.approx(30.416976 / 22)
    assert found.beam_shift == pytest.approx((-0.116279021, 0.0628276244))
    assert found.beam_tilt == pytest.approx((0.00563613698, 0.0262890831))
    assert found.image_shift == (0, 0)
    assert found.stage_x_um == pytest.approx(-222.8117)
    assert found.stage_alpha_deg == pytest.approx(0.009998775)
    assert (found.binning, found.super_resolution_factor, found.phase_plate_used) == (1, 1, False)
    assert (found.software, found.software_version) == ("EPU", "2.6.0.59")
    assert (found.camera, found.microscope) == ("BM-Falcon", "TITAN52334290")
    assert (found.grid_square, found.foil_hole, found.position) == ("5324661", "5330589", "5338216_5338218")
    zone = timezone(timedelta(hours=1))
    assert found.acquired_at == datetime(2020, 2, 6, 17, 20, 48, 10953, tzinfo=zone)
    assert found.energy_slit_eV is None


def test_what_the_camera_recorded_is_read_from_the_fractions(real_data: Path) -> None:
    found = read_epu_xml(real_data / SQUARE / EPU.replace(".xml", "_Fractions.xml"))
    assert found.problems == []
    assert (found.n_fractions, found.frames_per_fraction) == (22, 59)
    assert found.exposure_time_s == pytest.approx(22 * 1.47045708, rel=1e-4)
    assert (found.detector, found.image_width, found.image_height) == ("Falcon-3", 4096, 4096)
    assert found.acquired_at is not None
    assert found.acquired_at.utcoffset() == timedelta(hours=1)


def test_every_file_of_a_real_session_is_read_without_a_problem(real_data: Path) -> None:
    files = sorted((real_data / SQUARE).glob("*.xml"))
    found = [read_epu_xml(path) for path in files]
    assert len(found) == 378
    assert not [f.source for f in found if f.problems]
    full = [f for f in found if f.voltage_kV is not None]
    assert len(full) == 189
    assert {f.grid_square for f in full} == {"5324661"}
    assert all(f.nominal_defocus_A is not None and 4_000 < f.nominal_defocus_A < 40_000 for f in full)


def _epu(body: str, data: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects" xmlns:a="x">'
        f"<CustomData>{data}</CustomData>{body}</MicroscopeImage>"
    )


def test_overfocus_stays_negative_and_a_date_without_zone_stays_without(tmp_path: Path) -> None:
    pair = "<a:Key>AppliedDefocus</a:Key><a:Value>1.5E-06</a:Value>"
    pair = f"<a:KeyValueOfstringanyType>{pair}</a:KeyValueOfstringanyType>"
    body = (
        "<microscopeData><acquisition><acquisitionDateTime>2023-05-06T07:08:09</acquisitionDateTime>"
        "</acquisition></microscopeData>"
    )
    (tmp_path / "a.xml").write_text(_epu(body, pair))
    found = read_epu_xml(tmp_path / "a.xml")
    assert found.nominal_defocus_A == -15_000
    assert found.acquired_at == datetime(2023, 5, 6, 7, 8, 9)


def test_fractions_of_newer_cameras_are_counted(tmp_path: Path) -> None:
    settings_ = (
        "<a:KeyValueOfstringanyType><a:Key>FractionationSettings</a:Key>"
        "<a:Value><a:NumberOffractions>50</a:NumberOffractions></a:Value></a:KeyValueOfstringanyType>"
    )
    body = f"<microscopeData><acquisition><camera><CameraSpecificInput>{settings_}</CameraSpecificInput>"
    (tmp_path / "a.xml").write_text(_epu(body + "</camera></acquisition></microscopeData>"))
    assert read_epu_xml(tmp_path / "a.xml").n_fractions == 50


@pytest.mark.parametrize(("inserted", "expected"), [("true", 20.0), ("false", None)])
def test_the_energy_slit_counts_only_when_it_is_in(
    tmp_path: Path, inserted: str, expected: float | None
) -> None:
    body = (
        f"<microscopeData><optics><EnergyFilter><EnergySelectionSlitInserted>{inserted}"
        "</EnergySelectionSlitInserted><EnergySelectionSlitWidth>20</EnergySelectionSlitWidth>"
        "</EnergyFilter></optics></microscopeData>"
    )
    (tmp_path / "a.xml").write_text(_epu(body))
    assert read_epu_xml(tmp_path / "a.xml").energy_slit_eV == expected


def test_a_camera_that_recorded_less_than_planned_is_a_problem(tmp_path: Path) -> None:
    fraction = (
        "<Fraction><Index>{}</Index><NumberOfFrames>9</NumberOfFrames><Checksum>{}</Checksum></Fraction>"
    )
    fractions = fraction.format(0, "Valid") + fraction.format(1, "Invalid")
    info = "<Info><ExpectedNumberOfFractions>3</ExpectedNumberOfFractions></Info>"
    (tmp_path / "a.xml").write_text(f"<Acquisition>{info}<Fractions>{fractions}</Fractions></Acquisition>")
    found = read_epu_xml(tmp_path / "a.xml")
    assert (found.n_fractions, found.n_raw_frames) == (2, 18)
    assert found.problems == [
        "3 fractions were expected and 2 recorded",
        "the camera calls the checksum of fraction 1 invalid",
    ]


def test_frames_counted_in_two_ways_must_agree(tmp_path: Path) -> None:
    (tmp_path / "a.mdoc").write_text(
        "[FrameSet = 0]\nNumSubFrames = 12\nFrameDosesAndNumber = 0.5 10\nExposureDose = 5\n"
    )
    assert read_mdoc(tmp_path / "a.mdoc").exposures[0].problems == [
        "NumSubFrames says 12, FrameDosesAndNumber 10"
    ]


def test_a_value_that_makes_no_sense_is_a_problem_not_an_end(tmp_path: Path) -> None:
    body = (
        "<microscopeData><gun><AccelerationVoltage>many</AccelerationVoltage></gun><optics>"
        "<TemMagnification><NominalMagnification>81000</NominalMagnification></TemMagnification>"
        "</optics></microscopeData>"
    )
    (tmp_path / "a.xml").write_text(_epu(body))
    found = read_epu_xml(tmp_path / "a.xml")
    assert found.nominal_magnification == 81000
    assert found.voltage_kV is None
    assert found.problems == [
        "microscopeData/gun/AccelerationVoltage says 'many', which isn't what belongs there"
    ]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><MicroscopeImage>&b;</MicroscopeImage>'
FETCH = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><MicroscopeImage>&a;</MicroscopeImage>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<MicroscopeImage>\n<CustomData>\n</MicroscopeImage>", "line 3: mismatched tag"),
        ("<MicroscopeImage>\n<CustomData>\n", "line 3: no element found"),
        (BOMB, "document type"),
        (FETCH, "document type"),
        ("<html></html>", "first element is 'html'"),
        ("<a>" * 500, "nested"),
        ('<?xml version="1.0" encoding="utfQ8"?><MicroscopeImage/>', "unknown encoding"),
    ],
    ids=["mismatched", "cut", "bomb", "fetch", "html", "deep", "encoding"],
)
def test_broken_or_hostile_xml_is_refused_and_the_line_is_said(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(BadFile, match=words) as caught:
        read_epu_xml(tmp_path / "a.xml")
    assert caught.value.reason is Reason.METADATA_BROKEN
    assert "passwd" not in str(caught.value)


def test_an_empty_xml_and_an_empty_mdoc_say_so(tmp_path: Path) -> None:
    for name, read in (("a.xml", read_epu_xml), ("a.mdoc", read_mdoc)):
        (tmp_path / name).write_text(" \r\n")
        with pytest.raises(BadFile) as caught:
            read(tmp_path / name)
        assert caught.value.reason is Reason.EMPTY


def test_a_frame_set_of_serialem_is_one_exposure(real_data: Path) -> None:
    mdoc = read_mdoc(real_data / "mdoc" / "mdocfile-frame_set_single.mdoc")
    assert (mdoc.kind, len(mdoc.exposures), mdoc.problems) == ("frame set", 1, [])
    found = mdoc.exposures[0]
    assert found.problems == []
    assert found.software == "SerialEM"
    assert found.microscope == "UMass_Krios Camera -> 0:Ceta 1:GIF-K3"
    assert (found.voltage_kV, found.pixel_size_A) == (300, 1.2827)
    assert found.nominal_defocus_A == 45_000  # TargetDefocus, not the lens reading Defocus
    assert (found.dose_e_per_A2, found.n_fractions) == (7.65892, 12)
    assert found.dose_per_frame_e_per_A2 == 0.63824
    assert found.acquired_at == datetime(2021, 10, 8, 7, 39, 8)
    assert found.movie_name == "s_mmm_00993_33.0_Oct08_07.39.05.tif"
    assert found.gain_reference == "SuperRef_s_mmm_00000_-15.0_Oct08_01.59.24.dm4"
    assert found.energy_slit_eV == 20
    assert found.image_shift == (2.69654, -0.304661)
    assert found.tilt_angle_deg == 32.984
    assert (found.stage_x_um, found.stage_y_um, found.stage_z_um) == (-142.82, -457.442, -13.7196)
    assert found.tilt_axis_deg == pytest.approx(88.414)


def test_a_tilt_series_of_serialem_keeps_its_order_and_axis(real_data: Path) -> None:
    mdoc = read_mdoc(real_data / "mdoc" / "mdocfile-tilt_series.mdoc")
    assert (mdoc.kind, mdoc.image_file) == ("tilt series", "TS_01.mrc")
    assert [e.tilt_order for e in mdoc.exposures] == list(range(41))
    assert mdoc.exposures[1].movie_name == "TS_01_001_3.0.mrc"
    assert mdoc.exposures[1].tilt_angle_deg == pytest.approx(3.00113)
    assert mdoc.exposures[0].dose_e_per_A2 is None  # SerialEM's 0 means: not known
    assert mdoc.exposures[0].acquired_at == datetime(2015, 11, 30, 15, 21, 38)
    assert {e.tilt_axis_deg for e in mdoc.exposures} == {85.3}
    assert {e.n_fractions for e in mdoc.exposures} == {8}


def test_a_montage_is_told_from_a_tilt_series(real_data: Path) -> None:
    mdoc = read_mdoc(real_data / "mdoc" / "mdocfile-montage_section.mdoc")
    assert mdoc.kind == "montage"
    assert len(mdoc.exposures) == 63


def test_tomo_5_dates_are_year_first_and_its_one_eer_frame_is_not_believed(real_data: Path) -> None:
    mdoc = read_mdoc(real_data / "mdoc" / "tomo5-Position_12.mdoc")
    assert mdoc.kind == "tilt series"
    found = mdoc.exposures[1]
    assert found.software == "Tomo 5"
    assert found.acquired_at == datetime(2022, 2, 4, 23, 2, 39)
    assert found.n_fractions is None
    assert found.dose_per_frame_e_per_A2 is None
    assert (found.dose_e_per_A2, found.prior_dose_e_per_A2) == (2.07, 2.07)
    assert found.nominal_defocus_A == 55_000
    assert found.position == "Position_12"
    assert found.movie_name == "Position_12_002_-12.00_20231020_234233_EER.eer"
    assert found.tilt_axis_deg == -84.23


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("08-Oct-2021  07:39:08", (2021, 10, 8)),
        ("2022-Feb-04  23:02:05", (2022, 2, 4)),
        ("30-Nov-15  15:14:20", (2015, 11, 30)),
        ("2024-03-05 10:11:12", (2024, 3, 5)),
        ("yesterday", None),
        ("99-Foo-99  01:02:03", None),
    ],
)
def test_dates_of_every_habit_are_read(
    tmp_path: Path, text: str, expected: tuple[int, int, int] | None
) -> None:
    (tmp_path / "a.mdoc").write_text(f"T = SerialEM: here  \n\n[FrameSet = 0]\nDateTime = {text}\n")
    found = read_mdoc(tmp_path / "a.mdoc").exposures[0]
    if expected is None:
        assert found.acquired_at is None
        assert "isn't a date" in found.problems[0]
    else:
        assert found.acquired_at is not None
        assert (found.acquired_at.year, found.acquired_at.month, found.acquired_at.day) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello\n", "no section"),
        ("PixelSpacing = 1\n\n[ZValue = 0]\nTiltAngle = north\n", "line 4: TiltAngle"),
        ("[ZValue = 0]\nTiltAngle 3\n", "line 2: 'TiltAngle 3'"),
        ("PixelSpacing\n[ZValue = 0]\n", "line 1"),
        ("[ZValue = 0]\nStagePosition = 1\n", "line 2: StagePosition"),
    ],
)
def test_a_broken_mdoc_is_refused_and_the_line_is_said(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.mdoc").write_text(text)
    with pytest.raises(BadFile, match=words) as caught:
        read_mdoc(tmp_path / "a.mdoc")
    assert caught.value.reason is Reason.METADATA_BROKEN


def test_a_doubled_movie_and_latin_1_names_are_met(tmp_path: Path) -> None:
    section = "[ZValue = {}]\r\nTiltAngle = {}\r\nSubFramePath = D:\\M\xfcller\\a_{}.tif\r\n\r\n"
    text = "".join(section.format(i, 10 * i, min(i, 1)) for i in range(3))
    (tmp_path / "a.mdoc").write_bytes(text.encode("latin-1"))
    mdoc = read_mdoc(tmp_path / "a.mdoc")
    assert mdoc.kind == "tilt series"
    assert mdoc.exposures[2].movie_name == "a_1.tif"
    assert mdoc.problems == ["1 movies are named more than once, first a_1.tif"]


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_damaged_metadata_raise_nothing_but_bad_file(
    tmp_path: Path, real_data: Path, data: st.DataObject
) -> None:
    sources = {
        "a.mdoc": real_data / "mdoc" / "tomo5-Position_12.mdoc",
        "b.mdoc": real_data / "mdoc" / "mdocfile-frame_set_single.mdoc",
        "c.xml": real_data / SQUARE / EPU,
        "d.star": real_data / "empiar-10204-relion5/MotionCorr/20170629_00021_frameImage.star",
    }
    name = data.draw(st.sampled_from(sorted(sources)))
    raw = bytearray(sources[name].read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=5)):
        raw[position] = data.draw(st.sampled_from(b"\0\n =<>[]0A-.\xff\"'#_"))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    path = tmp_path / name
    path.write_bytes(raw)
    read = {"mdoc": read_mdoc, "xml": read_epu_xml, "star": read_star}[name[2:]]
    try:
        read(path)
    except BadFile as error:
        text = str(error)
    else:
        text = ""
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            f"GridSquare_77/Data/{EPU}",
            {"grid_square": "77", "foil_hole": "5330589", "position": "5338216_5338218"},
        ),
        ("FoilHole_12_Data_34_35_20240102_030405_EER.eer", {"foil_hole": "12", "position": "34_35"}),
        ("Position_12_001_-10.00_20231020_234209_EER.eer", {"position": "Position_12"}),
        ("Position_12_3_001_10.00_20231020_234209_EER.eer", {"position": "Position_12_3"}),
        ("movies/grid1_0042.tif", {}),
    ],
)
def test_names_give_square_hole_and_position(path: str, expected: dict[str, str]) -> None:
    assert names_from_path(Path(path)) == expected
