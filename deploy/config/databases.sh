#!/bin/sh
# Runs once, when PostgreSQL's folder is made: a database for the catalog and one for Airflow, each with its own account.
set -eu
psql --username postgres --set ON_ERROR_STOP=1 \
    --set vitriflow="$VITRIFLOW_DB_PASSWORD" --set airflow="$AIRFLOW_DB_PASSWORD" <<'SQL'
CREATE ROLE vitriflow LOGIN PASSWORD :'vitriflow';
CREATE DATABASE vitriflow OWNER vitriflow;
CREATE ROLE airflow LOGIN PASSWORD :'airflow';
CREATE DATABASE airflow OWNER airflow;
SQL
