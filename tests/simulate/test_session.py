"""Sessions: what a microscope would leave on its disk, and the truth beside it."""

import json
import threading
import time
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from vitriflow.errors import BadParameter, ItemError, Reason, VitriflowError
from vitriflow.formats import State, check_complete, open_movie
from vitriflow.formats.epu import read_epu_xml
from vitriflow.formats.gain import read_gain
from vitriflow.formats.mdoc import read_mdoc
from vitriflow.simulate import SessionSpec, Truth, plan_session, simulate_movie, simulate_session
from vitriflow.simulate.plan import tilt_of
from vitriflow.simulate.writing import scatter_in_time

START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def play(out, small, **options):
    return simulate_session(SessionSpec(movie=small, started_at=START, **options), out)


def truth_of(written) -> Truth:
    return Truth.from_dict(json.loads(written.truth.read_text()))


@pytest.mark.parametrize("kind", ["mrc", "tiff-none", "tiff-lzw", "tiff-deflate", "tiff-zstd"])
def test_a_movie_reads_back_as_it_was_simulated(tmp_path, small, kind):
    report = play(tmp_path, small, exposures=1, format=kind)
    expected = list(simulate_movie(truth_of(report.movies[0]).spec))
    with open_movie(report.movies[0].movie) as movie:
        assert all(np.array_equal(a, b) for a, b in zip(movie.frames(), expected, strict=True))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "float32"])
def test_every_type_reads_back_from_mrc(tmp_path, small, dtype):
    report = play(tmp_path, small.model_copy(update={"dtype": dtype}), exposures=1, format="mrc")
    with open_movie(report.movies[0].movie) as movie:
        first = movie.frame(0)
    assert first.dtype == np.dtype(dtype)
    assert np.array_equal(first, simulate_movie(truth_of(report.movies[0]).spec).frame(0))


def test_an_eer_holds_every_electron_once(tmp_path, small):
    report = play(tmp_path, small, exposures=1, format="eer", eer_frames_per_fraction=25)
    spec = truth_of(report.movies[0]).spec
    expected = simulate_movie(spec.model_copy(update={"dtype": "uint16"}))
    with open_movie(report.movies[0].movie) as movie:
        assert movie.n_raw_frames == 25 * spec.n_frames
        total = sum(frame.astype(np.int64) for frame in movie.frames())
    ordinary = np.ones(spec.shape, dtype=bool)
    ordinary[tuple(expected.truth.hot_pixels.T)] = False
    assert np.array_equal(total[ordinary], expected.sum()[ordinary].astype(np.int64))


def test_electrons_of_a_pixel_fall_into_different_raw_frames():
    counts = np.array([[0, 1, 7], [3, 10, 25]])
    raw = list(scatter_in_time(counts, 10, np.random.default_rng(1)))
    assert all(np.all(np.diff(pixels) > 0) for pixels in raw)
    found = np.bincount(np.concatenate(raw), minlength=6)
    assert found.tolist() == [0, 1, 7, 3, 10, 10]


@pytest.mark.parametrize("kind", ["mrc", "eer"])
def test_counts_times_the_written_gain_are_flat(tmp_path, small, kind):
    bright = {"dose_per_frame_e_per_A2": 15.0, "n_particles": 0, "ice_noise": 0.0, "beam_gradient": 0.0}
    report = play(
        tmp_path, small.model_copy(update=bright), exposures=1, format=kind, eer_frames_per_fraction=64
    )
    gain = read_gain(report.gain, shape=small.shape, movie_format=kind)
    with open_movie(report.movies[0].movie) as movie:
        raw = sum(frame.astype(np.float64) for frame in movie.frames())
    sound = gain.array > 0
    sound[tuple(truth_of(report.movies[0]).hot_pixels.T)] = False
    corrected = (raw * gain.multiplier())[sound]
    noise = 1 / np.sqrt(60)
    assert corrected.std() / corrected.mean() == pytest.approx(noise, rel=0.03)
    assert raw[sound].std() / raw[sound].mean() > 1.1 * noise


def test_epu_xml_says_what_was_simulated(tmp_path, small):
    report = play(tmp_path, small, exposures=10, format="mrc")
    for written in report.movies:
        truth = json.loads(written.truth.read_text())
        found = read_epu_xml(written.movie.with_name(written.movie.name.replace("_Fractions.mrc", ".xml")))
        recorded = read_epu_xml(written.movie.with_suffix(".xml"))
        assert found.problems == []
        assert recorded.problems == []
        assert found.pixel_size_A == pytest.approx(1.0)
        assert found.voltage_kV == 300.0
        assert found.dose_per_frame_e_per_A2 == pytest.approx(1.2)
        assert found.nominal_defocus_A == pytest.approx(truth["nominal_defocus_A"])
        assert found.beam_shift == pytest.approx(truth["beam_shift"])
        assert found.acquired_at == written.exposure.acquired_at
        assert recorded.n_fractions == found.n_fractions == small.n_frames
        assert (recorded.image_height, recorded.image_width) == small.shape


