"""A real Airflow 3 on PostgreSQL, in its own environment, that tests start, ask, and kill parts of."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import REPOSITORY
from tests.facility.command import until
from tests.servers import free_port

ENVIRONMENT = REPOSITORY / ".venv-airflow"
PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
# Shorter than a facility would have them, so that tests needn't wait.
QUICK = {
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of these tests that is long enough for HS512, which wants 64 bytes",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
}


def settings() -> dict[str, str]:
    """What deploy/airflow/airflow.env sets: the file that the how-to has people use."""
    lines = (REPOSITORY / "deploy/airflow/airflow.env").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: value for name, value in pairs if "<" not in value}


class AirflowServer:
    """Airflow's four processes in a folder of its own."""

    def __init__(self, folder: Path, database: str, vitriflow: str, token: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(f"{token}\n", encoding="utf-8")
        dags = folder / "dags"
        dags.mkdir(parents=True)
        shipped = REPOSITORY / "deploy/airflow/dags/vitriflow_dags.py"
        (dags / shipped.name).write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "PYTHON", "VITRIFLOW"))
        }
        self.environment = {
            **kept,
            **settings(),
            **QUICK,
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.replace("+psycopg:", "+psycopg2:"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "VITRIFLOW_URL": vitriflow,
            "VITRIFLOW_TOKEN_FILE": str(folder / "token"),
            "VITRIFLOW_LOOK_S": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._token = ""

    # -- its processes ----------------------------------------------------------------------

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the airflow command to its end."""
        done = subprocess.run(
            [str(ENVIRONMENT / "bin" / "airflow"), *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"airflow {arguments}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def prune(self, before: str) -> None:
        """Remove old runs, by the command of the how-to."""
        text = (REPOSITORY / "docs/how-to/airflow.md").read_text(encoding="utf-8")
        (line,) = [line for line in text.splitlines() if line.strip().startswith("airflow db clean")]
        line = re.sub(r'"\$\(date [^)]*\)"', before, line)
        self.command(*shlex.split(line)[1:])

    def begin(self) -> None:
        """Make its tables and start all of it."""
        self.command("db", "migrate")
        for part in PARTS:
            self.start_part(part)

    def wait(self) -> None:
        """Wait until it answers."""
        until(self._answers)

    def start_part(self, part: str) -> None:
        """Start one of its processes."""
        more = ["--port", str(self.port), "--host", "127.0.0.1"] if part == "api-server" else []
        with (self.folder / f"{part}.log").open("ab") as log:
            self._parts[part] = subprocess.Popen(
                [str(ENVIRONMENT / "bin" / "airflow"), part, *more],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill_part(self, part: str) -> None:
        """Kill one of its processes and all that it started, as a power cut would."""
        process = self._parts.pop(part)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def stop(self) -> None:
        """Kill all of it: nothing of it is kept."""
        for part in list(self._parts):
            self.kill_part(part)

    def _answers(self) -> bool:
        for part, process in self._parts.items():
            assert process.poll() is None, f"{part} ended: {self.said(part)[-3000:]}"
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=10).json()
        except (httpx.HTTPError, ValueError):
            return False
        return all(health[name]["status"] == "healthy" for name in ("metadatabase", "scheduler"))

    def said(self, part: str) -> str:
        """What one of its processes wrote."""
        return (self.folder / f"{part}.log").read_text(encoding="utf-8", errors="replace")

    # -- its REST API -----------------------------------------------------------------------

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Ask its API; None for what isn't there."""
        if not self._token:
            self._token = httpx.get(f"{self.url}/auth/token", timeout=60).json()["access_token"]
        headers = {"authorization": f"Bearer {self._token}"}
        more["headers"] = headers | more.get("headers", {})
        answer = httpx.request(method, f"{self.url}/api/v2{path}", timeout=60, **more)
        if answer.status_code == 404:
            return None
        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else {}

    def dags(self) -> set[str]:
        """Names of the DAGs that it knows."""
        return {one["dag_id"] for one in self.ask("GET", "/dags?limit=200")["dags"]}

    def runs(self, dag: str) -> dict[str, str]:
        """Runs of a DAG with their states."""
        found = self.ask("GET", f"/dags/{dag}/dagRuns?limit=200")
        return {} if found is None else {one["dag_run_id"]: one["state"] for one in found["dag_runs"]}

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Tasks of a run by their names."""
        found = self.ask("GET", f"/dags/{dag}/dagRuns/{run}/taskInstances")
        return {one["task_id"]: one for one in found["task_instances"]}

    def log(self, dag: str, run: str, task: str, number: int = 1) -> str:
        """What the pages show of a task's try."""
        path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{number}"
        return str(self.ask("GET", path, headers={"accept": "application/json"}))

    def clear(self, dag: str, run: str, task: str, *, failed: bool = True) -> None:
        """Clear a task and what comes after it, as the page's button does."""
        body = {
            "dry_run": False,
            "dag_run_id": run,
            "task_ids": [task],
            "include_downstream": True,
            "only_failed": failed,
        }
        self.ask("POST", f"/dags/{dag}/clearTaskInstances", json=body)
