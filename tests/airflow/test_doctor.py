"""The doctor says which part of Airflow doesn't run, and what to start."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from vitriflow.config import Config
from vitriflow.facility.doctor_airflow import check_airflow
from vitriflow.facility.findings import Health

SOUND = {name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "triggerer", "dag_processor")}


@contextmanager
def answering(health: Any) -> Iterator[str]:
    """A server that answers as Airflow's does when asked for its health."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(health).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def found(**airflow: Any) -> list[tuple[Health, str]]:
    config = Config.model_validate({"airflow": airflow, "microscopes": {"tem1": {}}})
    return [(one.health, f"{one.text} {one.remedy}") for one in check_airflow(config)]


def test_where_airflow_does_not_conduct_nothing_is_said() -> None:
    assert found() == []


def test_an_airflow_with_all_its_parts_is_good() -> None:
    with answering(SOUND) as url:
        ((health, _),) = found(conducts=True, url=url)
    assert health is Health.GOOD


def test_a_part_that_does_not_run_is_named_with_what_to_start() -> None:
    with answering({**SOUND, "triggerer": {"status": "unhealthy"}}) as url:
        ((health, text),) = found(conducts=True, url=url)
    assert health is Health.BAD
    assert "airflow triggerer" in text


def test_an_airflow_that_does_not_answer_and_names_that_are_not_are_told() -> None:
    with answering(SOUND) as url:
        pass
    (first, second) = found(conducts=True, url=url, microscopes=["tem9"])
    assert "tem9" in first[1]
    assert "api-server" in second[1]
    ((health, text),) = found(conducts=True)
    assert health is Health.NOTE
    assert "airflow.url" in text
    ((_, text),) = found(conducts=True, url="nonsense")
    assert "http://" in text
