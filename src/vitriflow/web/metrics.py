"""Prometheus reads here how sessions, services, disks and alarms stand. Only what's going on now has labels."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

import vitriflow
from vitriflow.catalog import (
    Alarm,
    Microscope,
    Node,
    Session,
    SessionState,
    SourceFile,
    now,
    views,
)
from vitriflow.monitors import machine_values
from vitriflow.web.auth import needs
from vitriflow.web.lookup import find_scene
from vitriflow.web.site import Site, site_of
from vitriflow.web.summary import summarise
from vitriflow.web.wall import disk_values

router = APIRouter()
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ALIVE_S = 20.0
_NEWEST = 50  # exposures that a quantity's median is of
_SESSION = ("microscope", "session")
#: Every metric: its labels and what it says.
METRICS: dict[str, tuple[tuple[str, ...], str]] = {
    "vitriflow_info": (("version",), "1, with the version of vitriflow"),
    "vitriflow_sessions": (("state",), "Sessions by state"),
    "vitriflow_exposures": ((*_SESSION, "state"), "Exposures of active sessions by where they stand"),
    "vitriflow_exposures_growing": (_SESSION, "Exposures that were seen and aren't whole yet"),
    "vitriflow_exposures_usable": (_SESSION, "Exposures that are good to go on with"),
    "vitriflow_backlog": (_SESSION, "Exposures that came in and aren't dealt with"),
    "vitriflow_rate_per_hour": (_SESSION, "Exposures finished an hour, over the last half hour of work"),
    "vitriflow_latency_seconds": ((*_SESSION, "quantile"), "From a whole file to its last result"),
    "vitriflow_last_exposure_timestamp_seconds": (_SESSION, "When the newest exposure was whole"),
    "vitriflow_quantity": (
        (*_SESSION, "quantity"), f"Median of the newest {_NEWEST} values, in the quantity's own unit"
    ),
    "vitriflow_files": ((*_SESSION, "state"), "Files of active sessions by state of custody"),
    "vitriflow_file_bytes": ((*_SESSION, "state"), "Size of these files"),
    "vitriflow_disk_free_bytes": (("disk",), "Free space"),
    "vitriflow_disk_total_bytes": (("disk",), "Size"),
    "vitriflow_node_up": (("node", "service", "host"), "1 where a service was heard of lately"),
    "vitriflow_node_seen_timestamp_seconds": (("node", "service", "host"), "When a service was last heard of"),
    "vitriflow_machine": (("host", "quantity"), "CPU, memory, network and GPUs, in the quantity's own unit"),
    "vitriflow_alarms": (("rule", "severity", "microscope", "acknowledged"), "Alarms that aren't over"),
}  # fmt: skip


class Families:
    """Metrics that were gathered at one moment; a collector of prometheus_client."""

    def __init__(self) -> None:
        self._made = {
            name: GaugeMetricFamily(name, text, labels=labels) for name, (labels, text) in METRICS.items()
        }

    def add(self, name: str, value: float | None, *labels: Any) -> None:
        """One value; None where it isn't known."""
        if value is not None:
            self._made[name].add_metric([str(one) for one in labels], float(value))

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All of them."""
        return list(self._made.values())


def gather(site: Site, orm: OrmSession) -> Families:
    """All metrics, from one transaction."""
    found = Families()
    found.add("vitriflow_info", 1, vitriflow.__version__)
    states: dict[str, int] = {
        row[0]: row[1] for row in orm.execute(select(Session.state, func.count()).group_by(Session.state))
    }
    for state in SessionState:
        found.add("vitriflow_sessions", states.get(state, 0), state)
    active = (
        select(Session.id, Session.key, Microscope.name)
        .join(Microscope, Microscope.id == Session.microscope_id)
        .where(Session.state == SessionState.ACTIVE)
    )
    for number, key, microscope in orm.execute(active).all():
        _session(found, site, orm, number, (microscope, key))
    for disk in disk_values(site):
        if disk["known"]:
            found.add("vitriflow_disk_free_bytes", disk["free"], disk["name"])
            found.add("vitriflow_disk_total_bytes", disk["total"], disk["name"])
    _nodes(found, orm)
    _alarms(found, orm)
    return found


def _session(found: Families, site: Site, orm: OrmSession, number: int, labels: tuple[str, str]) -> None:
    scene = find_scene(site, orm, labels[1])
    summary = summarise(scene.session, scene.snapshot, scene.overlay)
    counts = summary.counts
    for state in ("done", "rejected", "quarantined", "failed", "open"):
        found.add("vitriflow_exposures", getattr(counts, state), *labels, state)
    found.add("vitriflow_exposures_growing", counts.growing, *labels)
    found.add("vitriflow_exposures_usable", summary.usable, *labels)
    found.add("vitriflow_backlog", counts.open, *labels)
    found.add("vitriflow_rate_per_hour", summary.rate_per_h, *labels)
    found.add("vitriflow_latency_seconds", summary.latency_p50_s, *labels, "0.5")
    found.add("vitriflow_latency_seconds", summary.latency_p95_s, *labels, "0.95")
    found.add("vitriflow_last_exposure_timestamp_seconds", summary.last, *labels)
    for name in views.QUANTITIES:
        values = scene.snapshot.values[name]
        values = values[np.isfinite(values)][-_NEWEST:]
        if len(values):
            found.add("vitriflow_quantity", float(np.median(values)), *labels, name)
    files = (
        select(SourceFile.state, func.count(), func.sum(SourceFile.size))
        .where(SourceFile.session_id == number)
        .group_by(SourceFile.state)
    )
    for state, count, size in orm.execute(files):
        found.add("vitriflow_files", count, *labels, state)
        found.add("vitriflow_file_bytes", float(size or 0), *labels, state)


def _nodes(found: Families, orm: OrmSession) -> None:
    moment = now()
    machines: dict[str, dict[str, float]] = {}
    for node in orm.scalars(select(Node).order_by(Node.seen_at)):
        details = node.details or {}
        host = str(details.get("host", node.name))
        alive = (moment - node.seen_at).total_seconds() < _ALIVE_S
        found.add("vitriflow_node_up", int(alive), node.name, node.service, host)
        found.add(
            "vitriflow_node_seen_timestamp_seconds", node.seen_at.timestamp(), node.name, node.service, host
        )
        if alive:
            machines[host] = machine_values(details)
    for host, values in machines.items():
        for name, value in values.items():
            found.add("vitriflow_machine", value, host, name)


def _alarms(found: Families, orm: OrmSession) -> None:
    columns = (Alarm.rule, Alarm.severity, Alarm.microscope, Alarm.acknowledged_at.is_not(None))
    query = select(*columns, func.count()).where(Alarm.cleared_at.is_(None)).group_by(*columns)
    for rule, severity, microscope, acknowledged, count in orm.execute(query):
        seen = "yes" if acknowledged else "no"
        found.add("vitriflow_alarms", count, rule.removeprefix("rule:"), severity, microscope or "", seen)


@router.get("/metrics", include_in_schema=False, dependencies=[needs("facility.metrics")])
def metrics(request: Request) -> Response:
    """Everything in Prometheus' text format."""
    site = site_of(request)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(site.read(lambda orm: gather(site, orm)))
    return Response(generate_latest(registry), headers={"content-type": MEDIA_TYPE})
