"""Rules over what comes in and what comes out, and the alarms that they raise."""

from vitriflow.monitors.acquisition import DiskForecast, copy_behind, nodes_lost, session_size, silence
from vitriflow.monitors.alarms import (
    Change,
    Level,
    Reading,
    level_of,
    open_alarms,
    settle_alarms,
    settle_rules,
)
from vitriflow.monitors.expectations import checked_fields, expectations
from vitriflow.monitors.machines import MachineWatch, machine_values
from vitriflow.monitors.outlook import Outlook, Point, forecast
from vitriflow.monitors.rules import look_at_sessions

__all__ = [
    "Change",
    "DiskForecast",
    "Level",
    "MachineWatch",
    "Outlook",
    "Point",
    "Reading",
    "checked_fields",
    "copy_behind",
    "expectations",
    "forecast",
    "level_of",
    "look_at_sessions",
    "machine_values",
    "nodes_lost",
    "open_alarms",
    "session_size",
    "settle_alarms",
    "settle_rules",
    "silence",
]
