"""Whether Airflow, which conducts processing here, runs with all its parts."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from vitriflow.config import Config
from vitriflow.facility.findings import Finding, Health

_PARTS = {
    "metadatabase": "Start its database, and check AIRFLOW__DATABASE__SQL_ALCHEMY_CONN.",
    "scheduler": "Start 'airflow scheduler'.",
    "triggerer": "Start 'airflow triggerer': every task of vitriflow waits in it.",
    "dag_processor": "Start 'airflow dag-processor': without it no experiment gets a DAG.",
}
_PATIENCE_S = 5.0


def check_airflow(config: Config) -> Iterator[Finding]:
    """Ask Airflow's API server for the health of its parts, where Airflow conducts."""
    settings = config.airflow
    if not settings.conducts:
        return
    chosen = settings.microscopes
    for name in chosen or ():
        if name not in config.microscopes:
            known = ", ".join(config.microscopes) or "none"
            text = f"airflow.microscopes names '{name}'; configured: {known}"
            yield Finding("Airflow", Health.BAD, text, "Correct the name in facility.toml.")
    if not config.microscopes:
        yield Finding(
            "Airflow",
            Health.BAD,
            "no microscope to make a DAG of",
            "Add [microscopes.tem1] to facility.toml.",
        )
    if settings.url is None:
        yield Finding(
            "Airflow",
            Health.NOTE,
            "it conducts, and its address isn't known here",
            "Set airflow.url in facility.toml, so that it can be checked.",
        )
        return
    yield from _ask(settings.url.rstrip("/"))


def _ask(url: str) -> Iterator[Finding]:
    if not url.startswith(("http://", "https://")):
        yield Finding(
            "Airflow", Health.BAD, f"airflow.url is {url!r}", "Give its address, with http:// or https://."
        )
        return
    try:
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=_PATIENCE_S) as answer:
            health: dict[str, Any] = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError) as error:
        yield Finding(
            "Airflow",
            Health.BAD,
            f"{url} doesn't answer: {error}",
            "Start 'airflow api-server', or correct airflow.url.",
        )
        return
    bad = False
    for part, remedy in _PARTS.items():
        status = (health.get(part) or {}).get("status")
        if status != "healthy":
            bad = True
            yield Finding("Airflow", Health.BAD, f"{part} is {status or 'not there'} at {url}", remedy)
    if not bad:
        yield Finding("Airflow", Health.GOOD, f"all its parts run at {url}")
