"""The graph of a processing with live counts, for pages: nodes, edges, and where each stands."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import func, select

from vitriflow.catalog import Batch, Catalog, Task
from vitriflow.pipeline import Plan, Tally, counts, plan_of

_LEFT = "exposure"


def processing_graph(catalog: Catalog, processing_id: int) -> dict[str, Any]:
    """Nodes with their step, place and counts, and edges, ready for JSON.

    Returns
    -------
    ``nodes``: name, step, scope, job folder, column and row to draw it at, counts, and for gates how many
    each criterion refused first. ``edges``: from, to, port, kind.
    """
    plan = plan_of(catalog, processing_id)
    found = counts(catalog, processing_id)
    refused = _refused(catalog, processing_id)
    released = _released(catalog, processing_id)
    places = _places(plan)
    nodes: list[dict[str, Any]] = [
        {
            "name": _LEFT,
            "step": plan.item,
            "scope": "exposure",
            "column": 0,
            "row": 0,
            "counts": asdict(found.exposures),
        }
    ]
    for node in plan.nodes:
        tally = (found.batches if node.batched else found.nodes).get(node.name, Tally())
        column, row = places[node.name]
        nodes.append(
            {
                "name": node.name,
                "step": node.step.name,
                "summary": node.step.summary,
                "scope": node.item_type,
                "folder": node.folder if node.job is not None else None,
                "judged": node.judged,
                "column": column,
                "row": row,
                "counts": asdict(tally),
                "refused": refused.get(node.name, {}),
                "batches": released.get(node.name),
            }
        )
    return {"template": plan.template, "nodes": nodes, "edges": _edges(plan)}


def plan_graph(plan: Plan) -> dict[str, Any]:
    """The same without counts, for a template that nothing was processed with yet."""
    places = _places(plan)
    nodes = [{"name": _LEFT, "step": plan.item, "scope": "exposure", "column": 0, "row": 0}]
    nodes += [
        {
            "name": node.name,
            "step": node.step.name,
            "scope": node.item_type,
            "column": places[node.name][0],
            "row": places[node.name][1],
        }
        for node in plan.nodes
    ]
    return {"template": plan.template, "nodes": nodes, "edges": _edges(plan)}


def _edges(plan: Plan) -> list[dict[str, str]]:
    return [
        {
            "from": source.node,
            "to": node.name,
            "port": port,
            "kind": node.step.inputs[port].kind.value,
        }
        for node in plan.nodes
        for port, source in node.inputs.items()
    ]


def _places(plan: Plan) -> dict[str, tuple[int, int]]:
    """Columns by the longest way from the exposure, rows in the order of the plan."""
    columns: dict[str, int] = {}
    for node in plan.nodes:
        columns[node.name] = 1 + max((columns[name] for name in node.producers()), default=0)
    rows: dict[int, int] = {}
    found: dict[str, tuple[int, int]] = {}
    for node in plan.nodes:
        column = columns[node.name]
        found[node.name] = column, rows.get(column, 0)
        rows[column] = rows.get(column, 0) + 1
    return found


def _refused(catalog: Catalog, processing_id: int) -> dict[str, dict[str, int]]:
    """For each node the exposures that it refused, by reason code."""
    query = (
        select(Task.node, Task.reason_code, func.count())
        .where(Task.processing_id == processing_id, Task.state == "rejected", Task.revision == 1)
        .group_by(Task.node, Task.reason_code)
    )
    found: dict[str, dict[str, int]] = {}
    for node, code, number in catalog.read(lambda orm: orm.execute(query).all()):
        found.setdefault(node, {})[code or "other"] = number
    return found


def _released(catalog: Catalog, processing_id: int) -> dict[str, dict[str, int]]:
    """For each trigger how many batches it released, and with how many exposures."""
    query = (
        select(Batch.node, func.count(), func.sum(Batch.n_new))
        .where(Batch.processing_id == processing_id, Batch.revision == 1)
        .group_by(Batch.node)
    )
    rows = catalog.read(lambda orm: orm.execute(query).all())
    return {node: {"batches": number, "exposures": int(new or 0)} for node, number, new in rows}
