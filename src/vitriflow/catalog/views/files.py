"""Files of a session that pages show by name."""

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog.custody import FileState, SourceFile


def unknown_files(db: OrmSession, session_id: int, limit: int = 50) -> list[str]:
    """Files that no recogniser claims, newest first: paths below the source folder."""
    query = (
        select(SourceFile.key)
        .where(
            SourceFile.session_id == session_id,
            SourceFile.kind == "unknown",
            SourceFile.state != FileState.REPLACED,
        )
        .order_by(SourceFile.id.desc())
        .limit(limit)
    )
    return list(db.scalars(query))
