"""Changes that people ask of a processing: what they'd touch, and asking for them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Change, Exposure, Processing, ResultRow, now
from vitriflow.errors import BadParameter, CatalogError
from vitriflow.pipeline.checking import make_plan
from vitriflow.pipeline.measures import fields_of
from vitriflow.pipeline.plan import Plan
from vitriflow.pipeline.rows import REVISION
from vitriflow.pipeline.template import parse_template
from vitriflow.steps import Gate

RESTART, THRESHOLD, VERDICT = "restart", "threshold", "verdict"


@dataclass(frozen=True)
class Touched:
    """What a change would do, before anybody asks for it.

    Attributes
    ----------
    kind
        ``threshold`` when only limits of gates move: marks are made anew, no image step runs. Else ``restart``.
    changed
        For each node whose parameters differ: parameter -> (value now, value then).
    redone
        Nodes that are done anew, in order.
    results
        Results that stand now, by node of ``redone``.
    kept
        Nodes whose results stay as they are.
    """

    kind: str
    changed: dict[str, dict[str, tuple[Any, Any]]] = field(default_factory=dict)
    redone: tuple[str, ...] = ()
    results: dict[str, int] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


def what_changes(
    catalog: Catalog, processing_id: int, parameters: Mapping[str, Any], restart: Sequence[str] = ()
) -> Touched:
    """Which nodes and results a change of parameters touches. Nothing is written.

    Parameters
    ----------
    catalog, processing_id
        The processing.
    parameters
        New values, by name (for every node with such a parameter) or by ``node.name``. None takes a value
        that was given back, to what the template says.
    restart
        Nodes to do anew even where nothing of them changes.

    Raises
    ------
    BadParameter
        When a value can't be used, a node isn't there, or nothing would change.
    CatalogError
        When there's no such processing.
    """
    template, old, given, jobs = catalog.read(lambda s: _frozen(s, processing_id))
    before = make_plan(template, given, jobs)
    after = make_plan(template, merged(given, parameters), jobs)
    changed = differences(before, after)
    names = [node.name for node in before.nodes]
    for name in restart:
        if name not in names:
            raise BadParameter("node to restart from", ", ".join(names), repr(name), "Check the spelling.")
    if not changed and not restart:
        raise BadParameter(
            f"processing '{old}'",
            "a change",
            "the same values as now" if parameters else "no value and no node",
            "Give another value with --set, or a node to restart from with --from.",
        )
    gates_only = not restart and all(isinstance(before[name].step, Gate) for name in changed)
    redone = set(changed) if gates_only else before.downstream({*changed, *restart})
    ordered = tuple(name for name in names if name in redone)

    def count(session: OrmSession) -> dict[str, int]:
        query = (
            select(ResultRow.node, func.count())
            .where(
                ResultRow.processing_id == processing_id,
                ResultRow.revision == REVISION,
                ResultRow.node.in_(ordered),
            )
            .group_by(ResultRow.node)
        )
        found = dict(session.execute(query).all())
        return {name: found.get(name, 0) for name in ordered}

    kept = tuple(name for name in names if name not in redone)
    return Touched(THRESHOLD if gates_only else RESTART, changed, ordered, catalog.read(count), kept)


def ask_change(
    catalog: Catalog,
    processing_id: int,
    parameters: Mapping[str, Any],
    restart: Sequence[str] = (),
    author: str = "",
) -> tuple[int, Touched]:
    """Ask for a change of parameters. The processing's coordinator carries it out, soon when it runs.

    Returns
    -------
    The number of the change, and what it touches.

    Raises
    ------
    BadParameter, CatalogError
        As :func:`what_changes`; nothing was asked for then.
    """
    touched = what_changes(catalog, processing_id, parameters, restart)
    details = {"parameters": dict(parameters), "restart": list(restart)}
    return _ask(catalog, processing_id, touched.kind, details, author), touched


def ask_verdict(
    catalog: Catalog,
    processing_id: int,
    node: str,
    exposures: Sequence[int],
    accept: bool | None,
    author: str = "",
) -> int:
    """Ask that a person's word stands instead of a gate's.

    Parameters
    ----------
    node
        The gate.
    exposures
        Numbers of the exposures.
    accept
        True lets them pass, False rejects them, None gives the word back to the gate.

    Raises
    ------
    BadParameter
        When the node isn't a gate, or an exposure isn't of this session.
    """
    template, _, given, jobs = catalog.read(lambda s: _frozen(s, processing_id))
    plan = make_plan(template, given, jobs)
    gates = [one.name for one in plan.judged if isinstance(one.step, Gate)]
    if node not in gates:
        raise BadParameter("gate", ", ".join(gates) or "a gate in the template; it has none", repr(node)[:80])

    def known(session: OrmSession) -> set[int]:
        home = select(Processing.session_id).where(Processing.id == processing_id).scalar_subquery()
        query = select(Exposure.id).where(Exposure.session_id == home, Exposure.id.in_(list(exposures)[:500]))
        return set(session.scalars(query))

    if not exposures or len(exposures) > 500:
        raise BadParameter("exposures", "1 to 500 of them", str(len(exposures)))
    strange = set(exposures) - catalog.read(known)
    if strange:
        raise BadParameter("exposures", "numbers of exposures of this session", str(sorted(strange)[:5]))
    details = {"node": node, "exposures": sorted(set(exposures)), "accept": accept}
    return _ask(catalog, processing_id, VERDICT, details, author)


def merged(given: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with changes put in; None takes one out."""
    both = {**given, **parameters}
    return {name: value for name, value in both.items() if value is not None}


