"""How a result came to be: the chain from it back to the camera's file."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Batch, BatchMember, Catalog, Exposure, Processing, ResultRow, Session
from vitriflow.errors import CatalogError
from vitriflow.pipeline.plan import EXPOSURE, Plan
from vitriflow.pipeline.rows import ITEM, REVISION
from vitriflow.pipeline.starting import plan_of


@dataclass(frozen=True)
class CameraFile:
    """Where a chain ends: the file that the microscope wrote, with its own times and hash."""

    session: str
    key: str
    path: str
    size: int
    blake3: str | None
    first_seen_at: str
    complete_at: str | None
    copied_at: str | None
    proved_at: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Link:
    """One result in the chain: its record with provenance, and what each input port came from."""

    result_id: int
    processing: str
    node: str
    revision: int
    item: str
    status: str
    record: dict[str, Any]
    created_at: str
    inputs: "dict[str, Link | CameraFile]" = field(default_factory=dict)


def explain(
    catalog: Catalog,
    result_id: int | None = None,
    *,
    processing_id: int | None = None,
    item: str | None = None,
    node: str | None = None,
) -> list[Link]:
    """The chains of a result, or of all results of an exposure.

    Parameters
    ----------
    catalog
        The catalog.
    result_id
        Number of a result; or else
    processing_id, item, node
        A processing, the item's name (or key) in it, and a node; without ``node``, all nodes.

    Returns
    -------
    One chain for each result asked for, in the order of the plan; each ends in a CameraFile. That of a
    batch's result ends in those of its members.

    Raises
    ------
    CatalogError
        When there's no such result.
    """
    if result_id is not None:
        of_batch = catalog.read(lambda session: _of_batch(session, result_id))
        if of_batch is not None:
            return [of_batch]

    def find(session: OrmSession) -> tuple[int, int, str | None]:
        if result_id is not None:
            row = session.get(ResultRow, result_id)
            if row is None:
                raise _missing(f"result {result_id}")
            return row.processing_id, row.item_id, row.node
        if processing_id is None or item is None:
            raise CatalogError("explain", expected="a result's number, or a processing and an item")
        query = (
            select(Exposure.id)
            .join(Processing, Processing.session_id == Exposure.session_id)
            .where(Processing.id == processing_id, (Exposure.item == item) | (Exposure.key == item))
        )
        exposure = session.scalars(query).first()
        if exposure is None:
            raise _missing(f"item '{item}' in processing {processing_id}")
        return processing_id, exposure, node

    processing, exposure_id, wanted = catalog.read(find)
    plan = plan_of(catalog, processing)
    if wanted is not None and wanted not in [n.name for n in plan.nodes]:
        raise _missing(f"node '{wanted}' in processing {processing}")
    links = catalog.read(lambda session: _links(session, plan, processing, exposure_id))
    chosen = [link for name, link in links.items() if wanted in (None, name)]
    if not chosen:
        raise _missing(f"result of {wanted or 'any node'} for exposure {exposure_id}")
    return chosen


def _links(session: OrmSession, plan: Plan, processing_id: int, exposure_id: int) -> dict[str, Link]:
    exposure = session.get(Exposure, exposure_id)
    processing = session.get(Processing, processing_id)
    assert exposure is not None  # both were just found, and rows are never deleted
    assert processing is not None
    camera = _camera_file(session, exposure)
    query = select(ResultRow).where(
        ResultRow.processing_id == processing_id,
        ResultRow.revision == REVISION,
        ResultRow.item_type == ITEM,
        ResultRow.item_id == exposure_id,
        ResultRow.node.in_([node.name for node in plan.nodes]),
    )
    there = {row.node: row for row in session.scalars(query)}
    links: dict[str, Link] = {}
    for node in plan.nodes:
        row = there.get(node.name)
        if row is None:
            continue
        used = (row.record.get("provenance") or {}).get("inputs")
        inputs: dict[str, Link | CameraFile] = {}
        for port, source in node.inputs.items():
            if used is not None and port not in used:
                continue  # an optional input that nobody could make
            if source.node == EXPOSURE:
                inputs[port] = camera
            elif source.node in links:
                inputs[port] = links[source.node]
        links[node.name] = Link(
            row.id,
            processing.name,
            node.name,
            row.revision,
            exposure.item,
            row.status,
            row.record,
            row.created_at.isoformat(),
            inputs,
        )
    return links


def _of_batch(session: OrmSession, result_id: int) -> Link | None:
    """The chain of a batch's result: its members' camera files; None for a result of another kind."""
    row = session.get(ResultRow, result_id)
    if row is None or row.item_type == ITEM:
        return None
    batch = session.get_one(Batch, row.item_id)
    processing = session.get_one(Processing, row.processing_id)
    query = (
        select(Exposure)
        .join(BatchMember, BatchMember.exposure_id == Exposure.id)
        .join(Batch, Batch.id == BatchMember.batch_id)
        .where(Batch.processing_id == batch.processing_id, Batch.node == batch.node)
        .order_by(Exposure.id)
    )
    if batch.mode in ("growing", "session"):
        query = query.where(Batch.revision == batch.revision, Batch.number <= batch.number)
    else:
        query = query.where(Batch.id == batch.id)
    members = {exposure.item: _camera_file(session, exposure) for exposure in session.scalars(query)}
    return Link(
        row.id,
        processing.name,
        row.node,
        row.revision,
        f"batch {batch.number} of {batch.node}, released by {batch.cause}",
        row.status,
        row.record,
        row.created_at.isoformat(),
        dict(members),
    )


def _camera_file(session: OrmSession, exposure: Exposure) -> CameraFile:
    home = session.get(Session, exposure.session_id)
    times = (exposure.complete_at, exposure.copied_at, exposure.proved_at)
    complete, copied, proved = (time.isoformat() if time else None for time in times)
    return CameraFile(
        home.key if home else "",
        exposure.key,
        exposure.path,
        exposure.size,
        exposure.blake3,
        exposure.first_seen_at.isoformat(),
        complete,
        copied,
        proved,
        exposure.details,
    )


def _missing(thing: str) -> CatalogError:
    return CatalogError(
        thing,
        expected="a finished result",
        found="none",
        remedy="Run 'vitriflow status' to see what there is.",
    )
