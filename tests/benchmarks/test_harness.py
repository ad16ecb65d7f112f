"""The harness measures what it says, and results are read as they were meant."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.__main__ import BENCHMARKS
from benchmarks.inputs import Case, make_movie
from benchmarks.measure import Failed, Spread, Turn, Usage, alternate, measure, on_cores
from benchmarks.motion import Error, field_error
from benchmarks.motion_cases import full_cases
from benchmarks.picking_score import RealSet
from benchmarks.report import BEGIN, BEGIN_OF, DOCS, END, END_OF, goals, goals_table, write_docs

from benchmarks import peer_aretomo, peer_topaz, peers
from vitriflow.formats import read_image, write_star
from vitriflow.kernels.motion_field import MotionField
from vitriflow.simulate import FileFormat, MotionSpec, MovieSpec, simulate_movie

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


def ran(results: Path, **parts: dict[str, object]) -> None:
    """Results of a run of some benchmarks, as ``python -m benchmarks short`` leaves them."""
    sections = {name: f"## {name.capitalize()} now\n\nnew {name}\n\n![p]({name}.png)\n" for name in parts}
    machine = {"date": "2027-01-02", "cores": 4}
    results.mkdir(exist_ok=True)
    (results / "short.json").write_text(json.dumps({"machine": machine, "sections": sections, **parts}))
    for name in parts:
        (results / f"{name}.png").write_bytes(b"picture")


def test_docs_keep_what_people_wrote_and_the_parts_that_were_not_run(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "explanations" / "measurements.md"
    page.parent.mkdir(parents=True)
    kept = f"{BEGIN_OF.format('ctf')}\n\n### CTF of 2025, 2 cores\n\n{END_OF.format('ctf')}"
    old = f"{BEGIN_OF.format('web')}\nold web\n{END_OF.format('web')}"
    page.write_text(f"# Measurements\n\nBefore.\n\n{BEGIN}\n\n{old}\n\n{kept}\n\n{END}\n\nAfter.\n")
    web = {"exposures": 9, "routes": {"a": {"rest": {"p95_ms": 1.0}, "live": {"p95_ms": 2.0}}}}
    ran(tmp_path / "results", web=web, ctf={"failed": "no disk"}, gpu={"device": None})
    assert write_docs(tmp_path / "results", "short", page) == ["web", "gpu"]
    text = page.read_text()
    assert text.startswith("# Measurements\n\nBefore.")
    assert text.endswith("After.\n")
    assert kept in text  # one that failed takes nothing away
    assert "old web" not in text
    assert "### Web now\n\n`python -m benchmarks short --only web`\n\ndate 2027-01-02, cores 4\n" in text
    assert "| under 100 ms | 2 ms | yes |" in text
    assert "(../images/measured_web.png)" in text
    assert (tmp_path / "docs" / "images" / "measured_web.png").read_bytes() == b"picture"
    assert text.index("### Gpu now") < text.index(END)  # a new one comes last
    ran(tmp_path / "results", gpu={"device": None})
    write_docs(tmp_path / "results", "short", page)
    assert page.read_text() == text


def test_the_page_of_measurements_has_a_place_for_each_benchmark() -> None:
    page = (Path(__file__).parents[2] / DOCS).read_text(encoding="utf-8")
    for name in BENCHMARKS:
        assert name == "gpu" or page.count(BEGIN_OF.format(name)) == 1, name
        assert page.count(BEGIN_OF.format(name)) == page.count(END_OF.format(name))


def test_the_full_set_has_every_camera_with_every_dose_and_everything_hard() -> None:
    cases = full_cases()
    assert len({case.name for case in cases}) == len(cases)
    first = cases[0]
    assert (first.spec.shape, first.spec.n_frames, first.spec.dose_per_pixel) == ((4096, 4096), 40, 1.0)
    assert first.format is FileFormat.TIFF_LZW
    assert {str(case.format) for case in cases} >= {"eer", "mrc", "tiff-lzw"}
    for camera in ("k2-", "k3-lzw", "falcon-eer", "falcon-lzw"):
        mine = [case for case in cases if case.name.startswith(camera)]
        for dose in (0.5, 1.0, 2.0):
            plain = [c for c in mine if c.spec.dose_per_pixel == dose and c.spec.n_frames == 40]
            assert len({case.spec.seed for case in plain}) >= 3
        assert any(c.spec.n_frames == 8 and c.spec.dose_per_pixel == 0.5 for c in mine)
        assert any(c.spec.motion.doming_A >= 8 for c in mine)
        assert any(c.gain in ("withheld", "noisy") for c in mine)
        assert any(c.spec.n_hot_pixels >= 1000 for c in mine)


def test_a_noisy_reference_is_one_and_a_movie_of_the_true_one_is_another_file(tmp_path: Path) -> None:
    tiny = SPEC.model_copy(update={"shape": (128, 128), "n_frames": 1})
    true, noisy = (make_movie(Case("tiny", tiny, gain=gain), tmp_path) for gain in ("given", "noisy"))
    assert true.gain is not None
    assert noisy.gain is not None
    one, two = (read_image(made.gain).array for made in (true, noisy))
    good = one > 0
    assert np.std(two[good] / one[good]) == pytest.approx(0.03, rel=0.1)


def test_aretomo_is_given_a_series_of_the_movie_and_its_own_times_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "AreTomo3"
    recorded = (
        "Tilt_Series,GPU,Operation,Time(s)\nseries, 0, ProcessStart, 0.2\n"
        "series, 0, ProcessMovies:Start, 0.5\nseries, 0, ProcessMovies:End, 23.0\nseries, 0, ProcessExit, 31.4\n"
    )
    program.write_text(
        f'#!/bin/sh\necho "$@" > asked\nprintf "{recorded}" > aligned/TiltSeries_TimeStamp.csv\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv(peer_aretomo.ARETOMO_VARIABLE, str(program))
    made = make_movie(Case("tiny", SPEC, bin_factor=2.0), tmp_path / "made")
    turn = peer_aretomo.aretomo_motion(made, tmp_path / "out")
    assert turn.extra["movie_s"] == pytest.approx(2.5)
    asked = (tmp_path / "out" / "asked").read_text()
    for words in (
        "-Cmd 0",
        "-McPatch 5 5",
        "-McBin 2",
        "-FmDose 2",
        "-PixSize 1.3",
        f"-Gain {made.gain}",
        "-InSuffix .mdoc",
    ):
        assert words in asked
    series = read_mdoc(tmp_path / "out" / "series.mdoc")
    assert [float(one["TiltAngle"]) for one in series] == list(range(-4, 5))
    for one in series:
        assert (tmp_path / "out" / one["SubFramePath"]).resolve() == made.path.resolve()
    program.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(Failed, match="logs its times"):
        peer_aretomo.aretomo_motion(made, tmp_path / "out")


def read_mdoc(path: Path) -> list[dict[str, str]]:
    """Sections of an mdoc, read apart from the code that is tested."""
    blocks = path.read_text().split("[ZValue")[1:]
    return [
        dict(line.split(" = ", 1) for line in block.splitlines()[1:] if " = " in line) for block in blocks
    ]


TOPAZ = """#!/bin/sh
echo "$@" >> asked
[ "$1" = extract ] || exit 0
echo "# loading pretrained model: resnet16"
printf 'image_name\\tx_coord\\ty_coord\\tscore\\none\\t160\\t48\\t3.5\\none\\t96\\t208\\t-2.25\\n' %s
"""


@pytest.mark.parametrize("where", ["", "> picks.txt"])
def test_topaz_is_asked_in_two_steps_and_its_table_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    program = tmp_path / "topaz"
    program.write_text(TOPAZ % where.replace("picks.txt", str(tmp_path / "out" / "picks.txt")))
    program.chmod(0o755)
    monkeypatch.setenv(peer_topaz.TOPAZ_VARIABLE, str(program))
    monkeypatch.chdir(tmp_path)
    found, seconds = peer_topaz.topaz_picks([Path("one.mrc"), Path("two.mrc")], 2.0, 150.0, tmp_path / "out")
    points, scores = found["one"]
    assert points.tolist() == [[48.0, 160.0], [208.0, 96.0]]  # y, then x
    assert scores.tolist() == [3.5, -2.25]
    assert found["two"][0].shape == (0, 2)
    assert seconds > 0
    first, second = (tmp_path / "asked").read_text().splitlines()
    small = tmp_path / "out" / "small"
    assert first == f"preprocess -s 4 -o {small} one.mrc two.mrc"
    assert second == (
        f"extract -r 9 -x 4 -t -6 -d -1 -j 2 -o {tmp_path / 'out' / 'picks.txt'} {small}/one.tiff {small}/two.tiff"
    )


def test_topaz_s_picks_are_scored_at_its_default_and_where_they_are_likelier_than_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "topaz"
    program.write_text(TOPAZ % "")
    program.chmod(0o755)
    monkeypatch.setenv(peer_topaz.TOPAZ_VARIABLE, str(program))
    monkeypatch.chdir(tmp_path)
    truth = np.array([[50.0, 158.0]])
    real = RealSet("", "", 2.0, 150.0, (150.0, 180.0), 25, 10)
    means = peer_topaz.topaz_scores({"one": (np.zeros((256, 256), np.float32), truth)}, real)
    assert [round(found["f1"], 3) for found in means.values()] == [0.667, 1.0]
    (line, _) = peer_topaz.topaz_lines(means, "1 image")
    assert line.startswith("Topaz (its default, -6), mean of 1 image: F1 0.667, precision 0.50, recall 1.00")
    with pytest.raises(Failed, match="no table"):
        peer_topaz.read_topaz("CUDA error")
