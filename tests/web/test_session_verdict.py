"""The sentence at the top: what a change looks like in made-up columns, and when it says stop."""

import numpy as np
import pytest

from tests.web.factory import World
from tests.web.test_summary import summary_of
from vitriflow.catalog import Event, now
from vitriflow.facility.verdict.trends import WATCHED, Trend, change_point, find_trend
from vitriflow.web.verdict import Facts, judge

ICE = WATCHED[0]


def ice(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(9.0, 0.12, n)


def trend(values: np.ndarray) -> Trend | None:
    return find_trend(ICE, values, np.arange(len(values)) * 10.0)


def test_noise_alone_is_no_news() -> None:
    assert not [seed for seed in range(200) if trend(ice(seed, 300)) is not None]


@pytest.mark.parametrize("last", [15, 40, 120])
def test_a_step_up_is_found_with_its_time(last: int) -> None:
    values = np.concatenate([ice(1, 300), 1.8 * ice(2, last)])
    found = trend(values)
    assert found is not None
    assert abs(found.since / 10.0 - 300) <= 8
    assert found.after > 1.5 * found.before


def test_a_slow_rise_is_found() -> None:
    assert trend(np.linspace(1.0, 2.0, 120) + 0.15 * np.random.default_rng(3).normal(size=120)) is not None


def test_a_change_for_the_better_is_not_told() -> None:
    assert trend(np.concatenate([1.8 * ice(1, 200), ice(2, 100)])) is None


def test_what_is_over_is_not_told() -> None:
    assert trend(np.concatenate([ice(1, 120), 2.0 * ice(2, 60), ice(3, 60)])) is None


def test_a_few_wild_values_change_nothing() -> None:
    values = ice(4, 200)
    values[[50, 120, 180, 199]] = 1e6
    assert trend(values) is None
    stepped = np.concatenate([values, 1.8 * ice(5, 60)])
    assert trend(stepped) is not None


def test_gaps_order_and_sameness_do_no_harm() -> None:
    rng = np.random.default_rng(6)
    values = np.concatenate([ice(1, 200), 1.8 * ice(2, 60)])
    moments = np.arange(260) * 10.0
    values[rng.random(260) < 0.2] = np.nan
    order = rng.permutation(260)
    known = find_trend(ICE, values, moments)
    assert known is not None
    assert find_trend(ICE, values[order], moments[order]) == known
    assert trend(np.full(100, 1.0)) is None
    assert trend(np.full(5, np.nan)) is None
    assert change_point(np.ones(10)) is None


def test_the_sentence_names_the_change_and_the_reasons_hold_its_numbers(world: World) -> None:
    for number in range(30):
        world.add(ice=1.0 + 0.01 * (number % 7) + (0.9 if number >= 18 else 0.0))
    verdict = summary_of(world).verdict
    assert verdict.level == "fair"
    assert verdict.sentence.startswith("Good: 100 % usable (30 of 30), ")
    assert ", but ice is getting thicker since " in verdict.sentence
    assert any(text.startswith("Ice ring: 1.0") for text in verdict.reasons)


def test_a_wrong_gain_reference_stops_and_a_right_one_lets_go_on(world: World) -> None:
    from vitriflow.web.overlay import OverlayStore
    from vitriflow.web.summary import summarise

    world.add()
    store = OverlayStore()

    def verdict():
        def work(db):
            overlay = store.overlay(db, world.session_id, world.processing_id)
            from vitriflow.catalog import views
            from vitriflow.web.columns import ColumnStore

            session = views.find_session(db, world.key)
            processing = views.list_processings(db, session.id)[0]
            return summarise(session, ColumnStore().snapshot(db, session.id, processing), overlay).verdict

        return world.catalog.read(work)

    def say(severity: str, text: str) -> None:
        event = {"at": now(), "session_id": world.session_id, "processing_id": world.processing_id}
        world.catalog.write(lambda db: db.add(Event(**event, severity=severity, text=text)))

    say("alarm", "Gain check on 2 movies: The gain reference is flipped in y. Use flip_y.")
    told = verdict()
    assert told.stop
    assert told.sentence == "Stop: the gain reference is flipped in y."
    assert "Use flip_y." in told.reasons[0]
    say("info", "Gain check on 2 movies: The gain reference is right.")
    assert not verdict().stop


def test_a_share_is_never_rounded_to_all_or_nothing() -> None:
    def sentence(usable: int) -> str:
        return judge(Facts(1000, 1000, usable, None, None, [], "", [], 0, 0, 0.0)).sentence

    assert "99 % usable (999 of 1,000)" in sentence(999)
    assert "1 % usable (1 of 1,000)" in sentence(1)
    assert "100 % usable" in sentence(1000)
    assert "0 % usable" in sentence(0)
