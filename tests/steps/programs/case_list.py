"""The cases: each outside program once. Command lines stand in one piece, however long."""

# ruff: noqa: E501

from pathlib import Path

import numpy as np
import pandas as pd

from tests.formats.test_ctffind import HEADER
from tests.steps.programs.cases import (
    CTF,
    ONE_BY_ONE,
    TABLE,
    Case,
    Made,
    empty_map,
    frame_lines,
    micrograph_of,
    motion_values,
    movie_of,
    relion_data,
    relion_model,
    ring_of,
)
from vitriflow.formats import write_coordinates, write_particles, write_star

RELION = {
    "program": "relion",
    "version": "RELION version: 3.1.3",
    "old": "RELION version: 2.1",
    "version_arguments": ("--version",),
}


def _motioncor_command(made: Made, *more: str) -> list[list[str]]:
    words = "-InMrc movie.mrcs -OutMrc out.mrc -Patch 5 4 -PixSize 1 -kV 300 -FmDose 1.5 -InitDose 0 -FtBin 1"
    return [
        [
            *words.split(),
            *["-Bft", "150", "-Iter", "7", "-Tol", "0.5", "-Throw", "0", "-Trunc", "0"],
            *more,
            "-LogDir",
            ".",
            "-Gpu",
            "1",
        ]
    ]


def _aligned(made: Made) -> dict[str, Path]:
    return {"out.mrc": made.aligned, "out_DW.mrc": made.aligned}


def _relion_motion(made: Made) -> dict[str, Path]:
    rows = {
        "rlnMicrographFrameNumber": range(1, 9),
        "rlnMicrographShiftX": np.arange(8) * 2.0,
        "rlnMicrographShiftY": np.arange(8) * 1.0,
    }
    path = made.folder / "relion_motion.star"
    write_star(path, {"general": {"rlnMotionModelVersion": 0}, "global_shift": pd.DataFrame(rows)})
    return {"out/movie.mrc": made.aligned, "out/movie.star": path}


def _relion_motion_short(made: Made) -> dict[str, Path]:
    rows = {
        "rlnMicrographFrameNumber": [1, 2],
        "rlnMicrographShiftX": [0.0, 1],
        "rlnMicrographShiftY": [0.0, 1],
    }
    path = made.folder / "relion_motion_short.star"
    write_star(path, {"general": {"rlnMotionModelVersion": 0}, "global_shift": pd.DataFrame(rows)})
    return {"out/movie.mrc": made.aligned, "out/movie.star": path}


def _ctffind(made: Made, row: str = "1 12010 11590 31 0 0.21 3.4", name: str = "good") -> dict[str, Path]:
    return {
        "diagnostic.txt": made.file(
            f"ctffind_{name}.txt", HEADER.replace("200.0 keV", "300.0 keV") + row + "\n"
        )
    }


def _gctf(made: Made, u: float = CTF[0], name: str = "good") -> dict[str, Path]:
    path = made.folder / f"gctf_{name}.star"
    row = {
        "rlnMicrographName": ["micrograph.mrc"],
        "rlnDefocusU": [u],
        "rlnDefocusV": [u - 400.0],
        "rlnDefocusAngle": [30.0],
        "rlnVoltage": [300.0],
        "rlnCtfFigureOfMerit": [0.2],
        "rlnFinalResolution": [3.6],
    }
    write_star(path, {"": pd.DataFrame(row)})
    return {"result.star": path}


def _picks(made: Made, name: str, shift: float = 0.0) -> dict[str, Path]:
    path = made.folder / f"their_picks_{shift:g}.star"
    write_coordinates(path, made.picks_yx + shift, np.linspace(5, 1, len(made.picks_yx)))
    return {name: path}


def _rows(made: Made, form: str, name: str, head: str = "", shift: float = 0.0) -> dict[str, Path]:
    text = head + "\n".join(form.format(x=x + shift, y=y + shift) for y, x in made.picks_yx) + "\n"
    return {"picks.txt": made.file(f"{name}_{shift:g}.txt", text)}


