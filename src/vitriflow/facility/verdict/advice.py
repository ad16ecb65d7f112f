"""What to do now, in one sentence, for somebody who looks at a session that's being taken."""

from typing import TYPE_CHECKING

from vitriflow import words

if TYPE_CHECKING:
    from vitriflow.facility.verdict.judge import Facts

GO_ON = "Go on collecting."
_TREND = {
    "ice_ring": "Move to squares with thinner ice: they're ranked under 'On the grid'.",
    "fit_resolution_A": "Look at the newest micrographs: check focus and ice, or move to a better square.",
    "total_A": "Let the stage settle longer before each exposure; if it goes on, try another square.",
    "mean_intensity": "Check the beam on an empty hole: if it's as before, the ice is thicker; move to another square.",
    "n_picks": "Look at the newest micrographs: if particles are few, move to another square.",
    "astigmatism_A": "Correct the objective astigmatism before the next square.",
}


def advise(facts: "Facts", level: str, *, fit_is_poor: bool, motion_is_high: bool, quiet_s: float) -> str:
    """The one thing to do first; empty while there's nothing to say.

    Parameters
    ----------
    facts
        What the verdict is made of.
    level
        good, fair or poor.
    fit_is_poor, motion_is_high
        What the verdict thinks of the usable exposures.
    quiet_s
        How long an active session may bring nothing (s).
    """
    if facts.quiet_s > quiet_s:
        return f"Look at the microscope: nothing new came for {words.duration(facts.quiet_s)}."
    if facts.trends:
        return _TREND[facts.trends[0].name]
    if fit_is_poor:
        return "Look at the newest micrographs: check focus and ice, or move to a better square."
    if motion_is_high:
        return _TREND["total_A"]
    return GO_ON if level == "good" else _most_lost(facts)


def _most_lost(facts: "Facts") -> str:
    """What to do about the commonest reason for which exposures can't be used."""
    set_aside = sum(count for count, _, _ in facts.problems)
    known = set_aside + facts.rejected_by_people + facts.outside_limits
    doubtful = facts.finished - facts.usable - known
    most = max(doubtful, set_aside, facts.rejected_by_people, facts.outside_limits)
    if most == set_aside and facts.problems:
        return f"See why under 'Set aside', most often: {facts.problems[0][2]}."
    if most == facts.outside_limits:
        return "Most of what's lost lies outside the limits that people set: check those, then the newest micrographs."
    if most == facts.rejected_by_people:
        return "People set most of these aside: read their comments in the gallery."
    return "The CTF of many can't be trusted: check focus and ice on the newest micrographs, or move to another square."
