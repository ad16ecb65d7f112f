"""Tasks of vitriflow's DAGs. Each asks vitriflow, and waits in the triggerer; none does any work itself."""

import json
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError, AirflowSkipException
from airflow.sdk.execution_time.comms import ErrorResponse, GetDag, TriggerDagRun

from vitriflow.airflow.client import Client, Refused
from vitriflow.airflow.triggers import (
    AskTrigger,
    FilesTrigger,
    FreeTrigger,
    LotsTrigger,
    PauseTrigger,
    SessionTrigger,
)

_KNOWN_S = 2.0  # how often Airflow is asked whether it knows a DAG by now


class _Waiting(BaseOperator):
    """Parent of tasks that end in the triggerer."""

    def nothing_to_do(self, context: Any, event: Any = None) -> None:
        """What a task is woken for when its trigger found nothing to do."""
        raise AirflowSkipException("Nothing waits to be processed.")


class NodeOperator(_Waiting):
    """One node of a pipeline, for the lot of exposures that the run carries.

    Parameters
    ----------
    node
        Name of the node in the pipeline's template.
    frozen
        The processing's parameters. A run that a person starts with others begins a new processing.
    begins
        Whether it's a first task of the DAG: those see to it that the run has a lot.
    graph
        Hash of the DAG's own description.
    """

    ui_color = "#d8e8f4"

    def __init__(self, *, node: str, frozen: dict[str, Any], begins: bool, graph: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.node, self.frozen, self.begins, self.graph = node, frozen, begins, graph

    def execute(self, context: Any) -> Any:
        """Say what's asked for, and leave the waiting to the triggerer."""
        run, ti = context["dag_run"], context["ti"]
        conf = run.conf or {}
        if self.begins and "lot" not in conf:
            self._revise(context)
        asking = {
            "dag": run.dag_id,
            "run": run.run_id,
            "node": self.node,
            "try_number": ti.try_number,
            "lot": conf.get("lot"),
            "session": conf.get("session") or context["params"].get("session") or None,
            "begin": self.begins,
            "revisions": {"dag_version": str(getattr(ti, "dag_version_id", "")), "graph": self.graph},
        }
        self.defer(trigger=AskTrigger(asking), method_name="nothing_to_do")

    def _revise(self, context: Any) -> None:
        params = context["params"]
        changed = {name: params[name] for name, value in self.frozen.items() if params.get(name) != value}
        if not changed:
            return
        path = f"/dags/{context['dag_run'].dag_id}/revise"
        try:
            made = Client().ask("POST", path, json={"parameters": changed})
        except Refused as error:
            raise AirflowFailException(str(error)) from error
        self.log.info("Processing %(processing)s began, like %(base)s but for:", made)
        for name, value in changed.items():
            self.log.info("  %s = %s", name, value)
        raise AirflowSkipException("The microscope's DAG hands the new processing's exposures out.")


class SessionOperator(_Waiting):
    """Reads from the elogbook which experiment and sample are active; waits until there are some."""

    ui_color = "#f4ecd8"

    def __init__(self, *, microscope: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.microscope = microscope

    def execute(self, context: Any) -> Any:
        """Leave the waiting to the triggerer."""
        self.defer(trigger=SessionTrigger(self.microscope), method_name="nothing_to_do")


class PrepareOperator(BaseOperator):
    """Has vitriflow set up storage, permissions, gain reference and processing of the session."""

    ui_color = "#f4ecd8"

    def execute(self, context: Any) -> dict[str, Any]:
        """Ask for it, and show what was done."""
        found = _said(context)
        body = {"microscope": found["microscope"]}
        done = Client().ask("POST", f"/sessions/{found['session']}/prepare", json=body)
        self.log.info("folder: %s", done["folder"])
        self.log.info("permissions: %s", ", ".join(done["permissions"]) or "as they were")
        self.log.info("gain reference: %s", done["gain_reference"] or "none, or chosen by the first movie")
        self.log.info("processing: %s", done["processing"] or "begins with the first movie")
        for problem in done["problems"]:
            self.log.warning("%s", problem)
        return done


class DagOperator(BaseOperator):
    """Waits until Airflow has made the experiment's DAG."""

    ui_color = "#f4ecd8"

    def execute(self, context: Any, event: Any = None) -> str:
        """Look whether it's there; if not, wait in the triggerer and look again."""
        found = _said(context)
        name: str = found["dag"]
        if not _tell(GetDag(dag_id=name)):
            place, query = f"/microscopes/{found['microscope']}", {"session": found["session"]}
            if Client().ask("GET", place, params=query)["over"]:
                raise AirflowSkipException("The session is over, and nothing of it was to be processed.")
            self.log.info("DAG %s isn't made yet; the DAG processor reads vitriflow's DAG file soon.", name)
            self.defer(trigger=PauseTrigger(_KNOWN_S), method_name="execute")
        return name


class FilesOperator(_Waiting):
    """Follows transfer and proof of the session's files; vitriflow's acquisition does them."""

    ui_color = "#f4ecd8"

    def execute(self, context: Any) -> Any:
        """Leave the waiting to the triggerer."""
        found = _said(context)
        self.defer(trigger=FilesTrigger(found["microscope"], found["session"]), method_name="nothing_to_do")


class LotsOperator(BaseOperator):
    """Starts a run of the experiment's DAG for each lot that vitriflow offers, as long as the session goes on."""

    ui_color = "#f4ecd8"

    def execute(self, context: Any, event: Any = None) -> Any:
        """Start runs for what is offered, tell vitriflow, and wait in the triggerer for more."""
        found = _said(context)
        client, place = Client(), f"/microscopes/{found['microscope']}"
        started: list[int] = []
        for one in client.ask("POST", f"{place}/offers", json={})["offers"]:
            asked = TriggerDagRun(dag_id=one["dag"], run_id=one["run"], conf={"lot": one["lot"]})
            if _tell(asked):
                self.log.info("%s %s: %d exposures", one["dag"], one["run"], one["exposures"])
                started.append(one["lot"])
            else:
                self.log.warning("DAG %s isn't made yet: its lot is offered again.", one["dag"])
        if started:
            client.ask("POST", "/acknowledged", json={"lots": started})
        self.defer(trigger=LotsTrigger(found["microscope"], found["session"]), method_name="execute")


class FreeOperator(_Waiting):
    """Has vitriflow free the microscope's disk, file by file with a permit."""

    ui_color = "#f4ecd8"

    def execute(self, context: Any) -> Any:
        """Leave it to the triggerer."""
        found = _said(context)
        really = bool(context["params"].get("free_disk", True))
        self.defer(
            trigger=FreeTrigger(found["microscope"], found["session"], really), method_name="nothing_to_do"
        )


def _said(context: Any) -> dict[str, Any]:
    """What the elogbook said: a task that ended in the triggerer leaves it as JSON."""
    found = context["ti"].xcom_pull(task_ids="elogbook")
    values: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
    return values


def _tell(message: Any) -> bool:
    """Ask Airflow itself by the way that its tasks have; whether it could. A run that's there counts as started."""
    from airflow.sdk.execution_time import task_runner

    try:
        answer = task_runner.SUPERVISOR_COMMS.send(message)
    except AirflowRuntimeError as error:
        return bool(error.error.error.value == "DAGRUN_ALREADY_EXISTS")
    if isinstance(answer, ErrorResponse):
        return bool(answer.error.value == "DAGRUN_ALREADY_EXISTS")
    return True
