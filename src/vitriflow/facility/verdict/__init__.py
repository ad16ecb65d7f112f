"""The verdict on a session, for pages and reports alike: one sentence, its reasons, and what to do."""

from vitriflow.facility.verdict.judge import Facts, Verdict, judge, median
from vitriflow.facility.verdict.trends import Trend, find_trends

__all__ = ["Facts", "Trend", "Verdict", "find_trends", "judge", "median"]
