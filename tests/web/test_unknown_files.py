"""Files that nobody knows stand on the session's page and in the API, by name."""

import html

import pytest

from tests.web.conftest import client_of
from tests.web.factory import World
from vitriflow.catalog import SourceFile, now


@pytest.fixture
def strange(world: World) -> World:
    def work(db: object) -> None:
        kinds = [("a.mrc", "movie", "proved"), ("old.txt", "unknown", "replaced")]
        kinds += [(f"notes {n:02d} <b>.docx", "unknown", "proved") for n in range(60)]
        for key, kind, state in kinds:
            row = SourceFile(
                session_id=world.session_id, key=key, kind=kind, state=state, first_seen_at=now()
            )
            db.add(row)  # type: ignore[attr-defined]

    world.catalog.write(work)
    return world


def test_the_newest_fifty_are_named(strange: World) -> None:
    with client_of(strange) as client:
        names = client.get(f"/api/sessions/{strange.key}").json()["unknown"]
        page = client.get(f"/sessions/{strange.key}").text
    assert names == [f"notes {n:02d} <b>.docx" for n in range(59, 9, -1)]
    assert html.escape(names[0]) in page
    assert "Files that nobody knows" in page
    assert names[0] not in page
