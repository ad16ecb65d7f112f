"""People, experiments, samples, sessions: what the operator drives."""

from vitriflow.elogbook.imaging import ImagingParameters
from vitriflow.elogbook.sessions import (
    find_session,
    open_session,
    session_of_source,
    set_session_state,
    write_session_record,
)

__all__ = [
    "ImagingParameters",
    "find_session",
    "open_session",
    "session_of_source",
    "set_session_state",
    "write_session_record",
]
