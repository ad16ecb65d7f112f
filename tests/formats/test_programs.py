"""Tables of other programs: shifts of MotionCor, picks of EMAN, Topaz and plain rows."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.errors import BadFile
from vitriflow.formats.motioncor import read_motioncor_shifts
from vitriflow.formats.picks import PICK_READERS, read_box, read_topaz, read_xy

ONE_BY_ONE = """\
MotionCor2 version 1.4.0
Full-frame alignment shift
...... Frame (  1) shift:      0.50     -1.00
...... Frame (  2) shift:      1.50     -0.50

Patch alignment: 1 of 4
...... Frame (  1) shift:      9.00      9.00
...... Frame (  2) shift:      9.00      9.00
"""
TABLE = """\
Full-frame alignment shift
   Frame   x Shift   y Shift
       1      0.50     -1.00
       2      1.50     -0.50
Global shifts are corrected: 1.2 sec
       3      7.00      7.00
"""
FULL_LOG = "# full frame\n  1  0.50 -1.00\n  2  1.50 -0.50\n"


@pytest.mark.parametrize("text", [ONE_BY_ONE, TABLE, FULL_LOG], ids=["one by one", "table", "log"])
def test_shifts_are_the_full_frames_first_frame_zero(text: str) -> None:
    assert np.allclose(read_motioncor_shifts(text), [[0, 0], [0.5, 1.0]])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nothing here", "a table of full-frame shifts"),
        (ONE_BY_ONE.replace("(  2) shift:      1.50", "(  4) shift:      1.50"), "one row of shifts a frame"),
        (FULL_LOG.replace("1.50", "nan"), "finite shifts"),
    ],
)
def test_shifts_that_cannot_be_are_refused(text: str, what: str) -> None:
    with pytest.raises(BadFile, match=what):
        read_motioncor_shifts(text)


def _file(folder: Path, text: str) -> Path:
    path = folder / "picks"
    path.write_text(text)
    return path


def test_boxes_are_told_by_their_centres(tmp_path: Path) -> None:
    yx, score = read_box(_file(tmp_path, "10 20 30 40\n-5 0 20 20 0.7\n"))
    assert yx.tolist() == [[40.0, 25.0], [10.0, 5.0]]
    assert score.tolist() == [0.0, 0.7]


def test_topaz_names_may_hold_spaces(tmp_path: Path) -> None:
    yx, score = read_topaz(_file(tmp_path, "image_name\tx_coord\ty_coord\tscore\na b c\t10\t20\t-1.5\n"))
    assert (yx.tolist(), score.tolist()) == ([[20.0, 10.0]], [-1.5])
    assert len(read_topaz(_file(tmp_path, "image_name\tx_coord\ty_coord\tscore\n"))[0]) == 0


def test_plain_rows_may_have_a_head_commas_and_no_score(tmp_path: Path) -> None:
    yx, _ = read_xy(_file(tmp_path, "x,y\n1,2\n# more\n3,4\n"))
    assert yx.tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert len(read_xy(_file(tmp_path, ""))[0]) == 0


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        ("box", "1 2 3\n"),
        ("box", "1 2 x 4\n"),
        ("topaz", "1 2 3\n"),
        ("topaz", "image_name x_coord y_coord score\na 1 2 nan\n"),
        ("xy", "1 inf\n"),
    ],
)
def test_broken_picks_are_refused(tmp_path: Path, reader: str, text: str) -> None:
    with pytest.raises(BadFile):
        PICK_READERS[reader](_file(tmp_path, text))


@given(text=st.text(max_size=200), reader=st.sampled_from(["box", "topaz", "xy"]))
def test_any_text_gives_finite_picks_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, reader: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any picks"
    path.write_text(text, encoding="utf-8", errors="ignore")
    with contextlib.suppress(BadFile):
        yx, score = PICK_READERS[reader](path)
        assert yx.shape == (len(score), 2)
        assert np.isfinite(yx).all()


@given(text=st.text(st.sampled_from("Frame() shift:x-.0123456789\n naif"), max_size=200))
def test_any_text_gives_finite_shifts_or_is_refused(text: str) -> None:
    with contextlib.suppress(BadFile):
        shifts = read_motioncor_shifts(text)
        assert np.isfinite(shifts).all()
        assert shifts[0].tolist() == [0.0, 0.0]
