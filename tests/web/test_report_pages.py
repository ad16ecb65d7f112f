"""The report from the page: made at any time, and written where the facility publishes."""

from pathlib import Path

from tests.web.conftest import client_for, fill
from tests.web.factory import make_world
from vitriflow.config import Config
from vitriflow.web import create_app


def test_it_is_read_downloaded_and_published_from_the_page(tmp_path: Path) -> None:
    world = make_world(tmp_path, "s 1")
    fill(world)
    config = Config.model_validate({"reports": {"publish_to": tmp_path / "www", "pictures": 1}})
    app = create_app(world.url(), title="Test facility", config=config, poll_s=0.2)
    with client_for(app) as client:
        page = client.get("/sessions/s%201").text
        assert 'href="/sessions/s%201/report?processing=live"' in page
        answer = client.get("/sessions/s%201/report?processing=live")
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src")
        assert "apoferritin" in answer.text
        saved = client.get("/sessions/s%201/report?download=1")
        assert saved.headers["content-disposition"] == 'attachment; filename="s-1.report.html"'
        numbers = client.get("/api/sessions/s%201/report").json()
        counts = client.get("/api/sessions/s%201/counts").json()["counts"]
        assert {name: numbers["counts"][name] for name in ("total", "done", "open")} == {
            name: counts[name] for name in ("total", "done", "open")
        }
        client.cookies.clear()  # a program, not a browser
        assert client.post("/api/sessions/s%201/report").json() == {"written": "s-1.report.html"}
        assert (tmp_path / "www" / "s-1.report.html").is_file()
        assert client.get("/sessions/s%201/report?processing=none").status_code == 404
        assert client.get("/sessions/nobody/report").status_code == 404
