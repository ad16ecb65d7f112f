"""Rules over what comes in and what comes out, and the alarms that they raise."""

from vitriflow.monitors.acquisition import DiskForecast, copy_behind, nodes_lost, session_size, silence
from vitriflow.monitors.alarms import Change, Level, Reading, level_of, open_alarms, settle_alarms

__all__ = [
    "Change",
    "DiskForecast",
    "Level",
    "Reading",
    "copy_behind",
    "level_of",
    "nodes_lost",
    "open_alarms",
    "session_size",
    "settle_alarms",
    "silence",
]
