"""Each benchmark runs at toy size, without its peer where that isn't installed."""

from pathlib import Path

import pytest
from benchmarks.inputs import Case

from benchmarks import ctf, end_to_end, gpu, measure, motion, peers, picking, picking_simulated, web
from vitriflow.simulate import MovieSpec

TOY = MovieSpec(shape=(512, 512), n_frames=5, dose_per_frame_e_per_A2=6.0, seed=2, n_views=8)

MOTION = Case("toy", TOY.model_copy(update={"shape": (1024, 1024)}))
CTF = [ctf.Optics(15000, 600, 30), ctf.Optics(12000, 600, -50)]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plots go to a passing folder."""
    monkeypatch.setenv(measure.RESULTS_VARIABLE, str(tmp_path / "results"))
    monkeypatch.delenv(measure.CACHE_VARIABLE, raising=False)
    return tmp_path / "results"


def test_motion_without_a_peer_still_gives_time_and_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "relion", lambda: None)
    text, data = motion.run(False, cases=[Case("small", TOY)], rounds=1)
    (case,) = data["cases"]
    assert case["native_error"]["blurring_px"] < 1.0
    assert case["native_star_error"]["anchored_px"] < 1.5
    assert case["relion_error"] is None
    assert case["programs"]["warm"]["step_s"]["median"] < case["programs"]["warm"]["wall_s"]["median"]
    assert "RELION isn't installed" in text


@pytest.mark.service
def test_motion_with_relion_gives_both_errors_and_a_plot(relion: Path, results: Path) -> None:
    assert relion
    text, data = motion.run(False, cases=[MOTION], rounds=1)
    (case,) = data["cases"]
    assert 0 < case["relion_error"]["blurring_px"] < 2.0
    assert data["summary"]["ratio"]["time_cold"] > 0
    assert (results / "motion.png").stat().st_size > 1000
    assert "RELION, whole command" in text


def test_ctf_gives_errors_against_the_truth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, results: Path
) -> None:
    monkeypatch.delenv(peers.CTFFIND_VARIABLE, raising=False)
    monkeypatch.setattr(ctf, "data_folder", lambda: tmp_path / "none")
    text, data = ctf.run(
        False,
        size=1024,
        cases=CTF,
        rounds=1,
    )
    assert len(data["vitriflow"]) == 2
    assert abs(data["vitriflow"][0]["mean_error_A"]) < 300
    assert data["summary"]["vitriflow"]["fits"] == 2
    assert data["ctffind"] == []
    assert "no ratio" in text
    assert "The real spectra aren't here" in text
    assert (results / "ctf.png").is_file()


def test_end_to_end_gives_a_rate_shares_and_a_latency(results: Path) -> None:
    text, data = end_to_end.run(False, spec=TOY, counts=(2, 1))
    assert sum(data["backlog"]["status"].values()) == 2
    assert data["backlog"]["movies_per_hour"] > 0
    assert set(data["backlog"]["node_s"]) >= {"motion"}
    assert data["live"]["latency_p50_s"] > 0
    assert "movies/hour" in text
    assert (results / "end_to_end.png").is_file()


def test_without_a_gpu_that_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    text, data = gpu.run(False)
    assert "No CUDA GPU here" in text
    assert data == {"device": None}


def test_the_gpu_benchmark_runs_on_any_device() -> None:
    text, data = gpu.run(False, device="cpu", specs=[("toy", TOY)], threads=2)
    (row,) = data["movies"]
    assert row["against_cpu_px"] == pytest.approx(0, abs=1e-6)
    assert row["error_px"] < 1.0
    assert 0 < row["fraction_of_floor"] < 1
    assert "| toy | 512 x 512 x 5 |" in text


def test_picking_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(picking, "data_folder", lambda: tmp_path)
    text, data = picking.run_real()
    assert "not found, set VITRIFLOW_DATA" in text
    assert data == {}


def test_picking_scores_simulated_fields_and_times_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picking_simulated, "CASES", picking_simulated.CASES[3:4])
    monkeypatch.setattr(picking_simulated, "EMPTY", picking_simulated.EMPTY[:1])
    monkeypatch.setattr(picking_simulated.shutil, "which", lambda name: None)
    text, data = picking_simulated.run(False, shape=(768, 768), timed_shape=(768, 768), rounds=1)
    assert data["mean"]["vitriflow"]["f1"] > 0.8
    assert data["empty"]["empty ice"]["vitriflow"]["picks"] == 0
    assert set(data["seconds"]) == {"vitriflow, in a worker", "vitriflow, a process of its own"}
    assert "| usual, full contrast | " in text


def test_web_answers_over_a_small_catalog() -> None:
    text, data = web.run(False, exposures=60, repeats=2)
    assert data["exposures"] == 60
    assert all(one["rest"]["p50_ms"] > 0 for one in data["routes"].values())
    assert "Pages and API over 60 exposures" in text
