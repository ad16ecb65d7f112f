"""Begins a processing: a template with its parameters, frozen, applied to a session."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Processing, Session, now
from vitriflow.errors import BadParameter, CatalogError
from vitriflow.pipeline.checking import make_plan
from vitriflow.pipeline.plan import Plan
from vitriflow.pipeline.template import Template, parse_template


def start_processing(
    catalog: Catalog,
    session_id: int,
    name: str,
    template: Template,
    parameters: Mapping[str, Any],
    root: Path,
    selection: Mapping[str, Any] | None = None,
) -> int:
    """Write down a processing, with the template's text and the parameters frozen.

    Calling it again with the same of everything gives the processing that is there.

    Parameters
    ----------
    catalog
        The catalog.
    session_id
        The session whose exposures it's for.
    name
        Name of the processing, unique in the session.
    template
        From :func:`load_template`.
    parameters
        Values for this processing, by name (see :func:`make_plan`).
    root
        Folder for its results: the RELION project.
    selection
        The exposures that it's for, from :func:`vitriflow.catalog.views.as_selection`; without, it's for all
        of the session, those that come later too.

    Returns
    -------
    Its number.

    Raises
    ------
    BadTemplate, BadParameter
        When the template or a value can't be run; or a processing of that name is there and differs.
    CatalogError
        When there's no such session.
    """
    template = template.filled({})  # what nobody filled in is as the template says
    make_plan(template, parameters)
    frozen: dict[str, Any] = orjson.loads(orjson.dumps(dict(parameters), default=str))

    def work(session: OrmSession) -> int:
        if session.get(Session, session_id) is None:
            raise CatalogError(f"session {session_id}", expected="a session in the catalog", found="none")
        query = select(Processing).where(Processing.session_id == session_id, Processing.name == name)
        there = session.scalars(query).one_or_none()
        if there is None:
            there = Processing(
                session_id=session_id,
                name=name,
                template=template.text,
                parameters=frozen,
                root=str(root),
                selection=None if selection is None else dict(selection),
                created_at=now(),
            )
            session.add(there)
            session.flush()
            return there.id
        _refuse_other(there, template.text, frozen, root, selection)
        return there.id

    return catalog.write(work)


def plan_of(catalog: Catalog, processing_id: int) -> Plan:
    """The plan of a processing, from what was frozen when it began.

    Raises
    ------
    CatalogError
        When there's no such processing.
    BadTemplate, BadParameter
        When this version or its installed steps can't run it any more.
    """

    def find(session: OrmSession) -> tuple[str, str, dict[str, Any], dict[str, Any] | None]:
        there = session.get(Processing, processing_id)
        if there is None:
            raise CatalogError(
                f"processing {processing_id}",
                expected="a processing in the catalog",
                found="none of that number",
                remedy="Run 'vitriflow status' to see what there is.",
            )
        return there.name, there.template, there.parameters, there.jobs

    name, text, parameters, jobs = catalog.read(find)
    return make_plan(parse_template(text, f"template of processing '{name}'"), parameters, jobs)


def _refuse_other(
    there: Processing,
    text: str,
    parameters: Mapping[str, Any],
    root: Path,
    selection: Mapping[str, Any] | None,
) -> None:
    """A processing is frozen: the same name with other values is an error that says which."""
    names = sorted(there.parameters.keys() | parameters.keys())
    changed = [
        f"{name}: {there.parameters.get(name)!r} -> {parameters.get(name)!r}"
        for name in names
        if there.parameters.get(name) != parameters.get(name)
    ]
    if there.template != text:
        changed.append("the template's text")
    if there.root != str(root):
        changed.append(f"root: {there.root} -> {root}")
    if (there.selection or {}).get("exposures") != (selection or {}).get("exposures"):
        changed.append("the exposures that it's for")
    if changed:
        raise BadParameter(
            f"processing '{there.name}'",
            expected="the parameters that it was started with: they're frozen",
            found="; ".join(changed),
            remedy="Give the same values to go on with it, or another name to start a new one beside it.",
        )
