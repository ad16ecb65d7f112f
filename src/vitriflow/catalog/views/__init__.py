"""What the pages ask of the catalog: read-only queries that stay quick at 50,000 exposures.

Each takes an open ORM session and gives plain values, so that a page never holds a row after its
transaction. Long lists are read by index or by id; none of them loads JSON records in bulk.
"""

from vitriflow.catalog.views.exposures import (
    exposure_names,
    find_exposure,
    find_measure,
    intake_problems,
    measures_since,
    reasons,
    records_of,
    sample_records,
    tasks_of,
)
from vitriflow.catalog.views.files import unknown_files
from vitriflow.catalog.views.people import (
    gain_events,
    marks_stamp,
    newest_limits,
    places,
    positions_since,
    standing_marks,
)
from vitriflow.catalog.views.selections import as_selection, main_processing, selection_of
from vitriflow.catalog.views.sessions import (
    count_exposures,
    count_growing,
    count_not_done,
    count_sessions,
    count_tasks,
    find_session,
    first_event,
    list_events,
    list_processings,
    list_sessions,
    node_order,
    pulse,
)
from vitriflow.catalog.views.shapes import (
    EXPOSURE,
    QUANTITIES,
    AttemptView,
    ExposureView,
    NodeView,
    ProcessingView,
    Pulse,
    SessionView,
    TaskView,
)
from vitriflow.catalog.views.spans import span_stats

__all__ = [
    "EXPOSURE",
    "QUANTITIES",
    "AttemptView",
    "ExposureView",
    "NodeView",
    "ProcessingView",
    "Pulse",
    "SessionView",
    "TaskView",
    "as_selection",
    "count_exposures",
    "count_growing",
    "count_not_done",
    "count_sessions",
    "count_tasks",
    "exposure_names",
    "find_exposure",
    "find_measure",
    "find_session",
    "first_event",
    "gain_events",
    "intake_problems",
    "list_events",
    "list_processings",
    "list_sessions",
    "main_processing",
    "marks_stamp",
    "measures_since",
    "newest_limits",
    "node_order",
    "places",
    "positions_since",
    "pulse",
    "reasons",
    "records_of",
    "sample_records",
    "selection_of",
    "span_stats",
    "standing_marks",
    "tasks_of",
    "unknown_files",
]
