from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.acquisition.drives import local_path

DRIVES = {
    "X:": Path("/mnt/k2"),
    r"\\falcon\data": Path("/mnt/falcon"),
    r"\\falcon\data\offload": Path("/mnt/offload"),
}


@pytest.mark.parametrize(
    ("named", "here"),
    [
        (r"X:\user\session 1\movie_001.tif", "/mnt/k2/user/session 1/movie_001.tif"),
        (r"x:\a.tif", "/mnt/k2/a.tif"),
        ("X:/a/b.tif", "/mnt/k2/a/b.tif"),
        ("X:\\", "/mnt/k2"),
        (r"\\FALCON\data\Images-Disc1\a.eer", "/mnt/falcon/Images-Disc1/a.eer"),
        (r"\\falcon\data\offload\a.eer", "/mnt/offload/a.eer"),
        (r" X:\ü\a.tif ", "/mnt/k2/ü/a.tif"),
    ],
)
def test_a_microscopes_own_name_for_a_file_is_found_here(named: str, here: str) -> None:
    assert local_path(named, DRIVES) == Path(here)


@pytest.mark.parametrize(
    "named", ["", "movie.tif", r"C:\a.tif", r"X:a.tif", r"X:\..\etc\passwd", r"\\other\data\a"]
)
def test_a_name_that_says_nothing_here_gives_none(named: str) -> None:
    assert local_path(named, DRIVES) is None


@given(st.text(max_size=40))
def test_no_text_leads_out_of_the_drives(rest: str) -> None:
    for named in (rest, "X:\\" + rest):
        found = local_path(named, {"X:": Path("/mnt/k2")})
        assert found is None or found.is_relative_to("/mnt/k2")
        assert found is None or ".." not in found.parts
