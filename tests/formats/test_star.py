"""STAR files: read back as written, readable by RELION, refused when broken."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vitriflow.errors import BadFile, BadParameter, Reason
from vitriflow.formats import read_star, write_star


def test_star_of_relion_5_is_read(real_data: Path) -> None:
    blocks = read_star(real_data / "empiar-10204-relion5/MotionCorr/20170629_00021_frameImage.star")
    assert list(blocks) == [
        "general", "global_shift", "local_motion_model", "hot_pixels", "local_shift"
    ]  # fmt: skip
    general = blocks["general"]
    assert isinstance(general, dict)
    assert general["rlnMicrographDoseRate"] == pytest.approx(1.277)
    shifts = blocks["global_shift"]
    assert isinstance(shifts, pd.DataFrame)
    assert shifts["rlnMicrographShiftX"].iloc[0] == 0


def _table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rlnMicrographName": ["a b/été 1.mrc", "0012", "plain.mrc"],
            "rlnOpticsGroup": [1, 1, 2],
            "rlnIsFlip": [True, False, True],
            "rlnDefocusU": [12345.678901, 1.5e-9, -3.0],
            "rlnAnglePsi": np.array([0.1, 12.0, 359.999999], np.float32),
        }
    )


def test_star_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    table = _table()
    write_star(
        tmp_path / "a.star", {"optics": {"rlnVoltage": 300.0, "rlnImageName": "x y"}, "micrographs": table}
    )
    blocks = read_star(tmp_path / "a.star")
    assert blocks["optics"] == {"rlnVoltage": 300, "rlnImageName": "x y"}
    again = blocks["micrographs"]
    assert isinstance(again, pd.DataFrame)
    assert again["rlnMicrographName"].tolist() == table["rlnMicrographName"].tolist()
    np.testing.assert_allclose(again["rlnDefocusU"], table["rlnDefocusU"], rtol=1e-9)
    assert again["rlnIsFlip"].tolist() == [1, 0, 1]
    np.testing.assert_allclose(again["rlnAnglePsi"], table["rlnAnglePsi"], rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), None, pd.NA, np.float32("inf"), "two\nlines", 'say "no"'])
def test_what_relion_could_not_read_is_not_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(BadParameter, match="rlnThing of data_x"):
        write_star(tmp_path / "a.star", {"x": {"rlnThing": value}})
    assert not (tmp_path / "a.star").exists()


@pytest.mark.parametrize(
    "text", ["", "hello\n", "data_a\n\nloop_\n_x #1\n_y #2\n1 2\n3 4 5 6\n", "data_a\ndata_a\n"]
)
def test_a_broken_star_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.star").write_text(text)
    with pytest.raises(BadFile) as caught:
        read_star(tmp_path / "a.star")
    assert caught.value.reason is (Reason.METADATA_BROKEN if text else Reason.EMPTY)


@pytest.mark.service
def test_relion_reads_our_star_names_with_spaces_included(tmp_path: Path, relion: Path) -> None:
    import subprocess

    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["group 1", "group2"],
            "rlnOpticsGroup": [1, 2],
            "rlnVoltage": [300.0, 300.0],
            "rlnSphericalAberration": [2.7, 2.7],
            "rlnAmplitudeContrast": [0.1, 0.1],
            "rlnMicrographPixelSize": [1.0, 1.0],
        }
    )
    write_star(tmp_path / "a.star", {"optics": optics, "micrographs": _table()})
    selection = ["--select", "rlnDefocusU", "--minval", "-1e9", "--maxval", "1e9"]
    command = [relion / "relion_star_handler", "--i", "a.star", "--o", "b.star", *selection]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    again = read_star(tmp_path / "b.star")
    micrographs = again["micrographs"]
    assert isinstance(micrographs, pd.DataFrame)
    assert micrographs["rlnMicrographName"].tolist() == _table()["rlnMicrographName"].tolist()
    np.testing.assert_allclose(micrographs["rlnDefocusU"], _table()["rlnDefocusU"], rtol=1e-6)
    assert list(again["optics"]["rlnOpticsGroupName"]) == ["group 1", "group2"]
