"""The outlook of a session, read from the records that classification leaves."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.monitors.day import Day, day
from vitriflow.catalog import ResultRow, now
from vitriflow.errors import BadParameter
from vitriflow.facility.outlook import session_outlook


def _classes(found: Day, number: int, particles: int, *, classes: bool = True) -> None:
    """A batch's record: one good class that grows as ln N = 3 + 100 / d^2, and noise beside it."""
    resolution = math.sqrt(100.0 / (math.log(particles) - 3.0))
    record: dict[str, Any] = {
        "n_classified": 2 * particles,
        "n_selected": particles,
        "classes": [
            {"class_id": 1, "picture": 1, "n_particles": particles, "resolution_A": resolution, "selected": True},
            {"class_id": 2, "picture": 2, "n_particles": particles, "resolution_A": 30.0, "selected": False},
        ] if classes else [],
        "provenance": {"parameters": {"max_resolution_A": 3.0}},
    }  # fmt: skip
    row = {"node": "classes", "item_type": "batch", "item_id": number, "status": "done", "record": record}
    found.catalog.write(
        lambda orm: orm.add(ResultRow(processing_id=found.processing, created_at=now(), **row))
    )


def test_without_classes_it_says_that_nothing_tells(tmp_path: Path) -> None:
    with day(tmp_path) as found:
        _classes(found, 1, 100, classes=False)
        outlook = session_outlook(found.catalog, found.processing)
    assert outlook.outlook is None
    assert "No 2D classification" in outlook.words


def test_half_of_the_particles_are_kept_and_hours_follow_from_the_rate(tmp_path: Path) -> None:
    with day(tmp_path) as found:
        for number, particles in enumerate((200, 400, 800, 1600, 3200), 1):
            _classes(found, number, particles)
        found.add(50, n_particles=100, finished_at=now())
        target = math.sqrt(100.0 / (math.log(6400) - 3.0))
        outlook = session_outlook(found.catalog, found.processing, target)
    assert outlook.kept_share == 0.5
    assert outlook.extracted_per_hour > 5000
    assert outlook.outlook is not None
    assert outlook.outlook.particles_needed == pytest.approx(6400, rel=0.01)
    assert outlook.outlook.hours_left == pytest.approx(3200 / outlook.kept_per_hour, rel=0.02)
    assert "hours more" in outlook.words


def test_a_target_that_is_no_resolution_is_refused(tmp_path: Path) -> None:
    with day(tmp_path) as found, pytest.raises(BadParameter, match="target"):
        session_outlook(found.catalog, found.processing, 0.0)