def _extracted(made: Made, box: int = 32) -> dict[str, Path]:
    count = len(made.picks_yx)
    rows = {
        "rlnImageName": [f"{n:06d}@out/micrograph.mrcs" for n in range(1, count + 1)],
        "rlnMicrographName": "micrograph.mrc",
        "rlnOpticsGroup": 1,
    }
    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnImagePixelSize": [4.0],
        "rlnImageSize": [box],
    }
    path = made.folder / "extracted.star"
    write_particles(path, pd.DataFrame(rows), pd.DataFrame(optics))
    return {"particles.star": path, "out/micrograph.mrcs": made.stack}


CTF_ANSWERS = (
    "micrograph.mrc",
    "diagnostic.mrc",
    "1.4",
    "300",
    "2.7",
    "0.1",
    "512",
    "30",
    "5",
    "5000",
    "50000",
    "500",
    "no",
    "no",
    "yes",
    "1000",
    "no",
)
TOPAZ_HEAD = "image_name\tx_coord\ty_coord\tscore\n"
_REFINE = "--i particles.star --o out/run --particle_diameter 100 --tau2_fudge {tau} --flatten_solvent --norm --scale --oversampling 1 --offset_range 5 --offset_step 2 --pad 2 --j 2 --pool 3 --dont_combine_weights_via_disc --no_parallel_disc_io --zero_mask"  # fmt: skip
_MAP = " --ref reference.mrc --ini_high 50 --sym C1 --healpix_order 2 --firstiter_cc"


def _words(text: str) -> list[list[str]]:
    return [text.split()]


def _class3d(made: Made) -> dict[str, Path]:
    found = {"out/run_it002_model.star": relion_model(made, 2), "out/run_it002_data.star": relion_data(made)}
    return found | {f"out/run_it002_class{n:03d}.mrc": made.volume for n in (1, 2)}


def _refined(made: Made) -> dict[str, Path]:
    data = relion_data(made)
    text = data.read_text()
    one = made.folder / "data_one.star"
    one.write_text(text.replace(" 2 1 ", " 1 1 "))
    model = relion_model(made, 1)
    return {
        "out/run_it005_half1_model.star": model,
        "out/run_model.star": model,
        "out/run_data.star": one,
        "out/run_class001.mrc": made.volume,
    }


