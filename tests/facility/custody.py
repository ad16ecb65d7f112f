"""A session in copy mode whose files were copied and proved, made without a microscope."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from sqlalchemy import select, update

from tests.databases import new_sqlite
from vitriflow.catalog import FileState, Session, SourceFile, now
from vitriflow.config import Config
from vitriflow.elogbook import open_session, write_session_record
from vitriflow.formats import write_mrc
from vitriflow.storage import Manifest, ManifestLine, SessionFolder, make_session_folder, session_folder

NAMES = (
    "GridSquare_1/Data/FoilHole_1_Fractions.mrc",
    "GridSquare_1/Data/FoilHole_1.xml",
    "GridSquare_1/Data/FoilHole_2_Fractions.mrc",
    "GridSquare_2/Data/naïve name.mrc",
    "Atlas.xml",
)


class Custody:
    """A facility with one session. ``config`` may be replaced."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.folder = folder
        self.root = folder / "data"
        self.root.mkdir(parents=True)
        self.config = Config.model_validate({"storage": {"root": self.root}, **sections})
        self.catalog = new_sqlite(self.config.storage.root / "catalog.db")
        self.add_session("s1")

    def add_session(self, key: str, *, microscope: str = "tem1", source: Path | None = None) -> Session:
        """One more session; the latest is the one that the other methods work on."""
        self.key = key
        self.source = source or self.folder / microscope / key
        self.source.mkdir(parents=True, exist_ok=True)
        self.session = open_session(
            self.catalog,
            key=key,
            source=self.source,
            microscope=microscope,
            experiment="e1",
            sample="apo",
            settings={},
            root_of=lambda when: session_folder(self.root, when, "e1", microscope, "apo", key).root,
        )
        self.catalog.write(
            lambda orm: orm.execute(update(Session).where(Session.key == key).values(mode="copy"))
        )
        self.home = SessionFolder(Path(self.session.root))
        make_session_folder(self.home, self.source, "copy")
        write_session_record(self.catalog, key, self.home.record)
        return self.session

    def add(self, name: str, *, hours: float = 100.0, data: bytes | None = None, **columns: Any) -> Path:
        """A file on the microscope's disk with a proved copy, proved so many hours ago."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is not None or not name.endswith(".mrc"):
            path.write_bytes(data if data is not None else name.encode() * 20)
        else:
            seed = sum(name.encode())
            write_mrc(
                path, np.random.default_rng(seed).poisson(1.0, (2, 16, 16)).astype(np.uint8), pixel_size_A=1.0
            )
        when = now() - timedelta(hours=hours)
        state = path.stat()
        digest = blake3(path.read_bytes()).hexdigest()
        destination = f"raw/{name}"
        kind = "movie" if name.endswith(".mrc") else "metadata"
        values: dict[str, Any] = {
            "session_id": self.session.id,
            "key": name,
            "kind": kind,
            "state": FileState.PROVED,
            "size": state.st_size,
            "stamp": state.st_mtime_ns,
            "blake3": digest,
            "destination": destination,
            "decodable": True if kind == "movie" else None,
            "first_seen_at": when,
            "complete_at": when,
            "copied_at": when,
            "proved_at": when,
        }
        values |= columns
        if values["state"] == FileState.PROVED:
            copy = self.home.root / destination
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
            line = ManifestLine(
                destination,
                state.st_size,
                digest,
                when.isoformat(),
                source=name,
                generation=values.get("generation", 1),
                kind=kind,
                stamp=state.st_mtime_ns,
            )
            Manifest(self.home.manifest).append([line])
        self.catalog.write(lambda orm: orm.add(SourceFile(**values)))
        return path

    def fill(self, hours: float = 100.0) -> list[Path]:
        """The usual five files."""
        return [self.add(name, hours=hours) for name in NAMES]

    def rows(self) -> dict[str, SourceFile]:
        """Files of the session in the catalog, the newest of each name."""
        query = select(SourceFile).where(SourceFile.session_id == self.session.id)
        return {row.key: row for row in self.catalog.read(lambda o: list(o.scalars(query.order_by("id"))))}

    def change(self, name: str, **columns: Any) -> None:
        """Change columns of one file's row."""
        where = (SourceFile.session_id == self.session.id, SourceFile.key == name)
        self.catalog.write(lambda orm: orm.execute(update(SourceFile).where(*where).values(**columns)))

    def reread(self) -> Session:
        """The session as the catalog has it now."""
        return self.catalog.read(
            lambda orm: orm.scalars(select(Session).where(Session.key == self.key)).one()
        )

    def on_disk(self) -> set[str]:
        """Names below the microscope's folder."""
        return {str(path.relative_to(self.source)) for path in self.source.rglob("*") if not path.is_dir()}
