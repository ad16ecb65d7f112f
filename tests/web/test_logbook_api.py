"""The elogbook by REST, on a real server: an operator's day, and what's refused."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.databases import new_sqlite
from tests.web.conftest import client_for
from vitriflow.config import Config, load_config
from vitriflow.web import create_app

E1 = "/api/experiments/cm12345"


@pytest.fixture(scope="module")
def facility(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("facility")
    for name in ("tem1", "tem2"):
        (folder / name / "session_a").mkdir(parents=True)
    (folder / "facility.toml").write_text(
        f'[storage]\nroot = "data"\n[microscopes.tem1]\nvoltage_kV = 300.0\nsources = ["{folder}/tem1"]\n'
        f'[microscopes.tem2]\nsources = ["{folder}/tem2"]\n',
        encoding="utf-8",
    )
    config = load_config(folder / "facility.toml")
    config.storage.root.mkdir()
    catalog = new_sqlite(config.storage.root / "catalog.db")
    catalog.close()
    return config


@pytest.fixture(scope="module")
def api(facility: Config) -> Iterator[httpx.Client]:
    with client_for(create_app(facility.catalog_url, config=facility)) as client:
        made = client.post("/api/experiments", json={"name": "cm12345", "title": "Ribosomes"})
        assert made.status_code == 201, made.text
        assert client.post("/api/experiments", json={"name": "other"}).status_code == 201
        yield client


def sample(api: httpx.Client, name: str, **settings: Any) -> httpx.Response:
    return api.post(f"{E1}/samples", json={"name": name, "settings": settings})


def test_the_form_asks_what_the_templates_steps_read_with_units_and_limits(api: httpx.Client) -> None:
    form = api.get("/api/session-form").json()
    fields = {field["name"]: field for field in form["fields"]}
    assert form["template"] == "single-particle"
    assert fields["particle_diameter_A"]["unit"] == "Å"
    assert fields["particle_diameter_A"]["nodes"] == ["pick"]
    assert fields["voltage_kV"]["most"] == 400
    assert fields["b_factor_px2"]["advanced"]
    ready = {field["name"] for field in api.get("/api/session-form?template=micrographs").json()["fields"]}
    assert "gain_reference" not in ready
    assert "particle_diameter_A" in ready
    assert api.get("/api/session-form?template=/etc/passwd").status_code == 404


def test_a_sample_keeps_what_was_said_and_nothing_else(api: httpx.Client) -> None:
    made = sample(api, "apo", particle_diameter_A="130", symmetry="O", voltage_kV="")
    assert made.status_code == 201
    assert made.json()["settings"] == {"particle_diameter_A": 130.0, "symmetry": "O"}
    changed = api.patch(f"{E1}/samples/apo", json={"title": "Apoferritin"})
    assert (changed.json()["title"], changed.json()["settings"]["symmetry"]) == ("Apoferritin", "O")
    clone = api.post(f"{E1}/samples/apo/clone", json={"name": "holo"})
    assert clone.json()["settings"] == made.json()["settings"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"particle_diameter_A": "big"}, "particle_diameter_A"),
        ({"voltage_kV": 3000}, "voltage_kV"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"dose_per_frame_e_per_A2": 2, "n_frames": 40, "total_dose_e_per_A2": 40}, "dose per frame"),
        ({"template": "micrographs", "gain_reference": "/x.mrc"}, "gain_reference"),
        ({"template": "../../etc/passwd"}, "template"),
    ],
)
def test_a_parameter_that_nothing_would_read_or_that_cannot_be_right_is_refused_by_name(
    api: httpx.Client, settings: dict[str, Any], named: str
) -> None:
    answer = sample(api, "bad", **settings)
    assert answer.status_code in (404, 422)
    assert named in answer.text
    assert api.get(f"{E1}/samples/bad").status_code == 422


def test_activating_starts_a_session_with_the_samples_parameters_and_stopping_ends_it(
    api: httpx.Client, facility: Config
) -> None:
    sample(api, "run1", particle_diameter_A=150, phase_plate=True, n_frames=40, total_dose_e_per_A2=60)
    nowhere = api.post(f"{E1}/samples/run1/activate", json={"microscope": "tem1", "source": "session_z"})
    assert nowhere.status_code == 422
    assert "session_a" in nowhere.text
    started = api.post(f"{E1}/samples/run1/activate", json={"microscope": "tem1", "source": "session_a"})
    assert started.status_code == 201, started.text
    key = started.json()["key"]
    again = api.post(f"{E1}/samples/run1/activate", json={"microscope": "tem1", "source": "session_a"})
    assert again.status_code == 422
    assert key in again.text
    other = api.post(f"{E1}/samples/run1/activate", json={"microscope": "tem2", "source": "session_a"})
    assert other.status_code == 201, other.text
    shown = api.get(f"{E1}/samples/run1").json()
    assert (shown["state"], shown["sessions"]) == ("active", 2)
    for way, state in (("pause", "paused"), ("resume", "active"), ("stop", "closed")):
        assert api.post(f"/api/sessions/{key}/{way}").json()["state"] == state
    log = [entry["text"] for entry in api.get(f"{E1}/log?session={key}&automatic=true").json()["entries"]]
    assert [text for text in log if "stopped" in text]
    assert [text for text in log if "activated on tem1" in text]
    session = api.get(f"/api/sessions/{key}").json()
    assert session["processings"][0]["name"] == "live"
    assert api.post(f"/api/sessions/{other.json()['key']}/stop").status_code == 200


def test_without_picking_or_processing_just_that_is_left_out(api: httpx.Client, facility: Config) -> None:
    sample(api, "nopick", picking=False, particle_diameter_A=100)
    started = api.post(f"{E1}/samples/nopick/activate", json={"microscope": "tem1", "source": "session_a"})
    key = started.json()["key"]
    with sqlite3.connect(facility.storage.root / "catalog.db") as db:
        (template,) = db.execute("SELECT template FROM processing ORDER BY id DESC LIMIT 1").fetchone()
    db.close()
    assert "ctf.native" in template
    assert "pick.dog" not in template
    assert api.post(f"/api/sessions/{key}/stop").status_code == 200
    sample(api, "copyonly", preprocess=False)
    started = api.post(f"{E1}/samples/copyonly/activate", json={"microscope": "tem1", "source": "session_a"})
    assert started.status_code == 201, started.text
    key = started.json()["key"]
    assert api.get(f"/api/sessions/{key}").json()["processings"] == []
    assert api.post(f"/api/sessions/{key}/stop").status_code == 200


def test_entries_carry_files_and_pictures_by_what_is_in_them(api: httpx.Client) -> None:
    entry = api.post(f"{E1}/log", json={"text": "Atlas of **grid 2**", "tags": ["atlas"]}).json()
    assert "<strong>grid 2</strong>" in entry["html"]
    picture = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
    files = f"{E1}/log/{entry['id']}/files"
    png = api.post(files, files={"file": ("../../atlas.png", picture, "image/png")}).json()
    assert png["name"] == "atlas.png"
    page = api.post(files, files={"file": ("evil.png", b"<script>alert(1)</script>", "image/png")}).json()
    shown = api.get(f"{E1}/files/{png['id']}")
    assert shown.content == picture
    assert shown.headers["content-type"] == "image/png"
    hidden = api.get(f"{E1}/files/{page['id']}")
    assert hidden.headers["content-type"] == "application/octet-stream"
    assert hidden.headers["content-disposition"].startswith("attachment")
    assert hidden.headers["x-content-type-options"] == "nosniff"
    assert api.post(files, files={"file": ("empty", b"", "text/plain")}).status_code == 422
    assert api.get(f"/api/experiments/other/files/{png['id']}").status_code == 404
    large = api.post(files, files={"file": ("large.bin", bytes(3 * 1024 * 1024), "x/y")})
    assert (large.status_code, large.json()["size"]) == (201, 3 * 1024 * 1024)
    listed = api.get(f"{E1}/log?tag=atlas").json()["entries"][0]
    assert [one["name"] for one in listed["files"]] == ["atlas.png", "evil.png", "large.bin"]


def test_an_entry_is_changed_and_struck_out(api: httpx.Client) -> None:
    number = api.post(f"{E1}/log", json={"text": "Frist"}).json()["id"]
    assert api.patch(f"{E1}/log/{number}", json={"text": "First"}).status_code == 200
    assert api.patch(f"/api/experiments/other/log/{number}", json={"text": "Mine"}).status_code == 404
    assert api.post(f"{E1}/log/{number}/strike").status_code == 200
    assert api.patch(f"{E1}/log/{number}", json={"text": "Again"}).status_code == 422
    found = api.get(f"{E1}/log?search=First").json()["entries"][0]
    assert found["struck_by"] == "local"


def test_boxes_and_grids(api: httpx.Client) -> None:
    sample(api, "ongrid")
    (box,) = api.post(f"{E1}/boxes", json={"name": "B1", "container": "puck 2", "n_grids": 3}).json()
    grid = box["grids"][1]["id"]
    changed = api.patch(f"{E1}/grids/{grid}", json={"sample": "ongrid", "state": "loaded"}).json()
    assert (changed[0]["grids"][1]["sample"], changed[0]["grids"][1]["state"]) == ("ongrid", "loaded")
    assert api.patch(f"{E1}/grids/{grid}", json={"state": "melted"}).status_code == 422
    assert api.patch(f"/api/experiments/other/grids/{grid}", json={"name": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/experiments", {"name": "a/b"}),
        ("POST", "/api/experiments", {"name": "x", "colour": "red"}),
        ("POST", "/api/experiments", {"name": "cm12345"}),
        ("PATCH", E1, {"state": "ajar"}),
        ("POST", f"{E1}/log", {"text": ""}),
        ("POST", f"{E1}/log", {"text": "x", "session": "no-such"}),
        ("POST", "/api/experiments/none/samples", {"name": "x"}),
        ("POST", "/api/sessions/none/pause", None),
        ("PATCH", f"{E1}/grids/99999999999999", {"name": "x"}),
    ],
)
def test_what_cannot_be_is_refused_with_the_four_facts(
    api: httpx.Client, method: str, path: str, body: Any
) -> None:
    answer = api.request(method, path, json=body)
    assert 400 <= answer.status_code < 500
    assert set(answer.json()["error"]) == {"what", "expected", "found", "remedy"}


def test_a_server_without_a_configuration_says_what_it_lacks(facility: Config, tmp_path: Path) -> None:
    with client_for(create_app(facility.catalog_url)) as client:
        client.post(f"{E1}/samples", json={"name": "lonely"})
        answer = client.post(f"{E1}/samples/lonely/activate", json={"microscope": "tem1"})
    assert answer.status_code == 503
    assert "vitriflow serve" in answer.text
