"""The verdict as pages show it; the rule itself is :func:`vitriflow.facility.verdict.judge`, as for reports."""

from vitriflow.facility.verdict import Facts, Trend, Verdict, find_trends, judge, median
from vitriflow.web.columns import Snapshot

__all__ = ["Facts", "Verdict", "judge", "median", "trends_of"]


def trends_of(snapshot: Snapshot) -> list[Trend]:
    """Quantities that became worse; worked out once a snapshot."""
    known: list[Trend] | None = snapshot.cache.get("trends")
    if known is None:
        known = snapshot.cache["trends"] = find_trends(snapshot.values, snapshot.times["complete"])
    return known
