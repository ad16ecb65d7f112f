"""Whether and how Apache Airflow conducts processing."""

from pydantic import Field

from vitriflow.config.sections import Section


class AirflowSection(Section):
    """Airflow conducts: its DAGs ask vitriflow's coordinators to run nodes, lot by lot."""

    conducts: bool = Field(
        default=False, description="sessions that begin from now on are conducted by Airflow's DAGs"
    )
    microscopes: tuple[str, ...] | None = Field(
        default=None, description="only of these microscopes; all that are configured without"
    )
    runs: int = Field(default=4, ge=1, le=64, description="DAG runs of one processing at once, at most")
    largest_batch: int = Field(
        default=32, ge=1, le=1000, description="exposures that one DAG run carries, at most"
    )
    url: str | None = Field(
        default=None, description="where Airflow's API server answers, for 'vitriflow doctor' only"
    )
