"""Pages as text: what they say, that names can't become scripts, and that nothing comes from elsewhere."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

import vitriflow.web
from tests.web.conftest import client_for, client_of
from tests.web.factory import World
from vitriflow.catalog import ResultRow
from vitriflow.errors import BadConfig
from vitriflow.web import create_app_from_env

STATIC = Path(vitriflow.web.__file__).parent / "static"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"


class Scan(HTMLParser):
    """Collects what the content policy would block: inline scripts, styles, handlers, foreign addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.tags: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self._script = tag == "script"
        if tag == "style" or (tag == "script" and "src" not in given):
            self.bad.append(f"inline {tag}")
        for name, value in given.items():
            if name == "style" or name.startswith(("on", "hx-on")):
                self.bad.append(f"{tag} {name}")
            if name in ("src", "href", "action") and not (value or "").startswith(("/", "#")):
                self.bad.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.bad.append("script text")

    def handle_endtag(self, tag: str) -> None:
        self._script = False


def page(client: httpx.Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text[:500]
    return answer.text


def paths(world: World) -> list[str]:
    base = f"/sessions/{world.key}"
    parts = [f"{base}/part/{name}" for name in ("summary", "side", "gallery")]
    return ["/", "/part/sessions", base, *parts, *(f"{base}/exposures/{number}" for number in world.ids)]


def test_every_page_obeys_its_own_content_policy(client: httpx.Client, full: World) -> None:
    for path in [*paths(full), "/sessions/empty"]:
        assert Scan(page(client, path)).bad == [], path


def test_names_with_markup_are_shown_as_they_are(world: World) -> None:
    shown = [world.add(item=f"Square/{EVIL}"), world.add("quarantined", item=f"q/{EVIL}", reason=EVIL)]
    world.add("problem", item=f"p/{EVIL}", reason=EVIL, code=EVIL[:60])
    world.say(EVIL)
    assert shown
    with client_of(world) as client:
        for path in [*paths(world), f"/sessions/{world.key}?status=done&reason={'%3Cscript%3E'[:0]}"]:
            text = page(client, path)
            assert "<script>alert" not in text, path
            assert "<img src=x" not in text, path
            assert Scan(text).bad == [], path
        assert "&lt;script&gt;alert(1)" in page(client, f"/sessions/{world.key}")


def test_the_session_page_writes_the_sum_out(client: httpx.Client, full: World) -> None:
    text = " ".join(page(client, f"/sessions/{full.key}").split())
    assert '<b id="count-total">14</b> came in' in text
    for name, number in (("done", 8), ("failed", 1), ("rejected", 1), ("quarantined", 2), ("open", 2)):
        assert f'id="count-{name}">{number}</b> {name}' in text
    assert "folder looked at every 1.0 s" in text
    assert "<b>2</b> claimed by no recogniser" in text
    assert "the file ends after 7 of 40 frames" in text


def test_empty_states_say_what_to_expect(client: httpx.Client, world: World) -> None:
    assert "is watched; an exposure appears here" in page(client, "/sessions/empty")
    assert "None like that" in page(client, "/sessions/closed?status=failed")
    with client_of(world) as other:
        assert "No exposures yet" in page(other, "/")


def test_a_catalog_without_sessions_tells_how_to_start_one(tmp_path: Path) -> None:
    from vitriflow.catalog import Base, Catalog

    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    Base.metadata.create_all(catalog.engine)
    with client_for(vitriflow.web.create_app(catalog.url)) as client:
        assert "vitriflow run" in page(client, "/")


def test_numbers_on_the_exposure_page_have_units(client: httpx.Client, full: World) -> None:
    text = page(client, f"/sessions/{full.key}/exposures/{full.ids[0]}")
    for label in ("Defocus U", "Fits to", "Path, all frames", "Diameter"):
        value = text.partition(f"<dt>{label}</dt><dd>")[2].partition("</dd>")[0]
        assert value.endswith(" Å"), (label, value)


def test_a_spectrum_is_called_fitted_only_when_the_fit_is_in_the_picture(
    client: httpx.Client, full: World, world: World
) -> None:
    assert "fitted in the other" in page(client, f"/sessions/{full.key}/exposures/{full.ids[0]}")
    plain = world.add()

    def forget(db: OrmSession) -> None:
        row = db.scalars(select(ResultRow).where(ResultRow.node == "preview")).one()
        record = json.loads(json.dumps(row.record))
        del record["provenance"]["inputs"]["diagnostic"]
        row.record = record

    world.catalog.write(forget)
    with client_of(world) as other:
        assert "as measured" in page(other, f"/sessions/{world.key}/exposures/{plain}")


def test_what_was_set_aside_shows_no_defaults_as_measurements(client: httpx.Client, full: World) -> None:
    text = page(client, f"/sessions/{full.key}/exposures/{full.ids[4]}")
    assert "No CTF rings found" in text
    assert "<dt>Defocus U</dt>" not in text


def test_an_error_is_a_page_for_people(client: httpx.Client) -> None:
    text = page(client, "/sessions/nowhere", 404)
    assert "the key of a session" in text
    assert Scan(text).bad == []


def test_filters_work_without_a_script(client: httpx.Client, full: World) -> None:
    text = page(client, f"/sessions/{full.key}?status=failed")
    assert text.count('class="card"') == 1
    assert (
        page(client, f"/sessions/{full.key}?status=quarantined&reason=ctf.no_rings").count('class="card"')
        == 1
    )


def test_shipped_libraries_are_what_they_say(client: httpx.Client) -> None:
    vendor = STATIC / "vendor"
    listed = json.loads((vendor / "vendor.json").read_text())["libraries"]
    assert {one["file"] for one in listed} == {path.name for path in vendor.glob("*.js")}
    for one in listed:
        assert hashlib.sha256((vendor / one["file"]).read_bytes()).hexdigest() == one["sha256"]
        assert all((vendor / name).stat().st_size > 100 for name in one["license_files"])


def test_shipped_files_are_kept_for_ever_only_under_their_hash(client: httpx.Client) -> None:
    address = re.search(r'href="(/static/@\w+/app\.css)"', page(client, "/"))
    assert address is not None
    kept = client.get(address[1])
    assert "immutable" in kept.headers["cache-control"]
    assert kept.headers["content-encoding"] == "gzip"
    assert kept.content == (STATIC / "app.css").read_bytes()
    plain = client.get("/static/app.css", headers={"accept-encoding": "identity"})
    assert plain.headers["cache-control"] == "no-cache"
    assert plain.content == kept.content
    known = client.get("/static/app.css", headers={"if-none-match": plain.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    old = client.get("/static/@0123456789ab/app.css")
    assert old.headers["cache-control"] == "no-cache", (
        "another version's address must not keep this one's file"
    )
    assert client.get("/static/nothing.css").status_code == 404
    assert client.post("/static/app.css").status_code in (403, 405)


def test_the_environment_describes_a_server(full: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRIFLOW_CATALOG_URL", full.url())
    monkeypatch.setenv("VITRIFLOW_ALLOWED_HOSTS", "wall.example.org, localhost")
    monkeypatch.setenv("VITRIFLOW_TITLE", "S2C2")
    with client_for(create_app_from_env()) as client:
        assert "S2C2" in client.get("/", headers={"host": "localhost"}).text
        assert client.get("/", headers={"host": "wall.example.org"}).headers["location"] == "/sign-in"
    monkeypatch.setenv("VITRIFLOW_SCAN_INTERVAL_S", "often")
    with pytest.raises(BadConfig, match="number of seconds"):
        create_app_from_env()
    monkeypatch.delenv("VITRIFLOW_CATALOG_URL")
    with pytest.raises(BadConfig, match="URL"):
        create_app_from_env()
