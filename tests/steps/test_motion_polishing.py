"""RELION's Bayesian polishing on our motion STAR: it has to see the motion that we found.

``relion_motion_refine`` reads the movie, the gain reference and the motion through
``corrected_micrographs.star`` as RELION's own jobs leave it. With no iterations it writes the tracks
that it begins with, at each particle; and particles summed along them, which have to be what our
micrograph shows at the same place.
"""

import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile

from tests.kernels.motion_movies import movie
from vitriflow.formats import read_image, read_star, write_mrc, write_star, write_tiff_movie
from vitriflow.kernels import MotionField
from vitriflow.steps import Artifact, Context, Kind, find_step, run_step
from vitriflow.steps.motion_native import MotionParameters

BOX = 64


@pytest.mark.service
@pytest.mark.parametrize("bin_factor", [1.0, 2.0])
def test_polishing_sees_the_motion_and_the_pixels_that_we_saw(relion, tmp_path, monkeypatch, bin_factor):
    monkeypatch.chdir(tmp_path)  # RELION's paths are relative to its project
    pixel = 2.0 / bin_factor
    side = int(512 * bin_factor)
    case = movie(side, 6, seed=41, dose=3.0, doming_A=8.0, pixel_size_A=pixel, n_dead_columns=0)
    Path("Movies").mkdir()
    write_tiff_movie(Path("Movies/one.tif"), case.frames, compression="lzw")
    write_mrc(Path("Movies/gain.mrc"), case.gain, None)
    record = run_step(
        find_step("motion.native"),
        {"movie": Artifact(kind=Kind.MOVIE, path=Path("Movies/one.tif"))},
        MotionParameters(
            pixel_size_A=pixel,
            dose_per_frame_e_per_A2=3.0,
            gain_reference=Path("Movies/gain.mrc"),
            bin_factor=bin_factor,
            dose_weighting=False,
        ),
        Context(out=Path("MotionCorr/job002"), item="Movies/one", threads=2),
    )
    assert record.reason is None
    image = read_image(record.outputs["micrograph"].path).array
    places = np.stack(np.meshgrid([100, 250, 400], [90, 240, 410], indexing="ij"), axis=-1).reshape(-1, 2)
    _write_project(image, places, pixel)

    command = "--i particles.star --f post.star --corr_mic corrected_micrographs.star --m1 half1.mrc --m2 half2.mrc "
    command += "--mask mask.mrc --o Polish/ --max_iters 0 --combine_frames --bfactors bfactors.star --j 2"
    subprocess.run(
        [relion / "relion_motion_refine", *command.split()], check=True, capture_output=True, timeout=120
    )

    blocks = read_star(record.outputs["motion"].path)
    shifts = blocks["global_shift"][["rlnMicrographShiftY", "rlnMicrographShiftX"]].to_numpy(float)
    coefficients = blocks["local_motion_model"]["rlnMotionModelCoeff"].to_numpy(float)
    field = MotionField.from_relion(shifts, coefficients, case.shape)
    found = field.at(bin_factor * places[:, 0], bin_factor * places[:, 1]) * pixel
    tracks = starfile.read("Polish/Movies/one_tracks.star", always_dict=True)
    for number in range(len(places)):
        # RELION keeps where the particle went, we what brings it back
        track = tracks[str(number)][["rlnOriginYAngst", "rlnOriginXAngst"]].to_numpy(float)
        assert np.abs(track + found[:, number]).max() < 0.002
    assert np.abs(found).max() > 3.0

    polished = mrcfile.read("Polish/Movies/one_shiny.mrcs")
    same = [_likeness(one, image[_cut(place)]) for one, place in zip(polished, places, strict=True)]
    upside_down = [
        _likeness(one, image[_cut(place)][::-1]) for one, place in zip(polished, places, strict=True)
    ]
    assert np.median(same) > 0.9
    assert np.median(upside_down) < 0.7


