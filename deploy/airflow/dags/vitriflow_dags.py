"""DAGs that vitriflow describes: one file for all microscopes, templates, experiments and samples of a facility."""

from vitriflow.airflow import make_dags  # airflow looks for its own name and for "dag" in this file

globals().update(make_dags())
