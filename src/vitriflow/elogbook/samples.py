"""Samples: what is on the grid, and how it's to be imaged. All functions work inside the caller's transaction."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Experiment, Sample, Session, now
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.experiments import clean_name, find_experiment
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter

_LONGEST = 20_000


def find_sample(orm: OrmSession, experiment: str, name: str) -> Sample:
    """The sample of that name in an experiment.

    Raises
    ------
    BadParameter
        When there's none.
    """
    award = find_experiment(orm, experiment)
    mine = (Sample.experiment_id == award.id, Sample.name == name)
    found = orm.scalar(select(Sample).where(*mine))
    if found is None:
        known = orm.scalars(select(Sample.name).where(Sample.experiment_id == award.id).limit(8))
        raise BadParameter(
            f"sample '{name[:80]}'",
            f"a sample of {experiment}: " + (", ".join(known) or "none yet"),
            "none of that name",
        )
    return found


def create_sample(
    orm: OrmSession,
    caller: Caller,
    experiment: Experiment,
    name: str,
    *,
    title: str = "",
    description: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Sample:
    """Make a sample. ``settings`` are imaging parameters that were checked as a form.

    Raises
    ------
    BadParameter
        When the name is taken or can't be used, or the experiment is closed.
    """
    name = clean_name("sample's name", name, 100)
    if experiment.state == "closed":
        raise BadParameter(
            f"experiment {experiment.name}", "one that's open", "closed", "Open it again first."
        )
    mine = (Sample.experiment_id == experiment.id, func.lower(Sample.name) == name.lower())
    if orm.scalar(select(Sample.id).where(*mine)) is not None:
        raise BadParameter("sample's name", f"one that {experiment.name} doesn't have yet", repr(name))
    sample = Sample(
        experiment_id=experiment.id,
        name=name,
        title=_text("title", title, 500),
        description=_text("description", description, _LONGEST),
        settings=dict(settings or {}),
        created_at=now(),
    )
    orm.add(sample)
    orm.flush()
    audit(orm, caller, "sample.create", f"{experiment.name}/{name}", dict(settings or {}))
    return sample


def edit_sample(orm: OrmSession, caller: Caller, sample: Sample, **changes: Any) -> Sample:
    """Change ``title``, ``description`` or ``settings``. Sessions that were started keep what they had.

    Raises
    ------
    BadParameter
        When a field isn't known or too long.
    """
    unknown = set(changes) - {"title", "description", "settings"}
    if unknown:
        raise BadParameter(f"field '{min(unknown)}'", "title, description or settings", "this name")
    if "title" in changes:
        sample.title = _text("title", changes["title"], 500)
    if "description" in changes:
        sample.description = _text("description", changes["description"], _LONGEST)
    if "settings" in changes:
        sample.settings = dict(changes["settings"])
    experiment = orm.get_one(Experiment, sample.experiment_id)
    audit(orm, caller, "sample.write", f"{experiment.name}/{sample.name}", changes)
    return sample


def clone_sample(
    orm: OrmSession, caller: Caller, sample: Sample, name: str, into: Experiment | None = None
) -> Sample:
    """Make a sample with the title, description and imaging parameters of another.

    Raises
    ------
    BadParameter
        As :func:`create_sample`.
    """
    target = into or orm.get_one(Experiment, sample.experiment_id)
    clone = create_sample(
        orm,
        caller,
        target,
        name,
        title=sample.title,
        description=sample.description,
        settings=sample.settings,
    )
    clone.cloned_from = sample.id
    return clone


def list_samples(orm: OrmSession, experiment_id: int) -> list[dict[str, Any]]:
    """What a list shows of an experiment's samples, newest first."""
    n_sessions = select(func.count(Session.id)).where(Session.sample_id == Sample.id).scalar_subquery()
    active = (
        select(Session.key)
        .where(Session.sample_id == Sample.id, Session.state == "active")
        .order_by(Session.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = select(Sample, n_sessions, active).where(Sample.experiment_id == experiment_id)
    return [
        {
            "name": one.name,
            "title": one.title,
            "description": one.description,
            "settings": one.settings,
            "state": "active" if key else ("used" if count else "new"),
            "active_session": key,
            "sessions": int(count),
            "created_at": one.created_at,
        }
        for one, count, key in orm.execute(query.order_by(Sample.id.desc()))
    ]


def _text(field: str, text: str, longest: int) -> str:
    if len(text) > longest:
        raise BadParameter(field, f"at most {longest} characters", f"{len(text)}")
    return text.strip()
