"""Pixel sizes of binned micrographs in RELION's optics."""

import pytest

from vitriflow.exports._records import Done, Item, optics_of

ITEM = Item(id=1, key="a", item="a", path="a.tif", kind="movie", optics_group=1)


def test_the_movie_s_pixel_size_is_the_one_that_was_used_not_one_worked_back():
    # 512 px binned by 1.5 are 340 px, not 341.33
    record = {
        "n_frames": 5,
        "pixel_size_A": 512 / 340,
        "movie_pixel_size_A": 1.0,
        "parameters": {"bin_factor": 1.5},
    }
    found = optics_of(ITEM, [Done("motion", record)])
    assert found.original_pixel_A == pytest.approx(1.0)
    assert found.pixel_A == pytest.approx(512 / 340)


def test_results_of_before_that_was_kept_still_have_one():
    record = {"n_frames": 5, "pixel_size_A": 2.0, "parameters": {"bin_factor": 2.0}}
    assert optics_of(ITEM, [Done("motion", record)]).original_pixel_A == pytest.approx(1.0)
