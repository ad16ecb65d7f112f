"""Names that RELION can carry, and STAR text that says the same when it's read back."""

import re
from pathlib import Path

import pytest
import starfile
from hypothesis import example, given
from hypothesis import strategies as st

from vitriflow.exports._names import ProjectNames, safe_part, safe_path
from vitriflow.exports._star import loop, parse, row, single, write_if_changed

SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
PARTS = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
    lambda text: text not in (".", "..")
)
WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@example("+")
@given(PARTS)
def test_any_file_name_becomes_plain(text: str) -> None:
    assert SAFE.fullmatch(safe_part(text))


@given(PARTS, PARTS)
def test_two_names_never_become_one(one: str, other: str) -> None:
    if one != other:
        assert safe_part(one) != safe_part(other)


@given(st.from_regex(SAFE, fullmatch=True))
def test_a_plain_name_stays_as_it_is(text: str) -> None:
    assert safe_part(text) == text


def test_a_suffix_stays_last_because_relion_tells_formats_by_it() -> None:
    assert safe_part("Fläche 1.tiff").endswith(".tiff")
    assert safe_path("a b/c.mrc").endswith("/c.mrc")


def test_a_file_outside_of_session_and_project_is_linked_from_the_import_job(tmp_path: Path) -> None:
    names = ProjectNames(tmp_path / "project", tmp_path / "raw")
    elsewhere = tmp_path / "else where" / "x.tiff"
    elsewhere.parent.mkdir()
    elsewhere.write_text("movie")
    name = names.movie(str(elsewhere))
    assert name.startswith("Import/job001/")
    assert " " not in name
    assert (tmp_path / "project" / name).read_text() == "movie"


def test_an_output_outside_of_any_job_folder_has_no_name(tmp_path: Path) -> None:
    names = ProjectNames(tmp_path, tmp_path / "raw")
    assert names.output(str(tmp_path / "MotionCorr" / "x.mrc"), "x") is None
    assert names.output("/elsewhere/MotionCorr/job002/x.mrc", "x") is None


def test_an_item_keeps_its_name_in_every_job_whatever_the_suffix(tmp_path: Path) -> None:
    names = ProjectNames(tmp_path, tmp_path / "raw")
    micrograph = names.output(str(tmp_path / "MotionCorr/job002/a b.v2.mrc"), "a b.v2")
    picks = names.output(str(tmp_path / "AutoPick/job004/a b.v2_autopick.star"), "a b.v2")
    assert micrograph is not None
    assert picks is not None
    stem = micrograph.removeprefix("MotionCorr/job002/").removesuffix(".mrc")
    assert picks == f"AutoPick/job004/{stem}_autopick.star"


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5))
def test_rows_come_back_as_they_were_written(rows: list[tuple[str, str, str]]) -> None:
    labels = ("rlnA", "rlnB", "rlnC")
    text = single("general", {"rlnCounter": 7}) + loop("things", labels, (row(one) for one in rows))
    found = parse(text)
    assert found["general"] == [{"rlnCounter": "7"}]
    assert [tuple(one[label] for label in labels) for one in found["things"]] == rows


def test_starfile_reads_quoted_blanks(tmp_path: Path) -> None:
    path = tmp_path / "x.star"
    path.write_text(loop("micrographs", ("rlnMicrographName", "rlnVoltage"), [row(["a b.mrc", 300.0])]))
    assert starfile.read(path)["rlnMicrographName"][0] == "a b.mrc"


def test_comments_and_layout_do_not_matter() -> None:
    text = "# version 30001\ndata_x\n\nloop_ \n_rlnA #1 \n_rlnB #2 \n  None   007   # why\n \n"
    assert parse(text) == {"x": [{"rlnA": "None", "rlnB": "007"}]}


def test_an_unchanged_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "x.star"
    assert write_if_changed(path, "one")
    before = path.stat()
    assert not write_if_changed(path, "one")
    assert path.stat().st_ino == before.st_ino
    assert write_if_changed(path, "two")
    assert path.read_text() == "two"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.star"
    write_if_changed(path, "old")

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_if_changed(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
