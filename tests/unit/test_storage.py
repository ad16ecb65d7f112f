from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.errors import VitriflowError
from vitriflow.storage import make_session_folder, safe_name, session_folder

WHEN = datetime(2026, 11, 21, tzinfo=UTC)


def test_a_session_lies_where_the_layout_says(tmp_path: Path) -> None:
    folder = session_folder(tmp_path, WHEN, "cm-1234", "tem1", "apo ferritin", "s 1")
    assert folder.root == tmp_path / "202611" / "cm-1234_tem1" / "apo-ferritin" / "s-1"
    assert folder.processed("live") == folder.root / "processed" / "live"


@given(st.text(max_size=200))
def test_any_text_makes_one_safe_folder_name(text: str) -> None:
    name = safe_name(text)
    assert name
    assert len(name) <= 100
    assert name.isascii()
    assert not set(name) & set("/\\ \t\n'\"$;|&<>")
    assert name not in (".", "..")


def test_folders_are_not_world_readable_and_raw_points_to_the_source(tmp_path: Path) -> None:
    source = tmp_path / "tem1 disk"
    source.mkdir()
    folder = session_folder(tmp_path, WHEN, "e", "tem1", "s", "k")
    make_session_folder(folder, source)
    make_session_folder(folder, source)
    assert folder.raw.resolve() == source
    assert folder.root.stat().st_mode & 0o007 == 0


def test_a_session_folder_never_changes_its_source(tmp_path: Path) -> None:
    folder = session_folder(tmp_path, WHEN, "e", "tem1", "s", "k")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    make_session_folder(folder, tmp_path / "one")
    with pytest.raises(VitriflowError, match="--session"):
        make_session_folder(folder, tmp_path / "two")
