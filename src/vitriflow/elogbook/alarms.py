"""Saying that an alarm was seen."""

from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Alarm, now
from vitriflow.elogbook.audit import audit
from vitriflow.elogbook.permissions import Caller
from vitriflow.errors import BadParameter


def acknowledge_alarm(orm: OrmSession, caller: Caller, number: int) -> Alarm:
    """Note who saw an alarm first; it stays until what it tells of is over.

    Raises
    ------
    BadParameter
        When there's no such alarm.
    """
    row = orm.get(Alarm, number)
    if row is None:
        raise BadParameter(
            "alarm", "the number of an alarm", str(number), "'vitriflow alarms list' shows them."
        )
    if row.acknowledged_at is None:
        row.acknowledged_by, row.acknowledged_at = caller.login, now()
        audit(orm, caller, "alarm.acknowledge", f"{row.rule} {row.subject}")
    return row