def test_beam_shifts_fall_into_nine_groups(small):
    planned = plan_session(SessionSpec(movie=small, exposures=36))
    centres = {hole: np.mean([e.beam_shift for e in planned if e.hole == hole], axis=0) for hole in range(9)}
    for exposure in planned:
        nearest = min(centres, key=lambda hole: np.linalg.norm(centres[hole] - exposure.beam_shift))
        assert nearest == exposure.hole


def test_holes_are_empty_or_dirty_at_the_share_asked_for_and_else_unchanged(small):
    plain = plan_session(SessionSpec(movie=small, exposures=200, started_at=START))
    mixed = plan_session(
        SessionSpec(movie=small, exposures=200, started_at=START, empty_share=0.25, dirty_share=0.5)
    )
    empty = [e for e in mixed if e.movie.n_particles == 0]
    dirty = [e for e in mixed if e.movie.carbon_edge and e.movie.n_ice_crystals]
    assert 30 < len(empty) < 70
    assert 75 < len(dirty) < 125
    clean = [(a, b) for a, b in zip(plain, mixed, strict=True) if b not in empty and b not in dirty]
    assert clean
    assert all(a == b for a, b in clean)


def test_serialem_mdoc_says_what_was_simulated(tmp_path, small):
    report = play(tmp_path, small, exposures=2, layout="serialem")
    for written in report.movies:
        mdoc = read_mdoc(written.movie.with_name(written.movie.name + ".mdoc"))
        (found,) = mdoc.exposures
        assert mdoc.kind == "frame set"
        assert found.movie_name == written.movie.name
        assert found.n_fractions == small.n_frames
        assert found.dose_per_frame_e_per_A2 == pytest.approx(1.2)
        assert found.nominal_defocus_A == pytest.approx(written.exposure.nominal_defocus_A)
        assert found.gain_reference == report.gain.name
        assert found.software == "SerialEM"
        assert found.problems == []


@pytest.mark.parametrize(("layout", "pattern"), [("serialem", "TS_*.mrc.mdoc"), ("tomo5", "Position_*.mdoc")])
def test_tilt_series_name_every_movie(tmp_path, small, layout, pattern):
    report = play(tmp_path, small, exposures=10, layout=layout, tilts=5, format="mrc")
    paths = sorted(report.microscope.glob(pattern))
    assert len(paths) == 2
    for number, path in enumerate(paths):
        mdoc = read_mdoc(path)
        assert mdoc.kind == "tilt series"
        assert mdoc.problems == []
        movies = report.movies[5 * number : 5 * number + 5]
        assert [e.movie_name for e in mdoc.exposures] == [w.movie.name for w in movies]
        assert [e.tilt_angle_deg for e in mdoc.exposures] == [0.0, 3.0, -3.0, -6.0, 6.0]
        doses = [e.prior_dose_e_per_A2 for e in mdoc.exposures]
        assert doses == pytest.approx([4.8 * order for order in range(5)])


def test_tilts_are_dose_symmetric():
    tilts = [tilt_of(order, 3.0) for order in range(41)]
    assert len(set(tilts)) == 41
    assert max(tilts) == -min(tilts) == 60.0
    assert all(abs(a) <= abs(b) for a, b in pairwise(tilts))


@pytest.mark.parametrize("kind", ["mrc", "tiff-lzw"])
def test_a_movie_is_seen_half_written_and_its_xml_only_after_it(tmp_path, small, kind):
    spec = SessionSpec(movie=small, exposures=1, format=kind, write_s=1.5, started_at=START)
    thread = threading.Thread(target=simulate_session, args=(spec, tmp_path))
    thread.start()
    states, sizes = set(), set()
    while thread.is_alive():
        for path in (tmp_path / "microscope").rglob("*_Fractions.*"):
            sizes.add(path.stat().st_size)
            states.add(check_complete(path).state)
            if check_complete(path).state is State.GROWING and path.stat().st_size < 1000:
                assert not list(path.parent.glob("*.xml"))
        time.sleep(0.05)
    thread.join()
    assert State.GROWING in states
    assert len(sizes) > 5
    (path,) = (p for p in (tmp_path / "microscope").rglob("*_Fractions.*") if p.suffix in {".mrc", ".tiff"})
    assert check_complete(path).state is State.COMPLETE


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("truncated", Reason.TRUNCATED),
        ("empty", Reason.EMPTY),
        ("garbage", None),
    ],
)
def test_a_broken_file_is_refused_and_its_neighbours_are_not(tmp_path, small, fault, reason):
    report = play(tmp_path, small, exposures=4, faults={fault: 0.25}, format="mrc")
    broken = [w for w in report.movies if w.exposure.fault is not None]
    assert len(broken) == 1
    assert json.loads(broken[0].truth.read_text())["fault"] == fault
    for written in report.movies:
        if written in broken:
            with pytest.raises(ItemError) as error:
                open_movie(written.movie)
            assert reason is None or error.value.reason is reason
        else:
            with open_movie(written.movie) as movie:
                assert movie.n_frames == small.n_frames


