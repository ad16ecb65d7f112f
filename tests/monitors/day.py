"""A catalog with one active session, whose exposures are written as a test says."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.databases import new_sqlite
from vitriflow.catalog import Catalog, Exposure, ExposureState, Measure, Processing, Session, now
from vitriflow.elogbook import open_session


class Day:
    """Exposures that come in one after the other, a minute apart, ending now."""

    def __init__(self, catalog: Catalog, session: Session, processing: int) -> None:
        self.catalog, self.session, self.processing = catalog, session, processing
        self.made = 0

    def add(
        self, number: int = 1, *, status: str = "done", details: dict[str, Any] | None = None, **values: Any
    ) -> None:
        """Some more exposures; values are columns of Measure, or of Exposure where they are its own."""
        own = {name: values.pop(name) for name in ("software", "tilt_angle_deg", "suffix") if name in values}
        suffix = own.pop("suffix", ".tiff")

        def work(orm: Any) -> None:
            for _ in range(number):
                self.made += 1
                item, moment = f"movie_{self.made:04}", now()
                row = Exposure(
                    session_id=self.session.id, key=item + suffix, item=item, path=f"/{item}", first_seen_at=moment,
                    complete_at=moment, state=ExposureState.COMPLETE, details=details or {}, **own,
                )  # fmt: skip
                orm.add(row)
                orm.flush()
                timed = {"complete_at": moment, **values}
                orm.add(Measure(processing_id=self.processing, exposure_id=row.id, status=status, **timed))

        made = self.made
        try:
            self.catalog.write(work)
        except BaseException:
            self.made = made
            raise


@contextmanager
def day(folder: Path, settings: dict[str, Any] | None = None) -> Iterator[Day]:
    catalog = new_sqlite(folder / "catalog.db")
    session = open_session(
        catalog, key="s1", source=folder, microscope="tem1", experiment="e", sample="apo",
        settings=settings or {}, root_of=lambda _when: folder / "root", mode="copy",
    )  # fmt: skip

    def work(orm: Any) -> int:
        row = Processing(
            session_id=session.id,
            name="live",
            template="",
            root=str(folder),
            created_at=now() - timedelta(hours=1),
        )
        orm.add(row)
        orm.flush()
        return int(row.id)

    try:
        yield Day(catalog, session, catalog.write(work))
    finally:
        catalog.close()
