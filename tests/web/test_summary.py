"""Counts that reconcile, and a verdict a person would give."""

import pytest

from tests.web.conftest import OUTCOMES
from tests.web.factory import World
from vitriflow.catalog import views
from vitriflow.errors import Reason
from vitriflow.web import words
from vitriflow.web.columns import ColumnStore
from vitriflow.web.summary import Summary, summarise


def summary_of(world: World) -> Summary:
    def work(db: object) -> Summary:
        session = views.find_session(db, world.key)  # type: ignore[arg-type]
        assert session is not None
        processing = views.list_processings(db, session.id)  # type: ignore[arg-type]
        snapshot = ColumnStore().snapshot(db, session.id, processing[0] if processing else None)  # type: ignore[arg-type]
        return summarise(session, snapshot)

    return world.catalog.read(work)


def test_counts_add_up_to_what_came_in_whatever_state_it_is_in(full: World) -> None:
    summary = summary_of(full)
    counts = summary.counts
    assert counts.total == len(OUTCOMES) == 14
    assert counts.reconciles
    assert (counts.done, counts.failed, counts.rejected, counts.quarantined) == (8, 1, 1, 2)
    assert counts.open == 2  # one is processed, one still being written
    assert counts.growing == 1


def test_exposures_that_no_processing_took_up_are_open(world: World) -> None:
    world.processing_id = 0
    world.add("done")
    world.add("problem")
    counts = summary_of(world).counts
    assert (counts.total, counts.open, counts.quarantined) == (2, 1, 1)
    assert counts.reconciles


def test_a_doubtful_ctf_is_done_but_not_usable(full: World) -> None:
    summary = summary_of(full)
    assert summary.doubtful == 1
    assert summary.usable == summary.counts.done - 1


def test_the_verdict_says_how_many_are_usable_and_why_the_others_are_not(full: World) -> None:
    verdict = summary_of(full).verdict
    assert verdict.sentence.startswith("Fair: 58 % usable (7 of 12), ")
    assert verdict.sentence.endswith(" Å typical.")
    assert not verdict.stop
    assert verdict.level == "fair"
    assert any("quarantined" in reason for reason in verdict.reasons)


def test_before_anything_is_finished_the_verdict_waits(world: World) -> None:
    assert summary_of(world).verdict.sentence == "No exposures yet."
    world.add("open")
    assert summary_of(world).verdict.level == "none"


def test_a_session_without_rings_is_poor(world: World) -> None:
    for _ in range(3):
        world.add("quarantined")
    summary = summary_of(world)
    assert summary.verdict.level == "poor"
    assert summary.verdict.sentence.startswith("Poor: 0 % usable (0 of 3)")
    assert [problem.text for problem in summary.problems] == ["No CTF rings found"]


def test_latency_and_rate_come_from_our_own_times(full: World) -> None:
    summary = summary_of(full)
    assert summary.latency_p50_s is not None
    assert 11 <= summary.latency_p50_s <= summary.latency_p95_s <= 17  # type: ignore[operator]
    assert summary.rate_per_h is not None
    assert summary.rate_per_h > 0


def test_every_reason_has_words() -> None:
    assert set(words.REASONS) == set(Reason)
    assert words.reason_words("facility.own") == "facility.own"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.96, "10 s"),
        (119.0, "2 min"),
        (5 * 3600 + 20 * 60, "5 h 20 min"),
        (None, words.DASH),
    ],
)
def test_lengths_of_time_are_said_as_people_say_them(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text
