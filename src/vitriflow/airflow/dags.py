"""Makes the DAGs from vitriflow's description. The same description gives the same DAGs, version for version."""

import hashlib
import json
import logging
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, get_parsing_context

from vitriflow.airflow.client import Away, Client, Refused
from vitriflow.airflow.operators import (
    DagOperator,
    FilesOperator,
    FreeOperator,
    LotsOperator,
    NodeOperator,
    PrepareOperator,
    SessionOperator,
)

_log = logging.getLogger(__name__)
_ALWAYS = 1_000_000  # times
_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def make_dags() -> dict[str, DAG]:
    """DAGs by name, made from what vitriflow says, or said last while it's away.

    Raises
    ------
    Away, Refused
        When vitriflow doesn't answer and never has; Airflow shows it as an import error.
    """
    only = get_parsing_context().dag_id  # a task that starts reads one DAG, and asks nobody
    found = _description(fresh=only is None)
    dags: dict[str, DAG] = {}
    for one in [found["template"], *found["dags"]]:
        if only in (None, one["dag"]):
            dags[one["dag"]] = pipeline_dag(one, found["runs"])
    for microscope in found["microscopes"]:
        name = f"{microscope}-daq"
        if only in (None, name):
            dags[name] = microscope_dag(name, microscope)
    return {name.replace("-", "_").replace(".", "_"): dag for name, dag in dags.items()}


def pipeline_dag(one: dict[str, Any], runs: int) -> DAG:
    """The DAG of a pipeline: its graph, a task for each node; a run carries a lot of exposures.

    A task runs whatever became of those before it: one broken exposure never holds back the others.
    """
    graph = hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest()[:12]
    params = {name: _param(value) for name, value in sorted(one["parameters"].items())}
    if not one["experiment"]:
        params["session"] = Param("", type=["null", "string"], description="key of the session to process")
    dag = DAG(
        dag_id=one["dag"],
        description=one["title"],
        schedule=None,
        start_date=_EPOCH,
        catchup=False,
        max_active_runs=runs,
        is_paused_upon_creation=False,
        render_template_as_native_obj=False,
        params=params,
        tags=sorted({"vitriflow", one["experiment"] or "template"}),
        doc_md=_about(one, graph),
        default_args=_defaults(),
    )
    tasks = {
        node["name"]: NodeOperator(
            task_id=node["name"],
            node=node["name"],
            frozen=one["parameters"],
            begins=not node["upstream"],
            graph=graph,
            trigger_rule="all_done",
            doc_md=f"Step `{node['step']}`",
            dag=dag,
        )
        for node in one["nodes"]
    }
    for node in one["nodes"]:
        for before in node["upstream"]:
            tasks[before] >> tasks[node["name"]]
    return dag


def microscope_dag(name: str, microscope: str) -> DAG:
    """The DAG of a microscope: one run for each session, always one waiting for the next."""
    dag = DAG(
        dag_id=name,
        description=f"Sessions of {microscope}: from the elogbook to the freed disk",
        schedule="@continuous",
        start_date=_EPOCH,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        params={
            "free_disk": Param(
                True, type="boolean", description="free by permit; it also needs [release] automatic"
            )
        },
        tags=["vitriflow", microscope],
        # A microscope's tasks can be begun anew at any time, and none of them may give up while a session goes on.
        default_args={**_defaults(), "retries": _ALWAYS, "retry_delay": timedelta(seconds=10)},
    )
    elogbook = SessionOperator(task_id="elogbook", microscope=microscope, dag=dag)
    storage = PrepareOperator(task_id="storage", dag=dag)
    experiment = DagOperator(task_id="experiment", dag=dag)
    lots = LotsOperator(task_id="processing", retry_delay=timedelta(seconds=2), dag=dag)
    elogbook >> storage >> experiment >> lots
    storage >> [FilesOperator(task_id="transfer", dag=dag), FreeOperator(task_id="free_disk", dag=dag)]
    return dag


# ---- the description


def _description(fresh: bool) -> dict[str, Any]:
    kept = _kept()
    if not fresh and kept.is_file():
        return _load(kept)
    try:
        found = Client().ask("GET", "")
    except (Away, Refused) as error:
        if not kept.is_file():
            raise
        _log.warning("%s; the DAGs stay as they were", error)
        return _load(kept)
    _keep(kept, found)
    return found


def _kept() -> Path:
    """The file that holds the last description, in Airflow's home."""
    home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
    return Path(os.environ.get("VITRIFLOW_DAGS_FILE", str(home / "vitriflow-dags.json")))


def _load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _keep(path: Path, found: dict[str, Any]) -> None:
    """Replace the file at once, so that no reader ever sees half of it; leave it when it's the same."""
    text = json.dumps(found, sort_keys=True)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".vitriflow-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(path)


# ---- parts


def _defaults() -> dict[str, Any]:
    """What a facility may set for all tasks: the pool that they wait in, and Airflow's own retries."""
    found: dict[str, Any] = {
        "owner": "vitriflow",
        "retries": int(os.environ.get("VITRIFLOW_TASK_RETRIES", "0")),
    }
    if os.environ.get("VITRIFLOW_POOL"):
        found["pool"] = os.environ["VITRIFLOW_POOL"]
    return found


def _param(value: Any) -> Param:
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    kind = kinds.get(type(value), "string")
    return Param(value, type=["null", kind])


def _about(one: dict[str, Any], graph: str) -> str:
    rows = "\n".join(f"| {name} | `{value}` |" for name, value in sorted(one["parameters"].items()))
    revisions = ", ".join(f"{name} `{value}`" for name, value in sorted(one["revisions"].items()) if value)
    return (
        f"### {one['title']}\n\nMade by vitriflow from {revisions}; graph `{graph}`.\n\n"
        "The parameters are frozen with the processing. *Trigger* with others begins a new processing "
        "beside it, with those; vitriflow keeps both and says who asked.\n\n"
        f"| parameter | value |\n| --- | --- |\n{rows}\n"
    )
