"""The services of a facility: acquire, process, and what they share."""

from vitriflow.facility.service.acquire import AcquireService
from vitriflow.facility.service.alarms import AlarmWatch
from vitriflow.facility.service.heartbeat import Heartbeat
from vitriflow.facility.service.process import ProcessService

__all__ = ["AcquireService", "AlarmWatch", "Heartbeat", "ProcessService"]
