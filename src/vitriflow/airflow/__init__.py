"""DAGs for Apache Airflow 3, made from what vitriflow's web server says there is to conduct.

This package runs in Airflow's own environment, where it's all that is needed of vitriflow: it imports
Airflow and httpx (which Airflow brings), and nothing else of vitriflow. A DAG file has two lines::

    from vitriflow.airflow import make_dags  # airflow dag
    globals().update(make_dags())

``VITRIFLOW_URL`` and ``VITRIFLOW_TOKEN`` (or ``VITRIFLOW_TOKEN_FILE``) say where vitriflow answers.
"""

from typing import Any


def make_dags() -> dict[str, Any]:
    """DAGs by name: one for each microscope, one of the default template, one for each experiment and sample.

    The description comes from vitriflow and is kept in a file, so that the DAGs stay while it's away.
    """
    from vitriflow.airflow.dags import make_dags as make

    return make()


__all__ = ["make_dags"]