def test_broken_pixels_are_what_their_names_say(tmp_path, small):
    report = play(
        tmp_path,
        small,
        exposures=4,
        format="mrc",
        faults={"zeros": 0.25, "constant": 0.25, "nan": 0.25, "wrong-size": 0.25},
    )
    found = {}
    for written in report.movies:
        with open_movie(written.movie) as movie:
            found[written.exposure.fault] = np.stack(list(movie.frames()))
    assert not found["zeros"].any()
    assert np.all(found["constant"] == 1)
    assert np.isnan(found["nan"]).any()
    assert np.isfinite(found["nan"]).any()
    assert found["wrong-size"].shape[1] == small.shape[0] - 32


def test_metadata_can_be_missing_or_broken_and_names_doubled(tmp_path, small):
    report = play(
        tmp_path, small, exposures=3, faults={"no-metadata": 0.33, "bad-metadata": 0.33, "duplicate": 0.33}
    )
    for written in report.movies:
        xml = written.movie.with_name(written.movie.name.replace("_Fractions.tiff", ".xml"))
        if written.exposure.fault == "no-metadata":
            assert not xml.exists()
        elif written.exposure.fault == "bad-metadata":
            with pytest.raises(ItemError) as error:
                read_epu_xml(xml)
            assert error.value.reason is Reason.METADATA_BROKEN
        else:
            assert len(list(report.microscope.rglob(written.movie.name))) == 2


def test_a_few_unique_movies_serve_many_exposures(tmp_path, small):
    report = play(tmp_path, small, exposures=5, unique=2)
    contents = [w.movie.read_bytes() for w in report.movies]
    assert len({w.movie.stat().st_ino for w in report.movies}) == 5
    assert contents[0] == contents[2] == contents[4] != contents[1]
    assert contents[1] == contents[3]
    assert not (tmp_path / ".pool").exists()


def test_the_same_seed_plays_the_same_session(tmp_path, small):
    first = play(tmp_path / "a", small, exposures=2, seed=3)
    again = play(tmp_path / "b", small, exposures=2, seed=3)
    other = play(tmp_path / "c", small, exposures=2, seed=4)

    def files(report):
        root = report.microscope
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    assert files(first) == files(again)
    assert files(first) != files(other)


def test_truth_stays_out_of_the_microscopes_folder(tmp_path, small):
    report = play(tmp_path, small, exposures=2, name="séance d'été 東京 ж")
    assert report.microscope == tmp_path / "microscope" / "séance d'été 東京 ж"
    assert not list(report.microscope.rglob("*.json"))
    assert {p.name for p in tmp_path.iterdir()} == {"microscope", "truth"}
    for written in report.movies:
        record = json.loads(written.truth.read_text(encoding="utf-8"))
        assert tmp_path / "microscope" / record["movie"] == written.movie
        truth = Truth.from_dict(record)
        assert truth.spec.defocus_u_A == written.exposure.movie.defocus_u_A
        assert len(truth.particles_px) > 0
    session = json.loads((report.truth / "session.json").read_text(encoding="utf-8"))
    assert SessionSpec.model_validate(session).movie == small


def test_stopping_cuts_the_movie_that_is_being_written(tmp_path, small):
    stop = threading.Event()
    spec = SessionSpec(movie=small, exposures=3, write_s=600.0, format="mrc", started_at=START)
    reports = []
    thread = threading.Thread(target=lambda: reports.append(simulate_session(spec, tmp_path, stop=stop)))
    thread.start()
    while not list((tmp_path / "microscope").rglob("*_Fractions.mrc")):
        time.sleep(0.02)
    stop.set()
    thread.join(timeout=60)
    assert reports[0].stopped
    assert reports[0].movies == []
    (path,) = (tmp_path / "microscope").rglob("*_Fractions.mrc")
    assert check_complete(path).state is State.GROWING


def test_a_folder_in_use_is_refused(tmp_path, small):
    play(tmp_path, small, exposures=1)
    with pytest.raises(BadParameter, match="new or empty"):
        play(tmp_path, small, exposures=1)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path, small):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VitriflowError, match="file"):
        play(tmp_path / "file" / "out", small, exposures=1)


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "tomo5"},
        {"layout": "epu", "tilts": 5},
        {"faults": {"empty": 0.7, "zeros": 0.7}},
        {"defocus_A": (2e4, 1e4)},
        {"name": "a/b"},
        {"unheard_of": 1},
    ],
)
def test_a_session_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValidationError):
        SessionSpec(**options)
