"""What a report says of people's part: the verdict as the page gives it, what they rejected and why, their limits."""

import time
from collections import defaultdict
from typing import Any

import numpy as np
from sqlalchemy.orm import Session as OrmSession

from vitriflow import words
from vitriflow.catalog import Mark, views
from vitriflow.elogbook.limits import within
from vitriflow.elogbook.marks import standing_marks_of
from vitriflow.facility.report_numbers import Columns
from vitriflow.facility.verdict import Facts, Verdict, find_trends, judge, median

_EXAMPLES = 3
_COMMENTS = 200


def verdict_of(
    orm: OrmSession, session: views.SessionView, processing: views.ProcessingView | None, columns: Columns
) -> Verdict:
    """The verdict, by the rule and from the facts that the session's page has."""
    counts = columns.counts
    rejected = sum(kind == "reject" for kind in _of(columns).values())
    finite = columns.times[np.isfinite(columns.times)]
    awaits = session.state == "active" and columns.whole
    return judge(
        Facts(
            total=counts["total"],
            finished=counts["total"] - counts["open"],
            usable=counts["usable"],
            fit_A=median(columns.values["fit_resolution_A"][columns.usable]),
            motion_A=median(columns.values["total_A"][columns.usable]),
            trends=find_trends(columns.values, columns.times),
            gain_alarm=_gain_alarm(orm, session.id, processing.id if processing else None),
            problems=[(one["count"], one["status"], one["text"]) for one in columns.set_aside()],
            rejected_by_people=rejected,
            outside_limits=int(np.count_nonzero(~columns.passing & (columns.status == "done"))),
            quiet_s=time.time() - float(finite.max()) if len(finite) and awaits else 0.0,
        )
    )


def _of(columns: Columns) -> dict[int, str]:
    """What people said of the exposures that the processing has."""
    mine = set(columns.ids.tolist())
    return {number: kind for number, kind in columns.verdicts.items() if number in mine}


def _gain_alarm(orm: OrmSession, session_id: int, processing_id: int | None) -> str:
    found: dict[int | None, str] = {}
    for number, severity, text in views.gain_events(orm, session_id, 0)[1]:
        found[number] = text if severity == "alarm" else ""
    return found.get(processing_id) or found.get(None) or ""


def people_said(orm: OrmSession, session_id: int, columns: Columns) -> dict[str, Any]:
    """Exposures that people rejected and kept, by who and why, most first; and their comments."""
    verdicts, comments = standing_marks_of(orm, session_id)
    mine = set(columns.ids.tolist())
    groups: dict[tuple[str, str, str], list[Mark]] = defaultdict(list)
    for number, mark in verdicts.items():
        if number in mine:
            groups[mark.kind, mark.author, mark.text].append(mark)
    shown = [mark for marks in groups.values() for mark in marks[-_EXAMPLES:]]
    comments = [mark for mark in comments if mark.exposure_id in mine]
    ids = {mark.exposure_id for mark in [*shown, *comments[-_COMMENTS:]]}
    names = views.exposure_names(orm, session_id, ids)

    def name(mark: Mark) -> str:
        return names.get(mark.exposure_id, str(mark.exposure_id))

    found: dict[str, Any] = {"reject": [], "keep": []}
    for (kind, author, text), marks in sorted(groups.items(), key=lambda one: (-len(one[1]), one[0])):
        examples = [name(mark) for mark in marks[-_EXAMPLES:][::-1]]
        found[kind].append({"author": author, "why": text, "count": len(marks), "newest": examples})
    found["comments"] = [
        {"exposure": name(mark), "author": mark.author, "text": mark.text, "at": mark.at}
        for mark in comments[-_COMMENTS:]
    ]
    return found


def limits_said(
    orm: OrmSession, processing: views.ProcessingView | None, columns: Columns
) -> list[dict[str, Any]]:
    """Limits that people set, each with how many of the finished exposures are outside it."""
    known = views.newest_limits(orm, processing.id) if processing is not None else None
    found = []
    done = columns.status == "done"
    for name, (low, high) in (known["values"] if known else {}).items():
        shown = words.QUANTITIES[name]
        outside = int(np.count_nonzero(done & ~within(columns.values[name], low, high)))
        ends = {"lowest": low, "highest": high, "digits": shown.digits, "unit": shown.unit}
        who = {"author": known["author"], "at": known["at"]} if known else {}
        found.append({"name": name, "label": shown.label, **ends, "outside": outside, **who})
    return found