def differences(before: Plan, after: Plan) -> dict[str, dict[str, tuple[Any, Any]]]:
    """For each node whose parameters differ: parameter -> (before, after)."""
    found: dict[str, dict[str, tuple[Any, Any]]] = {}
    for node in before.nodes:
        old = node.parameters.model_dump(mode="json")
        new = after[node.name].parameters.model_dump(mode="json")
        # A value that was set to the default overrules the exposure's own files: that's a change, too.
        was_set = node.parameters.model_fields_set
        is_set = after[node.name].parameters.model_fields_set
        mine = {
            name: (old[name] if name in was_set else None, new[name] if name in is_set else None)
            for name in new
            if old[name] != new[name] or (name in was_set) != (name in is_set)
        }
        if mine:
            found[node.name] = mine
    return found


def open_changes(session: OrmSession, processing_id: int) -> list[Change]:
    """Changes that weren't carried out yet, oldest first."""
    query = select(Change).where(Change.processing_id == processing_id, Change.applied_at.is_(None))
    return list(session.scalars(query.order_by(Change.id)))


def _ask(catalog: Catalog, processing_id: int, kind: str, details: Mapping[str, Any], author: str) -> int:
    plain = orjson.loads(orjson.dumps(details, default=str))

    def work(session: OrmSession) -> int:
        row = Change(processing_id=processing_id, kind=kind, details=plain, author=author, at=now())
        session.add(row)
        session.flush()
        return row.id

    return catalog.write(work)


def _frozen(
    session: OrmSession, processing_id: int
) -> tuple[Any, str, dict[str, Any], Mapping[str, int] | None]:
    there = session.get(Processing, processing_id)
    if there is None:
        raise CatalogError(
            f"processing {processing_id}",
            expected="a processing in the catalog",
            found="none of that number",
            remedy="Run 'vitriflow status' to see what there is.",
        )
    template = parse_template(there.template, f"template of processing '{there.name}'")
    return template, there.name, dict(there.parameters), there.jobs


def columns_of(plan: Plan, names: Iterable[str]) -> set[str]:
    """Plotted columns that only these nodes fill."""
    mine: set[str] = set()
    others: set[str] = set()
    chosen = set(names)
    for node in plan.items:
        (mine if node.name in chosen else others).update(fields_of(node.step.Record))
    return mine - others
