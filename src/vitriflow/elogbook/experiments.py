"""Experiments: awards of time to people. All functions work inside the caller's transaction."""

import re
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Experiment, Membership, Person, Sample, Session, now
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.people import find_person
from vitriflow.elogbook.permissions import Caller, Role
from vitriflow.errors import BadParameter

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TITLE = 500


def clean_name(thing: str, name: str, longest: int = 64) -> str:
    """A name that's safe in paths, addresses and STAR files.

    Raises
    ------
    BadParameter
        When it has other characters than letters, digits and ``. _ -``, or is too long.
    """
    plain = name.strip()
    if not _NAME.fullmatch(plain) or len(plain) > longest:
        raise BadParameter(
            thing, f"1 to {longest} letters, digits, . _ or -, a letter or digit first", repr(name)[:80]
        )
    return plain


def find_experiment(orm: OrmSession, name: str) -> Experiment:
    """The experiment of that name.

    Raises
    ------
    BadParameter
        When there's none.
    """
    found = orm.scalar(select(Experiment).where(Experiment.name == name))
    if found is None:
        raise BadParameter(
            f"experiment '{name[:80]}'",
            "an experiment of this facility",
            "none of that name",
            "Make it first.",
        )
    return found


def create_experiment(
    orm: OrmSession,
    caller: Caller,
    name: str,
    *,
    title: str = "",
    pi: str | None = None,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
) -> Experiment:
    """Make an experiment; its PI (a login) becomes a collaborator.

    Raises
    ------
    BadParameter
        When the name is taken or can't be used, the PI isn't known, or the dates are the wrong way round.
    """
    name = clean_name("experiment's name", name)
    taken = orm.scalar(select(Experiment.name).where(func.lower(Experiment.name) == name.lower()))
    if taken is not None:
        raise BadParameter(
            "experiment's name", "one that isn't taken", f"experiment {taken}", "Choose another."
        )
    experiment = Experiment(name=name, title=_title(title), created_at=now())
    _set_dates(experiment, starts_at, ends_at)
    orm.add(experiment)
    orm.flush()
    if pi:
        _set_pi(orm, experiment, find_person(orm, pi))
    audit(orm, caller, "experiment.create", name, {"title": title, "pi": pi})
    return experiment


def edit_experiment(orm: OrmSession, caller: Caller, experiment: Experiment, **changes: Any) -> Experiment:
    """Change ``title``, ``pi`` (a login), ``starts_at``, ``ends_at`` or ``state`` (open, closed).

    Raises
    ------
    BadParameter
        When a value can't be right; or the experiment is to be closed while one of its sessions is active.
    """
    unknown = set(changes) - {"title", "pi", "starts_at", "ends_at", "state"}
    if unknown:
        raise BadParameter(f"field '{min(unknown)}'", "title, pi, starts_at, ends_at or state", "this name")
    if "title" in changes:
        experiment.title = _title(changes["title"])
    if "starts_at" in changes or "ends_at" in changes:
        starts = changes.get("starts_at", experiment.starts_at)
        _set_dates(experiment, starts, changes.get("ends_at", experiment.ends_at))
    if changes.get("pi"):
        _set_pi(orm, experiment, find_person(orm, changes["pi"]))
    if "state" in changes:
        _set_state(orm, experiment, changes["state"])
    audit(orm, caller, "experiment.write", experiment.name, changes)
    return experiment


def list_experiments(orm: OrmSession, caller: Caller, search: str = "") -> list[dict[str, Any]]:
    """What a list shows of the experiments that somebody may see, newest first."""
    samples = select(func.count(Sample.id)).where(Sample.experiment_id == Experiment.id).scalar_subquery()
    of_mine = Session.sample_id == Sample.id, Sample.experiment_id == Experiment.id
    sessions = select(func.count(Session.id)).where(*of_mine).scalar_subquery()
    active = select(func.count(Session.id)).where(*of_mine, Session.state == "active").scalar_subquery()
    query = select(Experiment, Person.name, samples, sessions, active).outerjoin(
        Person, Person.id == Experiment.pi_person_id
    )
    if caller.experiments is not None:
        query = query.where(Experiment.id.in_(caller.experiments))
    if search:
        wanted = f"%{search.lower()}%"
        query = query.where(func.lower(Experiment.name + " " + Experiment.title).like(wanted))
    return [
        {
            "name": one.name,
            "title": one.title,
            "pi": pi,
            "state": one.state,
            "starts_at": one.starts_at,
            "ends_at": one.ends_at,
            "created_at": one.created_at,
            "samples": int(n_samples),
            "sessions": int(n_sessions),
            "active": int(n_active),
        }
        for one, pi, n_samples, n_sessions, n_active in orm.execute(query.order_by(Experiment.id.desc()))
    ]


def _title(text: str) -> str:
    if len(text) > _TITLE:
        raise BadParameter("title", f"at most {_TITLE} characters", f"{len(text)}")
    return text.strip()


def _set_dates(experiment: Experiment, starts_at: datetime | None, ends_at: datetime | None) -> None:
    if starts_at is not None and ends_at is not None and ends_at < starts_at:
        raise BadParameter("end of the experiment", f"a time after {starts_at:%Y-%m-%d %H:%M}", f"{ends_at}")
    experiment.starts_at, experiment.ends_at = starts_at, ends_at


def _set_pi(orm: OrmSession, experiment: Experiment, person: Person) -> None:
    experiment.pi_person_id = person.id
    mine = (Membership.experiment_id == experiment.id, Membership.person_id == person.id)
    member = orm.scalar(select(Membership).where(*mine, Membership.until.is_(None)))
    if member is None:
        orm.add(
            Membership(experiment_id=experiment.id, person_id=person.id, role=Role.COLLABORATOR, since=now())
        )


def _set_state(orm: OrmSession, experiment: Experiment, state: str) -> None:
    if state not in ("open", "closed"):
        raise BadParameter("state of the experiment", "open or closed", repr(state)[:40])
    if state == "closed":
        of_mine = Session.sample_id == Sample.id, Sample.experiment_id == experiment.id
        busy = orm.scalar(select(Session.key).where(*of_mine, Session.state == "active").limit(1))
        if busy is not None:
            raise BadParameter(
                f"experiment {experiment.name}", "no active session", f"session {busy}", "Stop it first."
            )
    experiment.state = state
