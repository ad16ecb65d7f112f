"""``vitriflow step``: single steps by hand, and the JSON that scripts rely on."""

import csv
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Processed
from tests.facility.command import House
from tests.facility.conftest import STRONG
from vitriflow.formats import read_star
from vitriflow.steps import find_step, step_names

ALWAYS = {"status", "reason", "seconds", "peak_memory_bytes"}
CTF = {
    "defocus_u_A", "defocus_v_A", "defocus_angle_deg", "phase_shift_deg", "fit_resolution_A", "cross_correlation",
}  # fmt: skip
MOTION = {"frame_shifts_A", "early_A", "late_A", "total_A", "micrograph", "power_spectrum", "motion"}
PICKS = {"coordinates", "n_picks"}


def test_list_shows_every_step_with_what_it_does(house: House) -> None:
    shown = house.vitriflow("step", "list").stdout
    for name in step_names():
        assert name in shown
        assert find_step(name).summary[:40] in shown


@pytest.mark.parametrize("name", ["motion.native", "ctf.native", "pick.dog", "preview"])
def test_describe_names_ports_and_parameters_with_their_meaning(house: House, name: str) -> None:
    shown = house.vitriflow("step", "describe", name).stdout
    step = find_step(name)
    for word in (*step.inputs, *step.outputs, *step.Parameters.model_fields):
        assert word in shown


def test_parameters_carry_the_same_names_in_all_steps() -> None:
    fields = {name: find_step(name).Parameters.model_fields for name in step_names()}
    optics = {"pixel_size_A", "voltage_kV", "spherical_aberration_mm", "amplitude_contrast"}
    assert optics | {"input"} <= fields["ctf.native"].keys()
    assert {"pixel_size_A", "voltage_kV", "dose_per_frame_e_per_A2"} <= fields["motion.native"].keys()
    assert {"pixel_size_A", "particle_diameter_A"} <= fields["pick.dog"].keys()


@pytest.mark.slow
def test_motion_ctf_and_picks_by_hand_one_after_the_other(processed: Processed, house: House) -> None:
    movie = processed.played.source / processed.sound
    optics = ("--set", "pixel_size_A=1.5", "--set", "voltage_kV=200")
    given = ("--set", "dose_per_frame_e_per_A2=3", "--set", f"gain_reference={processed.played.gain}")
    (motion,) = house.json("step", "run", "motion.native", movie, "--out", "out", *optics, *given)
    assert motion.keys() >= ALWAYS | MOTION
    assert motion["status"] == "done"
    assert motion["reason"] is None
    assert motion["file"] == str(movie)
    assert motion["seconds"] > 0
    assert motion["peak_memory_bytes"] > 10 * 1024**2
    shifts = motion["frame_shifts_A"]
    assert (len(shifts), {len(pair) for pair in shifts}) == (STRONG.n_frames, {2})
    assert shifts[0] == [0.0, 0.0]
    assert motion["total_A"] == pytest.approx(motion["early_A"] + motion["late_A"], rel=1e-3)
    for port in ("micrograph", "power_spectrum", "motion"):
        assert Path(motion[port]).is_relative_to(house.folder / "out")
        assert Path(motion[port]).is_file()

    (ctf,) = house.json(
        "step", "run", "ctf.native", motion["power_spectrum"], "--out", "out",
        "--set", "input=power_spectrum", *optics,
    )  # fmt: skip
    assert ctf.keys() >= ALWAYS | CTF
    assert ctf["status"] == "done"
    assert 14000 < ctf["defocus_v_A"] <= ctf["defocus_u_A"] < 21000

    (picks,) = house.json(
        "step", "run", "pick.dog", motion["micrograph"], "--out", "out", "--set", "particle_diameter_A=120"
    )
    assert picks.keys() >= ALWAYS | PICKS
    table = next(iter(read_star(Path(picks["coordinates"])).values()))
    assert len(table) == picks["n_picks"] > 5


@pytest.mark.slow
def test_real_power_spectra_give_the_defocus_that_relion_found(real_data: Path, house: House) -> None:
    data = real_data / "empiar-10204-relion5"
    with (data / "ctf_reference.csv").open(encoding="utf-8") as stream:
        truth = {Path(row["micrograph"]).stem: row for row in csv.DictReader(stream)}
    files = sorted((data / "MotionCorr").glob("*_PS.mrc"))[:3]
    records = house.json(
        "step", "run", "ctf.native", *files, "--out", "out", "--set", "input=power_spectrum",
        "--set", "pixel_size_A=1.4", "--set", "voltage_kV=200", "--set", "spherical_aberration_mm=1.4",
    )  # fmt: skip
    assert [record["file"] for record in records] == [str(path) for path in files]
    for path, record in zip(files, records, strict=True):
        row = truth[path.name.removesuffix("_frameImage_PS.mrc")]
        assert record["status"] == "done"
        assert record["defocus_u_A"] == pytest.approx(float(row["defocus_u_A"]), abs=80)
        assert record["defocus_v_A"] == pytest.approx(float(row["defocus_v_A"]), abs=80)


@pytest.mark.slow
def test_a_bad_file_among_good_ones_has_its_record_and_the_exit_code_says_so(
    processed: Processed, house: House
) -> None:
    source = processed.played.source
    files = (source / processed.truncated, source / processed.sound, house.folder / "nothing.mrc")
    records = house.json(
        "step", "run", "motion.native", *files, "--out", "out", "--set", f"gain_reference={processed.played.gain}",
        "--set", "patches_y=0", expect=1,
    )  # fmt: skip
    assert [record["status"] for record in records] == ["quarantined", "done", "quarantined"]
    assert [record["reason_code"] for record in records] == ["file.truncated", None, "file.vanished"]
    assert all(record["reason"] for record in records if record["status"] != "done")


@pytest.mark.slow
def test_standard_output_is_nothing_but_json_and_without_it_reads_as_text(
    processed: Processed, house: House
) -> None:
    movie = processed.played.source / processed.sound
    call = ("step", "run", "debug.noop", movie, "--out", "out")
    done = house.vitriflow(*call, "--json")
    assert isinstance(json.loads(done.stdout), list)
    assert house.vitriflow(*call).stdout.startswith("done ")


def test_an_unknown_step_names_those_there_are(house: House) -> None:
    done = house.vitriflow("step", "run", "motion.nativ", "a.mrc", "--out", "out", expect=2, here=True)
    assert "motion.native" in done.stderr


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("particle_diameter=120", "particle_diameter_A"),
        ("particle_diameter_A=big", "valid number"),
        ("particle_diameter_A=-3", "greater than 20"),
        ("particle_diameter_A", "KEY=VALUE"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_known(house: House, setting: str, words: str) -> None:
    done = house.vitriflow(
        "step", "run", "pick.dog", "a.mrc", "--out", "o", "--set", setting, expect=2, here=True
    )
    assert words in done.stderr


def test_a_folder_that_cannot_be_written_is_told_before_any_work(house: House) -> None:
    (house.folder / "taken").write_text("a file")
    call = ("step", "run", "debug.noop", "a.mrc", "--out", "taken/out")
    assert "can be written" in house.vitriflow(*call, expect=2, here=True).stderr
