"""When triggers let go: whatever arrives, in whatever portions, goes on once."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from vitriflow.pipeline.lanes import Lane, Waiting
from vitriflow.steps import TriggerParameters

START = datetime(2026, 1, 1, tzinfo=UTC)
arrivals = st.lists(st.lists(st.integers(0, 300), max_size=6), max_size=12)


def feed(
    lane: Lane, portions: list[list[int]], gap_s: float, end: bool = True
) -> list[tuple[tuple[int, ...], str]]:
    """Exposures come in portions; what goes on, with why."""
    found: list[tuple[tuple[int, ...], str]] = []
    moment, number = START, 0
    for portion in [*portions, []]:
        joined = {}
        for particles in portion:
            number += 1
            joined[number] = Waiting(particles, moment)
        last = end and portion is portions[-1] if portions else end
        releases = lane.releases(joined, moment, ending=bool(last), signalled=False)
        lane.take(joined, releases, stop=False)
        found += [(one.exposures, one.cause) for one in releases]
        moment += timedelta(seconds=gap_s)
    return found


@given(
    arrivals,
    st.one_of(st.none(), st.integers(1, 10)),
    st.one_of(st.none(), st.integers(1, 900)),
    st.sampled_from([None, 0.5, 2.5]),
)
def test_batches_hold_every_exposure_once_and_are_as_large_as_was_asked(
    portions: list[list[int]], micrographs: int | None, particles: int | None, after_s: float | None
) -> None:
    if micrographs is None and particles is None and after_s is None:
        micrographs = 3
    lane = Lane(
        "t",
        TriggerParameters(micrographs=micrographs, particles=particles, after_s=after_s, release="batches"),
    )
    counts = [0, *(one for portion in portions for one in portion)]
    found = feed(lane, portions, gap_s=1.0)
    released = [number for numbers, _ in found for number in numbers]
    assert released == list(range(1, len(counts))), "lost, twice, or out of order"
    assert not lane.waiting
    assert lane.particles == 0
    assert lane.released == len(released)
    for numbers, cause in found:
        brought = [counts[number] for number in numbers]
        if cause == "micrographs":
            assert len(numbers) == micrographs
        elif cause == "particles":
            assert sum(brought) >= particles > sum(brought[:-1])
        else:
            assert micrographs is None or len(numbers) < micrographs
            assert cause in ("time", "end")


@given(arrivals, st.integers(1, 5))
def test_once_lets_go_one_batch_and_forgets_the_rest(portions: list[list[int]], micrographs: int) -> None:
    lane = Lane("t", TriggerParameters(micrographs=micrographs, release="once"))
    found = feed(lane, portions, gap_s=1.0)
    total = sum(map(len, portions))
    assert [len(numbers) for numbers, _ in found] == ([min(micrographs, total)] if total else [])
    assert not lane.waiting or not found


def test_time_lets_a_stalled_stream_go_on() -> None:
    lane = Lane("t", TriggerParameters(after_s=10, release="growing"))
    lane.take({1: Waiting(5, START)}, [], stop=False)
    assert lane.next_time() == START + timedelta(seconds=10)
    assert lane.releases({}, START + timedelta(seconds=9), ending=False, signalled=False) == []
    (release,) = lane.releases({}, START + timedelta(seconds=10), ending=False, signalled=False)
    assert (release.exposures, release.cause, release.particles) == ((1,), "time", 5)


def test_a_growing_trigger_waits_for_its_batch_and_then_takes_all() -> None:
    lane = Lane("t", TriggerParameters(micrographs=2, release="growing"))
    lane.busy = True
    first = {1: Waiting(0, START), 2: Waiting(0, START), 3: Waiting(0, START)}
    assert lane.releases(first, START, ending=True, signalled=False) == []
    lane.take(first, [], stop=False)
    assert lane.next_time() is None
    lane.busy = False
    (release,) = lane.releases({4: Waiting(0, START)}, START, ending=False, signalled=False)
    assert release.exposures == (1, 2, 3, 4)


def test_a_signal_lets_go_what_waits_and_ends_it() -> None:
    lane = Lane("t", TriggerParameters(micrographs=100, stop_on="other"))
    lane.take({1: Waiting(0, START)}, [], stop=False)
    releases = lane.releases({2: Waiting(0, START)}, START, ending=False, signalled=True)
    assert [(one.exposures, one.cause) for one in releases] == [((1, 2), "stop")]
    lane.take({2: Waiting(0, START)}, releases, stop=True)
    assert lane.over
    assert lane.releases({3: Waiting(0, START)}, START, ending=True, signalled=False) == []
