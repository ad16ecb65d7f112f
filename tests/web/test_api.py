"""The JSON API answers with what the catalog holds, and refuses everything else politely."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from tests.web.conftest import client_for, client_of
from tests.web.factory import World
from vitriflow.catalog import Catalog, Exposure, ResultRow
from vitriflow.web import create_app

FACTS = {"what", "expected", "found", "remedy"}


def get(client: httpx.Client, path: str, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.json()


def base(world: World) -> str:
    return f"/api/sessions/{world.key}"


def test_sessions_are_listed_newest_first_with_their_counts(client: httpx.Client, full: World) -> None:
    found = get(client, "/api/sessions")
    assert [one["key"] for one in found["sessions"]] == ["closed", "empty", full.key]
    assert found["total"] == 3
    assert found["sessions"][2]["summary"]["counts"]["total"] == 14
    assert found["sessions"][2]["microscope"] == "tem1"


def test_counts_of_the_api_reconcile(client: httpx.Client, full: World) -> None:
    counts = get(client, f"{base(full)}/counts")["counts"]
    five = [counts[name] for name in ("done", "failed", "rejected", "quarantined", "open")]
    assert counts["reconciles"]
    assert sum(five) == counts["total"] == 14


def test_nodes_are_told_in_the_order_of_the_pipeline(client: httpx.Client, full: World) -> None:
    nodes = get(client, base(full))["nodes"]
    assert [node["node"] for node in nodes] == ["motion", "ctf", "pick", "preview"]
    assert nodes[0]["counts"] == {"done": 10, "failed": 1, "waiting": 1}
    assert nodes[3]["counts"]["stopped"] == 2


def test_columns_hold_one_value_for_each_measured_exposure(client: httpx.Client, full: World) -> None:
    answer = get(client, f"{base(full)}/columns")
    assert answer["reset"]
    assert answer["total"] == 13
    defocus = answer["quantities"]["defocus_A"]
    assert defocus["unit"] == "Å"
    assert defocus["count"] == len(defocus["y"]) == len(defocus["id"]) == 9
    assert set(defocus["s"]) == {"done", "rejected"}


@pytest.mark.parametrize(
    ("query", "count"),
    [("status=done", 8), ("status=problem", 4), ("status=quarantined&reason=file.truncated", 1), ("", 13)],
)
def test_exposures_are_filtered(client: httpx.Client, full: World, query: str, count: int) -> None:
    answer = get(client, f"{base(full)}/exposures?{query}")
    assert answer["total"] == len(answer["exposures"]) == count


def test_exposures_are_sorted_with_the_unmeasured_last(client: httpx.Client, full: World) -> None:
    for order in ("asc", "desc"):
        rows = get(client, f"{base(full)}/exposures?sort=fit_resolution_A&order={order}")["exposures"]
        values = [row["values"]["fit_resolution_A"] for row in rows]
        measured = [value for value in values if value is not None]
        assert measured == sorted(measured, reverse=order == "desc")
        assert values[len(measured) :] == [None] * 4


def test_pages_of_exposures_cover_all_once(client: httpx.Client, full: World) -> None:
    ids = []
    for offset in range(0, 15, 5):
        page = get(client, f"{base(full)}/exposures?offset={offset}&limit=5")
        ids += [row["id"] for row in page["exposures"]]
    assert len(ids) == len(set(ids)) == 13


def test_an_exposure_comes_with_every_record_and_its_neighbours(client: httpx.Client, full: World) -> None:
    found = get(client, f"{base(full)}/exposures/{full.ids[1]}")
    assert [node["role"] for node in found["nodes"]] == ["motion", "ctf", "pick", "preview"]
    assert len(found["nodes"][0]["result"]["frame_shifts_A"]) == 40
    assert (found["previous"], found["next"], found["number"]) == (full.ids[0], full.ids[2], 2)
    assert set(found["pictures"]) == {"micrograph", "thumbnail", "spectrum"}


def test_a_file_set_aside_at_intake_tells_why(client: httpx.Client, full: World) -> None:
    found = get(client, f"{base(full)}/exposures/{full.ids[8]}")
    assert (found["status"], found["reason_code"]) == ("quarantined", "file.truncated")
    assert "7 of 40 frames" in found["reason"]


def test_a_failed_exposure_tells_of_its_attempts(client: httpx.Client, full: World) -> None:
    found = get(client, f"{base(full)}/exposures/{full.ids[7]}")
    assert found["nodes"][0]["failed_attempts"][0]["reason_code"] == "worker.died"
    assert [node["state"] for node in found["nodes"][1:]] == ["stopped"] * 3


def test_picks_come_highest_score_first_and_can_be_cut(client: httpx.Client, full: World) -> None:
    path = f"{base(full)}/exposures/{full.ids[0]}/picks"
    picks = get(client, path)
    assert len(picks["x"]) == len(picks["y"]) == len(picks["score"]) > 50
    assert picks["score"] == sorted(picks["score"], reverse=True)
    assert all(0 <= x < 4096 for x in picks["x"])
    cut = get(client, f"{path}?min_score={picks['threshold']}")
    assert len(cut["x"]) == sum(score >= picks["threshold"] for score in picks["score"])


def test_pictures_are_served_and_may_be_kept(client: httpx.Client, full: World) -> None:
    pictures = get(client, f"{base(full)}/exposures/{full.ids[0]}")["pictures"]
    answer = client.get(pictures["thumbnail"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.content.startswith(b"\x89PNG")


def test_events_page_back(client: httpx.Client, full: World) -> None:
    newest = get(client, f"{base(full)}/events?limit=1")["events"]
    older = get(client, f"{base(full)}/events?before={newest[0]['id']}")["events"]
    assert [event["text"] for event in newest + older] == ["Disk of tem1 is 81 % full", "Session started"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/sessions/nowhere", 404),
        ("/api/sessions/nowhere/live", 404),
        ("/api/nothing", 404),
        ("/api/sessions/KEY/exposures/999999", 404),
        ("/api/sessions/KEY/exposures/0", 422),
        ("/api/sessions/KEY/exposures/99999999999999999999999", 422),
        ("/api/sessions/KEY/exposures/x", 422),
        ("/api/sessions/KEY/exposures?status=wonderful", 422),
        ("/api/sessions/KEY/exposures?sort=__class__", 422),
        ("/api/sessions/KEY/exposures?limit=100000", 422),
        ("/api/sessions/KEY/exposures?order=sideways", 422),
        ("/api/sessions/KEY/columns?since=abc", 422),
        ("/api/sessions/KEY/columns?points=10000000", 422),
        ("/api/sessions/KEY/counts?processing=other", 404),
        ("/api/sessions/KEY/exposures/1/picks?min_score=nan", 422),
        ("/api/sessions/KEY/exposures/5/picks", 404),
        ("/api/sessions/KEY/exposures/1/picture/passwd", 422),
        ("/api/sessions/KEY/exposures/1/picture/..%2f..%2f..%2fetc%2fpasswd", 404),
        ("/api/sessions/%00", 422),
        ("/static/../../../../etc/passwd", 404),
        ("/static/%2e%2e/%2e%2e/app.py", 404),
    ],
)
def test_bad_requests_say_what_was_expected(
    client: httpx.Client, full: World, path: str, status: int
) -> None:
    answer = client.get(path.replace("KEY", full.key))
    assert answer.status_code == status, answer.text
    if path.startswith("/api"):
        facts = answer.json()["error"]
        assert set(facts) == FACTS
        assert facts["what"]
        assert facts["found"] or facts["expected"]


def test_an_exposure_is_not_shown_through_another_session(client: httpx.Client, full: World) -> None:
    get(client, f"/api/sessions/closed/exposures/{full.ids[0]}", 404)
    get(client, f"/api/sessions/closed/exposures/{full.ids[0]}/picture/thumbnail", 404)


word = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sampled_from(["", "/counts", "/columns", "/exposures", "/events", "/exposures/1", "/exposures/1/picks"]),
    st.dictionaries(
        st.sampled_from(
            ["status", "sort", "order", "reason", "offset", "limit", "since", "known", "points", "processing",
             "before", "min_score"]
        ),
        st.one_of(word, st.integers(-(2**70), 2**70).map(str), st.floats().map(str)),
        max_size=3,
    ),
)  # fmt: skip
def test_no_query_makes_the_server_fail(
    client: httpx.Client, full: World, path: str, query: dict[str, str]
) -> None:
    answer = client.get(f"{base(full)}{path}", params=query)
    assert answer.status_code in (200, 404, 422), (path, query, answer.text)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(word)
def test_no_session_key_makes_the_server_fail(client: httpx.Client, key: str) -> None:
    from urllib.parse import quote

    answer = client.get(f"/api/sessions/{quote(key, safe='')}")
    assert answer.status_code in (200, 404, 307, 422)


def point_thumbnail_at(world: World, exposure_id: int, path: Path) -> str:
    """Make a record name another file, as a broken step or a forged catalog might."""

    def work(db: Any) -> int:
        row = db.query(ResultRow).filter_by(item_id=exposure_id, node="preview").one()
        record = dict(row.record)
        record["outputs"] = {"thumbnail": {"kind": "picture", "path": str(path)}}
        db.execute(update(ResultRow).where(ResultRow.id == row.id).values(record=record))
        return int(row.id)

    world.catalog.write(work)
    return f"{base(world)}/exposures/{exposure_id}/picture/thumbnail"


def test_a_file_outside_the_session_is_never_served(world: World, tmp_path: Path) -> None:
    exposure_id = world.add()
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    link = world.root / "previews" / "link.png"
    link.symlink_to(secret)
    through = world.root / "previews" / ".." / ".." / ".." / "secret.png"
    with client_of(world) as client:
        for path in (secret, link, through, Path("/etc/passwd"), world.root, world.root / "gone.png"):
            answer = client.get(point_thumbnail_at(world, exposure_id, path))
            assert answer.status_code == 404, path
            assert set(answer.json()["error"]) == FACTS
            assert b"secret" not in answer.content.replace(b"secret.png", b"")


def test_only_pictures_are_served_as_pictures(world: World) -> None:
    exposure_id = world.add()
    page = world.root / "previews" / "page.html"
    page.write_text("<script>alert(1)</script>")
    with client_of(world) as client:
        assert client.get(point_thumbnail_at(world, exposure_id, page)).status_code == 404


def test_broken_coordinates_are_told_not_thrown(world: World) -> None:
    broken = world.root / "broken.star"
    broken.write_text("data_\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\nnot numbers\n")
    with client_of(world) as client:
        for text in (None, "", "no star at all", "data_\nloop_\n_rlnOther #1\n1\n"):
            if text is not None:
                broken.write_text(text)
            exposure_id = world.add(coordinates=broken)
            get(client, f"{base(world)}/exposures/{exposure_id}/picks", 404)


def test_a_catalog_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    app = create_app(f"sqlite:///{tmp_path / 'missing.db'}")
    with client_for(app) as client:
        answer = client.get("/api/sessions")
        assert answer.status_code == 503
        assert "vitriflow" in answer.json()["error"]["remedy"]
        assert client.get("/").status_code == 503
        assert "remedy" not in client.get("/").text


def test_a_fault_of_ours_is_told_without_its_details(
    client: httpx.Client, full: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(Catalog, "read", fail)
    answer = client.get("/api/sessions")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert set(answer.json()["error"]) == FACTS
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("path", ["/", "/api/sessions", "/nowhere", "/api/nowhere", "/static/app.css"])
def test_every_answer_carries_the_security_headers(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:8000", ""])
def test_a_request_for_another_host_is_refused(client: httpx.Client, host: str) -> None:
    assert client.get("/api/sessions", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_the_loopback_names_are_served(client: httpx.Client, host: str) -> None:
    assert client.get("/api/health", headers={"host": host}).status_code == 200


def test_nothing_can_be_written(client: httpx.Client, full: World) -> None:
    for method in ("post", "put", "delete", "patch"):
        assert getattr(client, method)(base(full)).status_code == 405


def test_the_schema_names_every_route_and_its_errors(client: httpx.Client) -> None:
    schema = get(client, "/api/openapi.json")
    assert len(schema["paths"]) >= 11
    for path, methods in schema["paths"].items():
        assert set(methods) <= {"get", "post", "put", "patch", "delete"}, path
        for method, described in methods.items():
            assert {"401", "404", "422"} & set(described["responses"]), f"{method} {path}"
    for page in ("/docs", "/redoc"):  # these would load scripts from another host
        assert client.get(page).status_code == 404


def test_a_name_that_needs_quoting_is_found(world: World, tmp_path: Path) -> None:
    exposure_id = world.add(item="Grid Square ü/Foil #1 & <2>")
    with client_of(world) as client:
        found = get(client, f"{base(world)}/exposures/{exposure_id}")
    assert found["item"] == "Grid Square ü/Foil #1 & <2>"
    assert world.catalog.read(lambda db: db.get(Exposure, exposure_id)) is not None