CASES = [
    Case(
        "motion.motioncor2",
        "motioncor2",
        movie_of,
        motion_values,
        _motioncor_command,
        _aligned,
        _aligned,
        says="MotionCor2 version 1.4.0\nFull-frame alignment shift\n" + frame_lines(ONE_BY_ONE),
        nonsense_says="MotionCor2 version 1.4.0\nFull-frame alignment shift\n"
        + frame_lines(ONE_BY_ONE, 90.0),
        old="MotionCor2 version 1.0.2",
    ),
    Case(
        "motion.motioncor3",
        "motioncor3",
        movie_of,
        motion_values,
        lambda made: _motioncor_command(made, "-Cs", "0"),
        _aligned,
        _aligned,
        says="MotionCor3 version 1.1.2\nFrame   x Shift   y Shift\n" + frame_lines(TABLE),
        nonsense_says="MotionCor3 version 1.1.2\nFrame   x Shift   y Shift\n    1  nan  nan\n    2 nan nan\n",
        old="MotionCor3 version 7.0",
    ),
    Case(
        "motion.relion",
        inputs=movie_of,
        values=motion_values,
        command=lambda made: _words(
            "--i movies.star --o out/ --use_own --j 2 --first_frame_sum 1 --last_frame_sum 8 --bin_factor 1 --bfactor 150 --patch_x 5 --patch_y 4 --angpix 1 --voltage 300 --preexposure 0 --dose_per_frame 1.5 --dose_weighting"
        ),
        files=_relion_motion,
        nonsense=_relion_motion_short,
        executable="relion_run_motioncorr",
        **RELION,
    ),
    Case(
        "motion.unblur",
        "unblur",
        movie_of,
        motion_values,
        lambda made: [[]],
        lambda made: {
            "out.mrc": made.aligned,
            "shifts.txt": made.file(
                "unblur.txt",
                "# Unblur shifts\n"
                + " ".join(f"{2.0 * n:.4f}" for n in range(8))
                + "\n"
                + " ".join(f"{1.0 * n:.4f}" for n in range(8))
                + "\n",
            ),
        },
        lambda made: {"out.mrc": made.aligned, "shifts.txt": made.file("unblur_bad.txt", "0 1 2\n0 1 2\n")},
        says="**** Welcome to Unblur ****\nVersion: 1.0.2",
        old="Version: 2.4",
        answers=("movie.mrcs", "8", "out.mrc", "shifts.txt", "1", "YES", "1.5", "300", "0", "NO", "NO"),
    ),
    Case(
        "ctf.ctffind4",
        "ctffind4",
        ring_of,
        lambda made: {},
        lambda made: [["--omp-num-threads", "2"]],
        _ctffind,
        lambda made: _ctffind(made, "1 900000 899000 31 0 0.21 3.4", "bad"),
        says="Version : 4.1.14",
        old="Version : 3.5.0",
        answers=(*CTF_ANSWERS, "no"),
    ),
    Case(
        "ctf.ctffind5",
        "ctffind5",
        ring_of,
        lambda made: {},
        lambda made: [["--omp-num-threads", "2"]],
        _ctffind,
        lambda made: _ctffind(made, "1 12010 -11590 31 0 0.21 3.4", "bad5"),
        says="Version : 5.0.2",
        old="Version : 4.1.14",
        answers=(*CTF_ANSWERS, "no", "no", "no"),
    ),
    Case(
        "ctf.gctf",
        "gctf",
        ring_of,
        lambda made: {},
        lambda made: _words(
            "--apix 1.4 --kV 300 --Cs 2.7 --ac 0.1 --resL 30 --resH 5 --defL 5000 --defH 50000 --defS 500 --astm 1000 --boxsize 512 --gid 1 --ctfstar result.star micrograph.mrc"
        ),
        _gctf,
        lambda made: _gctf(made, 400000.0, "bad"),
        says="Gctf_v1.18",
        old="Gctf_v0.10",
    ),
    Case(
        "pick.dogpicker",
        "dogpicker",
        micrograph_of,
        lambda made: {"particle_diameter_A": 80},
        lambda made: _words(
            "--image=micrograph.mrc --outfile=picks.txt --diam=80 --apix=2 --thresh=0.5 --bin=4"
        ),
        lambda made: _rows(made, "{x:.0f}\t{y:.0f}\t0.9", "dog"),
        lambda made: _rows(made, "{x:.0f}\t{y:.0f}\t0.9", "dog", shift=9000.0),
    ),
    Case(
        "pick.relion_log",
        inputs=micrograph_of,
        values=lambda made: {"particle_diameter_A": 80},
        command=lambda made: _words(
            "--i micrographs.star --odir out/ --pickname picks --shrink 0 --lowpass 20 --LoG --LoG_diam_min 64 --LoG_diam_max 80 --LoG_adjust_threshold 0"
        ),
        files=lambda made: _picks(made, "out/micrograph_picks.star"),
        nonsense=lambda made: _picks(made, "out/micrograph_picks.star", 9000.0),
        executable="relion_autopick",
        **RELION,
    ),
    Case(
        "pick.relion_template",
        inputs=micrograph_of,
        values=lambda made: {"particle_diameter_A": 80, "references": made.stack},
        command=lambda made: _words(
            "--i micrographs.star --odir out/ --pickname picks --shrink 0 --lowpass 20 --ref references.mrcs --particle_diameter 80 --ang 5 --threshold 0.05 --min_distance 40 --max_stddev_noise 1.1 --invert --gpu 1"
        ),
        files=lambda made: _picks(made, "out/micrograph_picks.star"),
        nonsense=lambda made: _picks(made, "out/micrograph_picks.star", 9000.0),
        executable="relion_autopick",
        **RELION,
    ),
    Case(
        "pick.topaz",
        "topaz",
        micrograph_of,
        lambda made: {"particle_diameter_A": 80, "threshold": -1.5},
        lambda made: [
            ["preprocess", "--scale", "1", "--device", "1", "--destdir", "scaled", "micrograph.mrc"],
            [
                "extract",
                "--radius",
                "20",
                "--threshold",
                "-1.5",
                "--up-scale",
                "1",
                "--device",
                "1",
                "--output",
                "picks.txt",
                "scaled/micrograph.mrc",
            ],
        ],
        lambda made: (
            _rows(made, "a b\t{x:.0f}\t{y:.0f}\t2.5", "topaz", TOPAZ_HEAD)
            | {"scaled/micrograph.mrc": made.micrograph}
        ),
        lambda made: (
            _rows(made, "a b\t{x:.0f}\t{y:.0f}\tnan", "topaz_bad", TOPAZ_HEAD)
            | {"scaled/micrograph.mrc": made.micrograph}
        ),
        version="TOPAZ 0.2.5",
        old="TOPAZ 0.1.0",
        version_arguments=("--version",),
    ),
    Case(
        "pick.gautomatch",
        "gautomatch",
        micrograph_of,
        lambda made: {"particle_diameter_A": 80},
        lambda made: _words(
            "--apixM 2 --diameter 80 --cc_cutoff 0.1 --lp 30 --hp 1000 --gid 1 micrograph.mrc"
        ),
        lambda made: _picks(made, "micrograph_automatch.star"),
        lambda made: _picks(made, "micrograph_automatch.star", 9000.0),
    ),
    Case(
        "pick.cryolo",
        "cryolo",
        micrograph_of,
        lambda made: {"particle_diameter_A": 80, "config": made.ctf, "weights": made.stack},
        lambda made: [
            [
                "-c",
                str(made.ctf),
                "-w",
                str(made.stack),
                *["-i", "micrograph.mrc", "-o", "out", "-t", "0.3", "-g", "1"],
            ]
        ],
        lambda made: _picks(made, "out/STAR/micrograph.star"),
        lambda made: _picks(made, "out/STAR/micrograph.star", 9000.0),
        version="cryolo 1.9.6",
        old="cryolo 1.2.0",
        version_arguments=("--version",),
    ),
    Case(
        "extract.relion",
        inputs=lambda made: {"micrograph": made.micrograph, "coordinates": made.coordinates, "ctf": made.ctf},
        values=lambda made: {"particle_diameter_A": 80, "box_size_px": 64, "scaled_box_px": 32},
        command=lambda made: _words(
            "--i micrographs.star --coord_dir ./ --coord_suffix _picks.star --part_star particles.star --part_dir out/ --extract --extract_size 64 --scale 32 --norm --bg_radius 11 --white_dust -1 --black_dust -1 --invert_contrast"
        ),
        files=_extracted,
        nonsense=lambda made: _extracted(made) | {"out/micrograph.mrcs": made.micrograph},
        executable="relion_preprocess",
        **RELION,
    ),
    Case(
        "class2d.relion",
        inputs=lambda made: {},
        values=lambda made: {"particle_diameter_A": 100, "n_classes": 2, "iterations": 2},
        command=lambda made: _words(_REFINE.format(tau=2) + " --K 2 --iter 2 --psi_step 12"),
        files=lambda made: {
            "out/run_it002_model.star": relion_model(made, 2),
            "out/run_it002_classes.mrcs": made.stack,
            "out/run_it002_data.star": relion_data(made),
        },
        nonsense=lambda made: {
            "out/run_it002_model.star": relion_model(made, 3),
            "out/run_it002_classes.mrcs": made.stack,
            "out/run_it002_data.star": relion_data(made),
        },
        executable="relion_refine",
        **RELION,
    ),
    Case(
        "class3d.relion",
        inputs=lambda made: {},
        values=lambda made: {
            "particle_diameter_A": 100,
            "n_classes": 2,
            "iterations": 2,
            "reference": made.reference,
        },
        command=lambda made: _words(_REFINE.format(tau=4) + _MAP + " --K 2 --iter 2"),
        files=_class3d,
        nonsense=lambda made: _class3d(made) | {"out/run_it002_class001.mrc": empty_map(made)},
        executable="relion_refine",
        **RELION,
    ),
    Case(
        "refine3d.relion",
        inputs=lambda made: {},
        values=lambda made: {
            "particle_diameter_A": 100,
            "reference": made.reference,
            "mpi_launcher": ["env", "MPI={mpi}"],
        },
        command=lambda made: _words(
            _REFINE.format(tau=1)
            + _MAP
            + " --auto_refine --split_random_halves --auto_local_healpix_order 4 --low_resol_join_halves 40"
        ),
        files=_refined,
        nonsense=lambda made: _refined(made) | {"out/run_class001.mrc": empty_map(made)},
        executable="relion_refine",
        **RELION,
    ),
]
