#!/bin/sh
# Makes .venv-airflow: Apache Airflow in an environment of its own, with vitriflow's small module beside it.
# The module needs nothing of vitriflow's own dependencies, so it's put on the path and not installed.
set -eu
cd "$(dirname "$0")/.."
venv=.venv-airflow
want=$(cat scripts/airflow-requirements.txt)
[ -f "$venv/.ready" ] && [ "$(cat "$venv/.ready")" = "$want" ] && exit 0
echo "Setting up $venv (Apache Airflow, about 2 minutes, once) ..."
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/airflow-requirements.txt 2>"$venv/pip.log" || {
    tail -n 20 "$venv/pip.log"
    exit 1
}
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$PWD/src" > "$site/vitriflow.pth"
printf '%s' "$want" > "$venv/.ready"
