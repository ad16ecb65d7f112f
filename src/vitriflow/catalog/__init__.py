"""What is known: tables, queries, migrations."""

from vitriflow.catalog.engine import Catalog, now
from vitriflow.catalog.tables import (
    Attempt,
    Base,
    Event,
    Experiment,
    Exposure,
    ExposureState,
    Lease,
    Measure,
    Microscope,
    Processing,
    ResultRow,
    Sample,
    Session,
    SessionState,
    Task,
    TaskState,
)

__all__ = [
    "Attempt",
    "Base",
    "Catalog",
    "Event",
    "Experiment",
    "Exposure",
    "ExposureState",
    "Lease",
    "Measure",
    "Microscope",
    "Processing",
    "ResultRow",
    "Sample",
    "Session",
    "SessionState",
    "Task",
    "TaskState",
    "now",
]
