"""What DAGs there are to be, as plain data: the engine's side makes them from this and knows no pipeline."""

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import or_, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Catalog,
    Conducted,
    Experiment,
    Microscope,
    Processing,
    Sample,
    Session,
    SessionState,
    now,
)
from vitriflow.config import Config
from vitriflow.facility.activation import PENDING
from vitriflow.facility.conduct import conducts, dag_name, revisions_of, template_dag_name
from vitriflow.facility.logbook import DEFAULT_TEMPLATE
from vitriflow.pipeline import Plan, load_template, make_plan, parse_template

_RECENT = timedelta(days=30)  # DAGs of sessions that were closed for longer are no longer described


def describe(config: Config, catalog: Catalog) -> dict[str, Any]:
    """Everything from which DAGs are made.

    Returns
    -------
    ``microscopes``: names; ``template``: the default pipeline's DAG; ``dags``: one for each experiment and
    sample with conducted processing. A DAG has ``dag``, ``title``, ``parameters``, ``revisions`` and
    ``nodes``; a node has ``name``, ``step``, ``upstream`` and whether it's ``judged``.
    """
    return {
        "facility": config.facility.name,
        "microscopes": [name for name in config.microscopes if conducts(config, name)],
        "runs": config.airflow.runs,
        "template": _template(config),
        "dags": catalog.read(lambda orm: _dags(config, orm)),
    }


def graph(plan: Plan) -> list[dict[str, Any]]:
    """The nodes of a plan that work on exposures, each with those that it waits for."""
    there = {node.name for node in plan.items}
    return [
        {
            "name": node.name,
            "step": node.step.name,
            "upstream": sorted(node.producers() & there),
            "judged": node.judged,
        }
        for node in plan.items
    ]


def together(plan: Plan, node: str) -> list[str]:
    """A node, and those behind it that run in one call with it: what one task of a DAG asks for."""
    behind = plan.downstream([node])
    for group in plan.groups(gpus=True):
        if node in group.nodes:
            return [name for name in group.nodes if name in behind]
    return [node]


def plan_from(text: str, parameters: Mapping[str, Any]) -> Plan:
    """The plan of frozen values; the same ones give the same plan without any work."""
    return _plan(text, orjson.dumps(dict(parameters), default=str, option=orjson.OPT_SORT_KEYS))


@lru_cache(maxsize=128)
def _plan(text: str, parameters: bytes) -> Plan:
    return make_plan(parse_template(text, "template"), orjson.loads(parameters))


def _template(config: Config) -> dict[str, Any]:
    usual = config.processing.template
    template = load_template(DEFAULT_TEMPLATE if usual == "auto" else usual)
    written = template.written
    # A template alone may lack what a sample or a microscope gives: the graph needs no values.
    nodes = {
        name: sorted({source.partition(".")[0] for source in node.inputs.values()} - {"exposure"})
        for name, node in written.nodes.items()
    }
    return {
        "dag": template_dag_name(template.name),
        "title": written.title or template.name,
        "experiment": "",
        "sample": "",
        "parameters": dict(written.parameters),
        "revisions": revisions_of(config, template.name, template.text, written.parameters),
        "nodes": [
            {"name": name, "step": node.step, "upstream": nodes[name], "judged": False}
            for name, node in written.nodes.items()
        ],
    }


def _dags(config: Config, orm: OrmSession) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    recent = or_(Session.closed_at.is_(None), Session.closed_at > now() - _RECENT)
    base = (
        select(Conducted, Processing, Sample, Experiment)
        .join(Processing, Processing.id == Conducted.processing_id)
        .join(Session, Session.id == Processing.session_id)
        .join(Sample, Sample.id == Session.sample_id)
        .join(Experiment, Experiment.id == Sample.experiment_id)
        .where(recent, Conducted.released_at.is_(None))
        .order_by(Processing.id)
    )
    for row, processing, sample, experiment in orm.execute(base):
        found[row.dag] = _one(
            row.dag, experiment, sample, processing.template, processing.parameters, row.revisions
        )
    for session, sample, experiment, microscope in orm.execute(_waiting()):
        pending = (session.settings or {}).get(PENDING)
        name = dag_name(experiment.name, sample.id)
        if pending is None or name in found or not conducts(config, microscope):
            continue
        revisions = revisions_of(config, "template", pending["template"], pending["parameters"])
        found[name] = _one(name, experiment, sample, pending["template"], pending["parameters"], revisions)
    return [found[name] for name in sorted(found)]


def _waiting() -> Any:
    """Active sessions, of which some wait for the first movie before their processing begins."""
    return (
        select(Session, Sample, Experiment, Microscope.name)
        .join(Sample, Sample.id == Session.sample_id)
        .join(Experiment, Experiment.id == Sample.experiment_id)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .where(Session.state == SessionState.ACTIVE)
    )


def _one(
    dag: str,
    experiment: Experiment,
    sample: Sample,
    text: str,
    parameters: Mapping[str, Any],
    revisions: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "dag": dag,
        "title": f"{experiment.name}: {sample.title or sample.name}",
        "experiment": experiment.name,
        "sample": sample.name,
        "parameters": dict(parameters),
        "revisions": dict(revisions),
        "nodes": graph(plan_from(text, parameters)),
    }