def _cut(place: np.ndarray) -> tuple[slice, slice]:
    y, x = (int(v) - BOX // 2 for v in place)
    return slice(y, y + BOX), slice(x, x + BOX)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the coarse features of two images; RELION turns the contrast of particles round."""
    one, other = (
        image[4:-4, 4:-4].reshape(14, 4, 14, 4).mean(axis=(1, 3)).ravel() for image in (-one, other)
    )
    return float(np.corrcoef(one, other)[0, 1])


def _write_project(image: np.ndarray, places: np.ndarray, movie_pixel: float) -> None:
    """What polishing asks for: micrographs, particles with angles, half maps, a mask, and an FSC."""
    group = {
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnOpticsGroup": [1],
        "rlnMicrographOriginalPixelSize": [movie_pixel],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.07],
        "rlnMicrographPixelSize": [2.0],
    }
    name = "MotionCorr/job002/Movies/one.mrc"
    mics = {
        "rlnMicrographName": [name],
        "rlnMicrographMetadata": [name.replace(".mrc", ".star")],
        "rlnOpticsGroup": [1],
    }
    write_star(
        Path("corrected_micrographs.star"), {"optics": pd.DataFrame(group), "micrographs": pd.DataFrame(mics)}
    )
    cuts = np.stack([-image[_cut(place)] for place in places])
    _write_stack(Path("particles.mrcs"), (cuts - cuts.mean()) / cuts.std())
    n = len(places)
    group |= {
        "rlnImagePixelSize": [2.0],
        "rlnImageSize": [BOX],
        "rlnImageDimensionality": [2],
        "rlnCtfDataAreCtfPremultiplied": [0],
    }
    zero = np.zeros(n)
    particles = pd.DataFrame(
        {
            "rlnCoordinateX": places[:, 1].astype(float),
            "rlnCoordinateY": places[:, 0].astype(float),
            "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(n)],
            "rlnMicrographName": [name] * n,
            "rlnOpticsGroup": [1] * n,
            "rlnDefocusU": zero + 10200.0,
            "rlnDefocusV": zero + 9800.0,
            "rlnDefocusAngle": zero + 30.0,
            **{f"rln{angle}": zero for angle in ("AngleRot", "AngleTilt", "AnglePsi")},
            **{f"rlnOrigin{axis}Angst": zero for axis in "XY"},
            "rlnRandomSubset": [1 + i % 2 for i in range(n)],
        }
    )
    write_star(Path("particles.star"), {"optics": pd.DataFrame(group), "particles": particles})
    frames = pd.DataFrame({"rlnMovieFrameNumber": range(6)})  # all frames weigh the same
    frames["rlnBfactorUsedForSharpening"] = frames["rlnFittedInterceptGuinierPlot"] = 0.0
    write_star(Path("bfactors.star"), {"perframe_bfactors": frames})
    z, y, x = (axis - BOX // 2 for axis in np.ogrid[:BOX, :BOX, :BOX])
    radius = np.sqrt(z**2.0 + y**2 + x**2)
    shell = np.exp(-((radius - 22.0) ** 2) / 8.0)
    rng = np.random.default_rng(1)
    for half in (1, 2):
        _write_stack(Path(f"half{half}.mrc"), shell + rng.normal(0, 0.1, shell.shape))
    _write_stack(Path("mask.mrc"), np.clip((29.0 - radius) / 3.0, 0.0, 1.0))
    index = np.arange(BOX // 2 + 1)
    curve = 1.0 / (1.0 + np.exp((index - 20.0) / 2.0))
    fsc = {"rlnSpectralIndex": index, "rlnResolution": index / (2.0 * BOX)}
    fsc |= {
        f"rlnFourierShellCorrelation{kind}": curve for kind in ("Corrected", "UnmaskedMaps", "MaskedMaps")
    }
    fsc["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"] = 0.0 * curve
    general = {"rlnFinalResolution": 6.4, "rlnBfactorUsedForSharpening": -100.0}
    write_star(Path("post.star"), {"general": general, "fsc": pd.DataFrame(fsc)})


def _write_stack(path: Path, values: np.ndarray) -> None:
    with mrcfile.new(path) as file:
        file.set_data(values.astype(np.float32))
        file.voxel_size = 2.0
