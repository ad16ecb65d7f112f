"""One session's acquisition, joined: watch, copy, prove, record."""

from vitriflow.facility.acquire.session import AcquireReport, SessionAcquisition

__all__ = ["AcquireReport", "SessionAcquisition"]
