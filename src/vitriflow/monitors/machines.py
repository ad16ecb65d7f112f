"""Rules over the machines that services run on: CPU, memory, network, GPUs, as their heartbeats tell."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Node
from vitriflow.config import RuleSection
from vitriflow.config.monitoring import MACHINE
from vitriflow.monitors.alarms import Level, Reading
from vitriflow.monitors.rules import limits_of, sentence, statistic_of, window_words

_ALIVE_S = 60.0
_USUAL_MIN = 5.0
_LONGEST_S = 86400.0
_MOST = 20_000


@dataclass
class MachineWatch:
    """What each machine said lately, and what rules say of it. One for each process that looks at alarms."""

    samples: dict[tuple[str, str], deque[tuple[float, float]]] = field(default_factory=dict)

    def look(
        self, orm: OrmSession, rules: Sequence[RuleSection], moment: datetime
    ) -> dict[str, list[Reading]]:
        """Readings by the rule's name; several services of one machine count as one."""
        ours = [rule for rule in rules if rule.quantity in MACHINE]
        found: dict[str, list[Reading]] = {rule.name: [] for rule in ours}
        machines = _machines(orm, moment)
        for host, (seen, values) in machines.items():
            for quantity, value in values.items():
                self._keep(host, quantity, seen, value)
        for rule in ours:
            if rule.enabled:
                found[rule.name] = [self._read(rule, host, moment) for host in sorted(machines)]
        gone = [key for key in self.samples if key[0] not in machines]
        for key in gone:
            del self.samples[key]
        return found

    def _keep(self, host: str, quantity: str, seen: float, value: float) -> None:
        samples = self.samples.setdefault((host, quantity), deque(maxlen=_MOST))
        if not samples or samples[-1][0] < seen:
            samples.append((seen, value))
        while samples[0][0] < seen - _LONGEST_S:
            samples.popleft()

    def _read(self, rule: RuleSection, host: str, moment: datetime) -> Reading:
        since = moment.timestamp() - 60 * (rule.minutes or _USUAL_MIN)
        samples = self.samples.get((host, rule.quantity), ())
        values = np.array([value for when, value in samples if when >= since], dtype=float)
        value = statistic_of(rule, values)
        if value is None:
            return Reading(f"host:{host}", Level.BETWEEN, severity=rule.severity)
        level, limit = limits_of(rule, value)
        text = ""
        if level == Level.WRONG:
            names = {"host": host, "n": len(values), "window": window_words(rule, len(values))}
            if rule.minutes is None:
                names["window"] = f"{_USUAL_MIN:g} min"
            text = sentence(rule, value, limit, names)
        return Reading(f"host:{host}", level, text, round(value, 3), severity=rule.severity)


def machine_values(details: dict[str, Any]) -> dict[str, float]:
    """What a heartbeat says of its machine, by quantity; of several GPUs the worst."""
    said = details.get("machine")
    if not isinstance(said, dict):
        return {}
    values = {name: float(said[name]) for name in MACHINE if isinstance(said.get(name), int | float)}
    gpus = said.get("gpus")
    for name in ("gpu_percent", "gpu_memory_percent", "gpu_temperature_C"):
        known = [
            float(one[name])
            for one in (gpus if isinstance(gpus, list) else [])
            if isinstance(one, dict) and isinstance(one.get(name), int | float)
        ]
        if known:
            values[name] = max(known)
    return values


def _machines(orm: OrmSession, moment: datetime) -> dict[str, tuple[float, dict[str, float]]]:
    found: dict[str, tuple[float, dict[str, float]]] = {}
    for node in orm.scalars(select(Node).order_by(Node.seen_at)):
        if (moment - node.seen_at).total_seconds() <= _ALIVE_S:
            details = node.details or {}
            values = machine_values(details)
            if values:
                found[str(details.get("host", node.name))] = (node.seen_at.timestamp(), values)
    return found
