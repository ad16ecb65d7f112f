"""RELION, which knows nothing of us, measures on our movies what the truth says."""

import os
import subprocess

import numpy as np
import pytest
import starfile

from vitriflow.formats import read_image
from vitriflow.simulate import MotionSpec, MovieSpec, SessionSpec, simulate_movie
from vitriflow.simulate.writing import write_gain, write_movie

MOVIES = """
data_optics

loop_
_rlnOpticsGroupName
_rlnOpticsGroup
_rlnMicrographOriginalPixelSize
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
opticsGroup1 1 1.0 300 2.7 0.07

data_movies

loop_
_rlnMicrographMovieName
_rlnOpticsGroup
%s 1
"""
COMMAND = (
    "relion_run_motioncorr --i in.star --o MC/ --use_own --j 1 --patch_x 1 --patch_y 1 --bin_factor 1 "
    "--bfactor 150 --dose_per_frame 4 --preexposure 0 --gainref gain.mrc"
)


@pytest.fixture(scope="module", params=["tiff-lzw", "mrc"])
def corrected(relion, request, tmp_path_factory):
    """A movie of unequal sides, with strong gain and no symmetry, through RELION."""
    folder = tmp_path_factory.mktemp("relion")
    name = "movie.mrc" if request.param == "mrc" else "movie.tiff"
    motion = MotionSpec(settling_A=10.0, drift_A=4.0, doming_A=0.0, direction_deg=70.0, blur=False)
    spec = MovieSpec(
        shape=(896, 1152), n_frames=6, dose_per_frame_e_per_A2=4.0, motion=motion, seed=8, gain_spread=0.1,
        defocus_u_A=15000.0, defocus_v_A=15000.0,
    )  # fmt: skip
    movie = simulate_movie(spec)
    write_movie(movie, folder / name, SessionSpec(format=request.param), None)
    write_gain(folder / "gain.mrc", movie.gain, 1.0)
    (folder / "in.star").write_text(MOVIES % name)
    program, *options = COMMAND.split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [str(relion / program), *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (folder / "MC" / "movie.star").exists(), run.stdout + run.stderr
    return movie, folder / "MC"


@pytest.mark.slow
@pytest.mark.service
def test_relion_finds_the_true_global_shifts_sign_and_axes_included(corrected):
    movie, folder = corrected
    truth = movie.truth.motion.global_shifts_px
    assert np.abs(truth[-1]).min() > 2
    assert np.abs(np.abs(truth[-1, 0]) - np.abs(truth[-1, 1])) > 2
    track = starfile.read(folder / "movie.star", always_dict=True)["global_shift"]
    found = track[["rlnMicrographShiftY", "rlnMicrographShiftX"]].to_numpy()
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.3


@pytest.mark.slow
@pytest.mark.service
def test_relions_sum_shows_the_specimen_of_frame_one_and_no_gain(corrected):
    movie, folder = corrected
    image = read_image(folder / "movie.mrc").array.astype(np.float64)[16:-16, 16:-16]
    height, width = movie.spec.shape
    margin = movie.margin
    clean = movie.contrast(0)[margin : margin + height, margin : margin + width][16:-16, 16:-16]
    gain = movie.gain[16:-16, 16:-16]
    sound = gain > 0

    def likeness(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a[sound], b[sound])[0, 1])

    assert likeness(image, clean) > 0.2
    assert likeness(image, clean) > 4 * abs(likeness(image, clean[::-1]))
    assert abs(likeness(image, gain)) < 0.02
