"""Whether a processing is conducted by a workflow engine, as which DAG, and by which revisions."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Catalog,
    Conducted,
    Experiment,
    Microscope,
    Processing,
    Sample,
    Session,
    now,
)
from vitriflow.config import Config
from vitriflow.storage import safe_name


def dag_name(experiment: str, sample_id: int) -> str:
    """Name of the DAG of an experiment's sample: ``<experiment>_<sample id>``."""
    return f"{safe_name(experiment)}_{sample_id}"


def template_dag_name(template: str) -> str:
    """Name of the DAG of a template: ``pipeline_<template>_pre-processing``."""
    return f"pipeline_{template}_pre-processing"


def conducts(config: Config, microscope: str) -> bool:
    """Whether Airflow conducts the processing of a microscope's sessions."""
    chosen = config.airflow.microscopes
    return config.airflow.conducts and (chosen is None or microscope in chosen)


def digest(value: Any) -> str:
    """Twelve characters that change when a value does."""
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def revisions_of(
    config: Config | None, name: str, text: str, parameters: Mapping[str, Any]
) -> dict[str, str]:
    """What a processing's results come from: template and its hash, hashes of parameters and configuration."""
    settled = "" if config is None else config.model_dump_json()
    return {
        "template": f"{name}@{digest(text)}",
        "parameters": digest(dict(parameters)),
        "configuration": digest(settled) if settled else "",
    }


def take_up(config: Config, catalog: Catalog, processing_id: int) -> bool:
    """Have a processing conducted, where the facility wants that of its microscope.

    Returns
    -------
    Whether it's conducted now.
    """

    def work(orm: OrmSession) -> bool:
        there = orm.get(Conducted, processing_id)
        if there is not None:
            return there.released_at is None
        row = orm.execute(_home(processing_id)).one()
        if not conducts(config, row.microscope):
            return False
        _add(orm, config, processing_id, row)
        return True

    return catalog.write(work)


def follow(catalog: Catalog, session_id: int, processing_id: int) -> None:
    """Have a session's new processing conducted like the others that it has."""

    def work(orm: OrmSession) -> None:
        others = (
            select(Conducted)
            .join(Processing, Processing.id == Conducted.processing_id)
            .where(Processing.session_id == session_id, Conducted.released_at.is_(None))
        )
        other = orm.scalars(others.limit(1)).first()
        if other is None or orm.get(Conducted, processing_id) is not None:
            return
        row = orm.execute(_home(processing_id)).one()
        made = _add(orm, None, processing_id, row)
        made.revisions = {**made.revisions, "configuration": other.revisions.get("configuration", "")}

    catalog.write(work)


def give_back(catalog: Catalog, session_id: int) -> int:
    """Let vitriflow conduct a session's processings itself from now on: how many that were."""

    def work(orm: OrmSession) -> int:
        query = (
            select(Conducted)
            .join(Processing, Processing.id == Conducted.processing_id)
            .where(Processing.session_id == session_id, Conducted.released_at.is_(None))
        )
        found = list(orm.scalars(query))
        for row in found:
            row.released_at = now()
        return len(found)

    return catalog.write(work)


def _home(processing_id: int) -> Any:
    return (
        select(
            Processing.template,
            Processing.parameters,
            Sample.id.label("sample_id"),
            Experiment.name.label("experiment"),
            Microscope.name.label("microscope"),
        )
        .join(Session, Session.id == Processing.session_id)
        .join(Sample, Sample.id == Session.sample_id)
        .join(Experiment, Experiment.id == Sample.experiment_id)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .where(Processing.id == processing_id)
    )


def _add(orm: OrmSession, config: Config | None, processing_id: int, row: Any) -> Conducted:
    from vitriflow.pipeline import parse_template  # only what begins a processing needs the steps

    name = parse_template(row.template, "template").name
    made = Conducted(
        processing_id=processing_id,
        dag=dag_name(row.experiment, row.sample_id),
        revisions=revisions_of(config, name, row.template, row.parameters),
        created_at=now(),
    )
    orm.add(made)
    return made
