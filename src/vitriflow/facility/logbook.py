"""What an operator does in the elogbook, joined: a sample's form, its activation, its end."""

import secrets
from collections.abc import Mapping
from typing import Any

from vitriflow.catalog import Catalog, Microscope, Sample, Session, SessionState, now
from vitriflow.config import Config
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.entries import note
from vitriflow.elogbook.experiments import find_experiment
from vitriflow.elogbook.permissions import Caller
from vitriflow.elogbook.samples import find_sample
from vitriflow.errors import BadParameter
from vitriflow.facility.activation import AUTO, Activation, activate, end_session
from vitriflow.facility.choose import choose_microscope
from vitriflow.facility.session_form import SessionSettings, parameters_for, prune, read_form, readers
from vitriflow.pipeline import Template, load_template
from vitriflow.storage import safe_name

DEFAULT_TEMPLATE = "single-particle"
TEMPLATE = "template"  # in a sample's settings, beside the imaging parameters


def template_of(settings: Mapping[str, Any], config: Config | None = None) -> Template:
    """The template that a sample's sessions are processed by.

    Raises
    ------
    BadTemplate
        When there's no such template any more.
    """
    usual = config.processing.template if config is not None else "auto"
    named = settings.get(TEMPLATE) or (DEFAULT_TEMPLATE if usual == "auto" else usual)
    return load_template(str(named))


def read_sample_form(answers: Mapping[str, Any], config: Config | None = None) -> dict[str, Any]:
    """Check a sample's form; what's stored is what was said, and the template's name.

    Raises
    ------
    BadForm
        Naming every field that's wrong.
    BadTemplate
        When there's no such template.
    """
    template = template_of(answers, config)
    rest = {name: value for name, value in answers.items() if name != TEMPLATE}
    record = read_form(template, rest).record()
    if answers.get(TEMPLATE):
        record[TEMPLATE] = str(answers[TEMPLATE])
    return record


def settings_of(sample: Sample, config: Config | None = None) -> tuple[Template, SessionSettings]:
    """A sample's imaging parameters as they'd be for a session started now."""
    stored = dict(sample.settings or {})
    template = template_of(stored, config)
    stored.pop(TEMPLATE, None)
    return template, read_form(template, stored)


def activate_sample(
    config: Config,
    catalog: Catalog,
    caller: Caller,
    experiment: str,
    sample: str,
    *,
    microscope: str | None = None,
    source: str = AUTO,
    mode: str | None = None,
) -> Session:
    """Start a session of a sample on a microscope: acquisition and processing begin by themselves.

    Raises
    ------
    BadParameter, BadTemplate, Busy
        When something isn't so, or the microscope works on another session; nothing was begun then.
    """
    award, grid = catalog.read(
        lambda orm: (find_experiment(orm, experiment), find_sample(orm, experiment, sample))
    )
    if award.state == "closed":
        raise BadParameter(f"experiment {experiment}", "one that's open", "closed", "Open it again first.")
    template, settings = settings_of(grid, config)
    pipeline = prune(template, settings.imaging)
    session = activate(
        config if pipeline is template else _without_pruned(config, template, pipeline),
        catalog,
        Activation(
            microscope=microscope,
            experiment=experiment,
            sample=sample,
            source=source,
            session=_session_key(config, sample, microscope),
            mode=mode,
            pipeline=pipeline,
            parameters=parameters_for(pipeline, settings) if settings.imaging.preprocess else {},
            settings=settings.record(),
            process=settings.imaging.preprocess,
        ),
    )

    def work(orm: Any) -> None:
        name = orm.get_one(Microscope, session.microscope_id).name
        text = f"**{sample}** activated on {name} by {caller.login or 'somebody'}: session {session.key}"
        note(orm, award.id, text, sample_id=grid.id, session_id=session.id, tags=["session"])
        audit(orm, caller, "session.start", session.key, {"microscope": name, "source": source})

    catalog.write(work)
    return session


def _session_key(config: Config, sample: str, microscope: str | None) -> str:
    """A name that no other session has: time, sample, microscope, and a mark against equal seconds."""
    name, _ = choose_microscope(config, microscope)
    return f"{now():%Y%m%d-%H%M%S}-{safe_name(sample)[:50]}-{name[:40]}-{secrets.token_hex(2)}"


def _without_pruned(config: Config, template: Template, pipeline: Template) -> Config:
    """The configuration without values that only a pruned node would have read."""
    gone = set(readers(template)) - set(readers(pipeline))
    kept = {name: value for name, value in config.processing.parameters.items() if name not in gone}
    processing = config.processing.model_copy(update={"parameters": kept})
    return config.model_copy(update={"processing": processing})


_DID = {
    SessionState.PAUSED: "paused",
    SessionState.ACTIVE: "resumed",
    SessionState.CLOSED: "stopped",
}


def change_session(catalog: Catalog, caller: Caller, key: str, state: SessionState) -> Session:
    """Pause, resume or stop a session, and write it into the log.

    Raises
    ------
    BadParameter
        When there's no such session, or it can't go on since its microscope works on another.
    """
    session = end_session(catalog, key, state)

    def work(orm: Any) -> None:
        sample = orm.get_one(Sample, session.sample_id)
        text = f"Session {key} {_DID[state]} by {caller.login or 'somebody'}"
        note(orm, sample.experiment_id, text, sample_id=sample.id, session_id=session.id, tags=["session"])
        audit(orm, caller, f"session.{_DID[state]}", key)

    catalog.write(work)
    return session
