"""What Prometheus reads: parsed by its own parser, equal to what the pages say, and all that the dashboard asks for."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.web.conftest import client_for, fill
from tests.web.factory import make_world
from vitriflow.catalog import Alarm, Node, SourceFile, now
from vitriflow.config import Config
from vitriflow.config.monitoring import MACHINE
from vitriflow.web import create_app
from vitriflow.web.metrics import METRICS

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "reference" / "grafana-dashboard.json"
_LABEL = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("metrics")
    world = make_world(folder)
    fill(world)

    def work(orm: Any) -> None:
        machine = {"cpu_percent": 50.0, "memory_percent": 40.0, "gpus": [{"gpu_percent": 7.0}]}
        for name, ago in (("a:process", 1), ("b:acquire", 900)):
            seen = now() - timedelta(seconds=ago)
            details = {"host": name[0], "machine": machine}
            orm.add(Node(name=name, service=name[2:], started_at=seen, seen_at=seen, details=details))
        for rule, severity, cleared in (
            ("silence", "alarm", None),
            ("rule:own", "info", None),
            ("x", "info", now()),
        ):
            orm.add(
                Alarm(
                    rule=rule,
                    subject="x",
                    severity=severity,
                    text='"\n\\',
                    raised_at=now(),
                    cleared_at=cleared,
                )
            )
        for number, state in enumerate(("proved", "proved", "complete")):
            orm.add(
                SourceFile(
                    session_id=world.session_id, key=f"{number}", kind="movie", state=state, size=10**9,
                    first_seen_at=now(),
                )
            )  # fmt: skip

    world.catalog.write(work)
    config = Config.model_validate({"storage": {"root": folder}})
    with client_for(create_app(world.url(), config=config, poll_s=0.2)) as client:
        yield world, client


def families(client: httpx.Client) -> dict[str, Metric]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {one.name: one for one in text_string_to_metric_families(answer.text)}


def value(found: dict[str, Metric], name: str, **labels: str) -> float | None:
    for sample in found[name].samples:
        if labels.items() <= sample.labels.items():
            return float(sample.value)
    return None


def test_all_metrics_are_there_with_the_labels_that_they_promise(read: Any) -> None:
    _, client = read
    found = families(client)
    assert set(found) == set(METRICS)
    for name, family in found.items():
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) == set(METRICS[name][0]), name


def test_they_say_what_the_pages_say(read: Any) -> None:
    world, client = read
    found = families(client)
    summary = client.get(f"/api/sessions/{world.key}/counts").json()
    session = {"microscope": "tem1", "session": world.key}
    for state in ("done", "rejected", "quarantined", "failed", "open"):
        assert value(found, "vitriflow_exposures", state=state, **session) == summary["counts"][state]
    total = sum(sample.value for sample in found["vitriflow_exposures"].samples)
    assert total == summary["counts"]["total"]
    assert value(found, "vitriflow_backlog", **session) == summary["counts"]["open"]
    assert value(found, "vitriflow_exposures_usable", **session) == summary["usable"]
    assert value(found, "vitriflow_files", state="proved", **session) == 2
    assert value(found, "vitriflow_file_bytes", state="complete", **session) == 1e9
    assert value(found, "vitriflow_node_up", node="a:process") == 1
    assert value(found, "vitriflow_node_up", node="b:acquire") == 0
    assert value(found, "vitriflow_machine", host="a", quantity="gpu_percent") == 7
    assert value(found, "vitriflow_machine", host="b") is None
    assert value(found, "vitriflow_alarms", rule="own", severity="info") == 1
    assert sum(sample.value for sample in found["vitriflow_alarms"].samples) == 2
    assert (value(found, "vitriflow_disk_free_bytes", disk="storage") or 0) > 0


def test_the_dashboard_asks_only_for_metrics_and_labels_that_exist(read: Any) -> None:
    _, client = read
    found = families(client)
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) > 20
    used = set()
    for expression in asked:
        names = re.findall(r"vitriflow_\w+", expression)
        assert names, expression
        used |= set(names)
        for name in names:
            assert name in METRICS, f"{name} of {expression}"
        for name, labels in re.findall(r"(vitriflow_\w+)\{([^}]*)\}", expression):
            for label, wanted in _LABEL.findall(labels):
                assert label in METRICS[name][0], f"{label} of {expression}"
                if label == "quantity" and name == "vitriflow_machine":
                    assert wanted in MACHINE
                elif label in ("quantity", "state") and "|" not in wanted:
                    assert any(sample.labels[label] == wanted for sample in found[name].samples), expression
    assert set(METRICS) - used <= {
        "vitriflow_info", "vitriflow_sessions", "vitriflow_exposures_growing",
        "vitriflow_node_seen_timestamp_seconds",
    }  # fmt: skip


def test_nobody_reads_them_without_leave(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    app = create_app(world.url(), open_here=False)
    with client_for(app) as client:
        assert client.get("/metrics", headers={"accept": "text/plain"}).status_code in (401, 303)
