"""A real Airflow 3 conducts two microscopes: results, trouble that is cleared, a scheduler that is killed.

All tests share one Airflow and one facility; each has an experiment, a sample and a folder of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.airflow.facility import ConductedHouse
from tests.airflow.server import ENVIRONMENT, AirflowServer
from tests.conftest import _unavailable
from tests.databases import postgres
from tests.facility.command import until
from tests.facility.conftest import STRONG
from tests.servers import PostgresServer
from vitriflow.simulate import SessionSpec, simulate_session

__all__ = ["postgres"]
pytestmark = [pytest.mark.slow, pytest.mark.service]
NODES = ("align", "ctf", "pick")


@dataclass
class Facility:
    """vitriflow, Airflow, and a movie."""

    house: ConductedHouse
    airflow: AirflowServer
    movie: Path

    def done(self, session: str, number: int, processing: str = "live") -> None:
        """Wait until so many exposures of a session are done, and none is open."""
        until(lambda: self.house.ended(session, processing) == {"done": number})

    def expose(self, microscope: str, source: str, *names: str) -> None:
        for name in names:
            self.house.expose(microscope, source, self.movie, name)

    def ended(self, dag: str, number: int) -> dict[str, str]:
        """Runs of a DAG, once so many are there and none goes on."""

        def look() -> dict[str, str]:
            runs = self.airflow.runs(dag)
            over = len(runs) == number and set(runs.values()) <= {"success", "failed"}
            return runs if over else {}

        found: dict[str, str] = until(look)
        return found


@pytest.fixture(scope="module")
def facility(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    if not (ENVIRONMENT / "bin" / "airflow").is_file():
        _unavailable("Airflow", "run 'make airflow-env'")
    folder = tmp_path_factory.mktemp("conducted")
    spec = {"exposures": 1, "format": "mrc", "movie": STRONG, "defocus_A": (15000.0, 20000.0)}
    simulate_session(SessionSpec.model_validate(spec), folder / "simulated")
    movie = next((folder / "simulated" / "microscope").rglob("*ractions.mrc"))
    house = ConductedHouse(folder / "house")
    token = house.say("airflow", "token").strip()
    airflow = AirflowServer(folder / "airflow", postgres.new_database(), house.address, token)
    try:
        airflow.begin()
        with house.up():
            airflow.wait()
            yield Facility(house, airflow, movie)
    finally:
        airflow.stop()


def test_a_simulated_session_runs_through_the_microscopes_dag_to_results(facility: Facility) -> None:
    airflow, house = facility.airflow, facility.house
    until(lambda: {"tem1-daq", "tem2-daq", "pipeline_tiny_pre-processing"} <= airflow.dags())
    session, dag = house.begin("C100", "apoferritin", "tem1", "first")
    facility.expose("tem1", "first", "one.mrc")
    facility.done(session, 1)
    (run,) = facility.ended(dag, 1)
    assert not airflow.ask("GET", "/importErrors")["import_errors"]
    assert {name: one["state"] for name, one in airflow.tasks(dag, run).items()} == dict.fromkeys(
        (*NODES, "preview"), "success"
    )
    assert "one: done after" in airflow.log(dag, run, "ctf")
    (record,) = house.made(session, "align")
    assert record["n_frames"] == 8
    how = record["provenance"]["conducted"]
    assert (how["dag"], how["run"], how["try"]) == (dag, run, 1)
    assert how["template"].startswith("tiny@")
    assert how["configuration"]
    assert how["dag_version"]
    house.say("stop", session)
    over = until(lambda: [name for name, state in airflow.runs("tem1-daq").items() if state == "success"])
    tasks = airflow.tasks("tem1-daq", over[0])
    assert {one["state"] for one in tasks.values()} == {"success"}
    assert "without a permit: 1 too_young" in airflow.log("tem1-daq", over[0], "free_disk")
    assert "1 proved" in airflow.log("tem1-daq", over[0], "transfer")
    assert (house.folder / "tem1" / "first" / "one.mrc").is_file()


def test_two_microscopes_at_once_with_a_task_that_fails_is_cleared_and_recovers(facility: Facility) -> None:
    airflow, house = facility.airflow, facility.house
    good, good_dag = house.begin("C200", "ribosome", "tem1", "second")
    bad, bad_dag = house.begin("C201", "spliceosome", "tem2", "second")
    job = house.job_of(bad, "pick")
    job.parent.mkdir(parents=True, exist_ok=True)
    job.write_text("a file where a folder should be")
    facility.expose("tem1", "second", "a.mrc", "b.mrc")
    facility.expose("tem2", "second", "c.mrc")
    facility.done(good, 2)
    until(lambda: house.ended(bad) == {"failed": 1})
    (run,) = facility.ended(bad_dag, 1)
    states = {name: one["state"] for name, one in airflow.tasks(bad_dag, run).items()}
    assert states == {"align": "success", "ctf": "success", "pick": "failed", "preview": "success"}
    assert "Clear this task to try again" in airflow.log(bad_dag, run, "pick")
    assert set(facility.ended(good_dag, len(airflow.runs(good_dag))).values()) == {"success"}
    job.unlink()
    airflow.clear(bad_dag, run, "pick")
    facility.done(bad, 1)
    until(lambda: airflow.runs(bad_dag)[run] == "success")
    assert airflow.tasks(bad_dag, run)["pick"]["try_number"] == 2
    assert len(house.made(bad, "align")) == len(house.made(bad, "pick")) == 1  # align wasn't done again
    assert house.made(bad, "pick")[0]["provenance"]["conducted"]["try"] == 2
    assert any("done again from 'pick' on" in text for text in house.events())
    for session in (good, bad):
        house.say("stop", session)


def test_a_killed_scheduler_loses_nothing_and_old_runs_are_pruned(facility: Facility) -> None:
    airflow, house = facility.airflow, facility.house
    session, dag = house.begin("C300", "proteasome", "tem1", "third")
    facility.expose("tem1", "third", "a.mrc")
    until(lambda: airflow.runs(dag))
    airflow.kill_part("scheduler")
    facility.expose("tem1", "third", *(f"b{number}.mrc" for number in range(9)))
    until(lambda: sum(house.ended(session).values()) == 10)  # taken in meanwhile
    airflow.start_part("scheduler")
    facility.done(session, 10)
    runs = facility.ended(dag, house.lots(session))
    assert set(runs.values()) == {"success"}
    assert len(runs) < 10  # a backlog goes in bigger lots
    for node in NODES:
        assert len(house.made(session, node)) == 10
    airflow.prune("2100-01-01")
    assert len(airflow.runs(dag)) == 1  # Airflow keeps the newest
    assert list(airflow.runs("tem2-daq").values()).count("running") == 1  # a microscope's are left alone
    facility.expose("tem1", "third", "c.mrc")
    facility.done(session, 11)
    house.say("stop", session)


def test_a_run_with_changed_parameters_begins_a_new_processing(facility: Facility) -> None:
    airflow, house = facility.airflow, facility.house
    session, dag = house.begin("C400", "nanodisc", "tem2", "fourth")
    facility.expose("tem2", "fourth", "a.mrc")
    facility.done(session, 1)
    body = {"conf": {"seconds": 0.125}, "logical_date": None}
    airflow.ask("POST", f"/dags/{dag}/dagRuns", json=body)
    facility.done(session, 1, "live-r2")
    facility.done(session, 1)  # what was frozen stays
    (made,) = house.made(session, "ctf", "live-r2")
    assert made["provenance"]["parameters"]["seconds"] == 0.125
    audit = house.say("audit", "--action", "processing.start", "--json")
    assert '"airflow"' in audit
    lots = house.lots(session)
    assert "itself now" in house.say("airflow", "take-back", session)
    facility.expose("tem2", "fourth", "b.mrc")
    facility.done(session, 2)
    assert house.lots(session) == lots
    house.say("stop", session)
