"""Tells when another program's files arrive than the microscope is run by, as facility.toml says."""

from sqlalchemy import select

from vitriflow.acquisition import program_of
from vitriflow.catalog import Catalog, Event, Exposure, now

_PROGRAMS = {"epu": "EPU", "serialem": "SerialEM", "tomo5": "Tomo 5"}


class SoftwareWatch:
    """Looks at the exposures of one session, each once, and tells people once a session.

    Parameters
    ----------
    catalog, session_id
        Whose exposures.
    microscope, expected
        Its name, and its ``software`` in facility.toml; an empty one expects nothing.
    """

    def __init__(self, catalog: Catalog, session_id: int, microscope: str, expected: str) -> None:
        self._catalog = catalog
        self._session_id = session_id
        self._expected = expected
        named = f"facility.toml says {_PROGRAMS.get(expected, expected)} (microscopes.{microscope}.software)"
        self._text = f"{named}, and here are files of "
        self._last = 0
        self._over = not expected

    def look(self) -> None:
        """Look at exposures that came since the last look."""
        if self._over:
            return
        where = (Exposure.session_id == self._session_id, Exposure.id > self._last)
        query = select(Exposure.id, Exposure.key, Exposure.software, Exposure.details).where(
            *where, Exposure.complete_at.is_not(None)
        )
        for number, key, by_name, details in self._catalog.read(
            lambda orm: list(orm.execute(query.order_by(Exposure.id)))
        ):
            self._last = number
            found = program_of(by_name, (details or {}).get("software"))
            if found in _PROGRAMS and found != self._expected:
                self._tell(key, found)
                return

    def _tell(self, key: str, found: str) -> None:
        self._over = True
        told = (Event.session_id == self._session_id, Event.text.startswith(self._text, autoescape=True))
        if self._catalog.read(lambda orm: orm.scalar(select(Event.id).where(*told).limit(1))) is not None:
            return
        text = (
            f"{self._text}{_PROGRAMS[found]}, first {key}. Check that this folder is this session's; "
            "where the microscope is run by several programs, leave its software out"
        )
        event = {"at": now(), "session_id": self._session_id, "severity": "warning", "text": text}
        self._catalog.write(lambda orm: orm.add(Event(**event)))
