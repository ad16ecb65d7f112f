"""What is known: tables, queries, migrations."""

from vitriflow.catalog.engine import Catalog, is_away, now
from vitriflow.catalog.leases import LeaseHandle, take_lease, this_owner
from vitriflow.catalog.schema import check_schema, found_revision, newest_revision, upgrade
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
    "LeaseHandle",
    "Measure",
    "Microscope",
    "Processing",
    "ResultRow",
    "Sample",
    "Session",
    "SessionState",
    "Task",
    "TaskState",
    "check_schema",
    "found_revision",
    "is_away",
    "newest_revision",
    "now",
    "take_lease",
    "this_owner",
    "upgrade",
]
