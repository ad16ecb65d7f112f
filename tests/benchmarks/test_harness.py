"""The harness measures what it says, and results are read as they were meant."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.inputs import Case, make_movie
from benchmarks.measure import Failed, Spread, Turn, Usage, alternate, measure, on_cores
from benchmarks.motion import Error, field_error
from benchmarks.report import BEGIN, END, goals, goals_table, write_docs

from benchmarks import peers
from vitriflow.formats import write_star
from vitriflow.kernels.motion_field import MotionField
from vitriflow.simulate import MotionSpec, MovieSpec, simulate_movie

SPEC = MovieSpec(
    shape=(384, 512), n_frames=5, pixel_size_A=1.3, dose_per_frame_e_per_A2=2.0, n_views=4,
    motion=MotionSpec(settling_A=6, doming_A=4), seed=3,
)  # fmt: skip
HOLD = "import subprocess,sys;subprocess.run([sys.executable,'-c','import time;b=bytearray(300<<20);time.sleep(.8)'])"


def test_memory_of_a_programs_children_counts() -> None:
    usage = measure([sys.executable, "-c", HOLD])
    assert 300e6 < usage.peak_bytes < 600e6


def test_cpu_time_of_a_program_is_its_own_not_its_waiting() -> None:
    busy = measure([sys.executable, "-c", "import time\nt=time.process_time\nwhile t()<.5: pass"])
    idle = measure([sys.executable, "-c", "import time;time.sleep(.5)"])
    assert busy.cpu_s >= 0.5
    assert idle.cpu_s < 0.4
    assert idle.wall_s >= 0.5


def test_a_program_that_fails_is_told_with_its_own_words() -> None:
    with pytest.raises(Failed, match="no such movie"):
        measure([sys.executable, "-c", "raise SystemExit('no such movie')"])
    assert measure([sys.executable, "-c", "raise SystemExit(1)"], allowed=(0, 1)).returncode == 1


def test_programs_are_held_to_their_cores_and_we_are_not_afterwards() -> None:
    before = os.sched_getaffinity(0)
    said = measure([sys.executable, "-c", "import os;print(len(os.sched_getaffinity(0)))"], cores=1)
    assert said.stdout.strip() == b"1"
    with on_cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_programs_take_turns_and_every_second_round_goes_backwards() -> None:
    order = []

    def turn(name: str, number: int) -> Turn:
        order.append(name)
        return Turn(Usage(float(number), 0.0, 0, 0, b"", b""))

    series = alternate({name: lambda n, name=name: turn(name, n) for name in "ab"}, 3)
    assert "".join(order) == "abbaab"
    assert series["a"].wall() == Spread(1.0, 0.0, 2.0, 3)
    assert series["a"].wall().text() == "1.0 (0.0..2.0)"


def test_the_true_motion_has_no_error_and_what_all_frames_share_blurs_nothing() -> None:
    truth = simulate_movie(SPEC).truth
    coefficients = truth.motion.local_coefficients_px.copy()
    coefficients[:, :, 0] += truth.motion.global_shifts_px
    assert field_error(MotionField(coefficients, SPEC.shape), truth) == Error(
        pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9)
    )
    coefficients[:, 1, :3] += 3.0  # the same at all times, different from place to place
    assert field_error(MotionField(coefficients, SPEC.shape), truth) == Error(
        pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9)
    )
    coefficients[1:, 1, 0] += 1.0
    # four of five frames 1 px off along one of two axes; all but frame 1 agree with each other
    assert field_error(MotionField(coefficients, SPEC.shape), truth) == Error(
        pytest.approx(np.sqrt(0.5 * 0.2 * 0.8)), pytest.approx(np.sqrt(0.4))
    )


def test_a_star_and_a_record_give_back_the_field_that_was_put_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    shifts = np.vstack([[0, 0], rng.normal(size=(4, 2))])
    model = rng.normal(size=36) * 0.05
    field = MotionField.from_relion(shifts, model, SPEC.shape)
    path = tmp_path / "motion.star"
    track = {f"rlnMicrographShift{axis}": shifts[:, number] for number, axis in enumerate("YX")}
    local = {"rlnMotionModelCoeffsIdx": np.arange(36), "rlnMotionModelCoeff": model}
    import pandas as pd

    write_star(path, {"global_shift": pd.DataFrame(track), "local_motion_model": pd.DataFrame(local)})
    np.testing.assert_allclose(
        peers.field_of_star(path, SPEC.shape).coefficients, field.coefficients, atol=1e-5
    )

    y, x = np.meshgrid((np.arange(5) + 0.5) * 384 / 5, (np.arange(5) + 0.5) * 512 / 5, indexing="ij")
    tracks = np.moveaxis(field.at(y.ravel(), x.ravel()), 1, 0) * SPEC.pixel_size_A
    record = {
        "frame_shifts_A": (shifts * SPEC.pixel_size_A).tolist(),
        "patch_shifts_A": tracks.tolist(),
        "patch_grid": [5, 5],
    }
    np.testing.assert_allclose(
        peers.field_of_record(record, SPEC).coefficients, field.coefficients, atol=1e-9
    )
    record["patch_shifts_A"] = []
    np.testing.assert_allclose(peers.field_of_record(record, SPEC).coefficients[:, :, 0], shifts, atol=1e-9)


def test_a_movie_is_made_once(tmp_path: Path) -> None:
    case = Case("tiny", SPEC.model_copy(update={"shape": (128, 128), "n_frames": 2}))
    first = make_movie(case, tmp_path)
    stamp = first.path.stat().st_mtime_ns
    again = make_movie(case, tmp_path)
    assert again.path == first.path
    assert again.path.stat().st_mtime_ns == stamp
    np.testing.assert_allclose(again.truth.motion.global_shifts_px, first.truth.motion.global_shifts_px)
    other = make_movie(Case("tiny", case.spec.model_copy(update={"seed": 9})), tmp_path)
    assert other.path != first.path


def test_ctffind_is_asked_in_its_own_order_and_its_table_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ctffind"
    program.write_text(
        "#!/bin/sh\ncat > answers\nout=$(sed -n 2p answers)\n"
        'printf "# Columns\\n1.0 12345.5 12000.25 -14.8 1.570796 0.2 3.9\\n" > "${out%.mrc}.txt"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv(peers.CTFFIND_VARIABLE, str(program))
    _, found = peers.ctffind_fit(tmp_path / "image.mrc", SPEC, tmp_path / "out", phase_plate=True)
    assert found["defocus_u_A"] == 12345.5
    assert found["defocus_angle_deg"] == -14.8
    assert found["phase_shift_deg"] == pytest.approx(90.0, abs=1e-3)
    answers = (tmp_path / "out" / "answers").read_text().split()
    assert answers[2:7] == ["1.3", "300.0", "2.7", "0.07", "512"]
    assert answers[12:] == ["no", "no", "no", "yes", "0", "3.15", "0.2", "no"]


def test_motioncor_is_asked_with_what_it_needs_and_its_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "MotionCor2"
    program.write_text(
        '#!/bin/sh\necho "$@" > asked\nprintf "# frame x y\\n 1 0.0 0.0\\n 2 1.5 -2.5\\n" > movie-Full.log\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv(peers.MOTIONCOR_VARIABLE, str(program))
    made = make_movie(Case("tiny", SPEC, bin_factor=2.0), tmp_path / "made")
    _, log = peers.motioncor_motion(made, tmp_path / "out")
    field = peers.field_of_motioncor(log, SPEC.shape)
    assert field.mean_shifts().tolist() == [[0.0, 0.0], [-2.5, 1.5]]  # y, then x
    asked = (tmp_path / "out" / "asked").read_text()
    for words in (
        f"-InTiff {made.path}",
        f"-Gain {made.gain}",
        "-FmDose 2",
        "-PixSize 1.3",
        "-FtBin 2",
        "-kV 300",
    ):
        assert words in asked


def test_a_goal_that_is_missed_says_no_and_one_without_a_peer_says_so() -> None:
    data = {
        "motion": {
            "cases": [{"programs": {"cold": {"peak_GB": {"median": 2.4}}}}],
            "summary": {"ratio": None},
        }
    }
    table = goals_table(goals(data))
    assert "| motion: peak memory | at most 2 GB | 2.40 GB | **no** |" in table
    assert "no RELION here | not measured |" in table
    assert goals({"motion": {"failed": "no disk"}}) == []


def test_docs_keep_what_people_wrote_around_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "short.md").write_text("# Benchmarks\n\n![p](motion.png)\n")
    (tmp_path / "results" / "motion.png").write_bytes(b"picture")
    page = tmp_path / "docs" / "explanations" / "measurements.md"
    page.parent.mkdir(parents=True)
    page.write_text(f"# Measurements\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    write_docs(tmp_path / "results", "short", page)
    text = page.read_text()
    assert text.startswith("# Measurements\n\nBefore.")
    assert text.endswith("After.\n")
    assert "old" not in text
    assert "## Benchmarks" in text
    assert "(../images/measured_motion.png)" in text
    assert (tmp_path / "docs" / "images" / "measured_motion.png").read_bytes() == b"picture"
