# vitriflow: every target does its own set-up into .venv from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
EXPOSURES ?= 12
ONCE ?=
DEMO ?= demo
PYTEST ?=
SOAK ?= 1000
# Whole files to each worker, those that take longest first (tests/conftest.py). Tests wait for processes for a
# third of their time, so three workers keep two cores busy.
SPREAD := --dist loadfile --no-loadscope-reorder

.PHONY: help setup services airflow-env demo docs test test-fast fuzz lint bench bench-full soak bundle bundle-check clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt scripts/check-python.py
	@$(PYTHON) scripts/check-python.py
	@echo "Setting up $(VENV) (about 2 minutes, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^pip==' constraints.txt)"
	@# PyTorch first and alone, so that nothing else can ask for another build of it
	@$(PIP) torch==2.13.0
	@$(PIP) --editable '.[test,lint,bench]'
	@touch $@

setup: $(READY)  ## make the environment

services:  ## install what the tests need from Debian (as root; says what it leaves out otherwise)
	@sh scripts/install-services.sh
	@sh scripts/airflow-env.sh || echo "Not installed: Airflow. Tests that need it are skipped."

airflow-env:  ## Apache Airflow in an environment of its own, .venv-airflow (see docs/how-to/airflow.md)
	@sh scripts/airflow-env.sh

demo: $(READY)  ## a simulated microscope, processed live: open the page that it prints (EXPOSURES=12 ONCE=1)
	@$(BIN)/vitriflow demo --exposures $(EXPOSURES) $(if $(filter-out 0,$(ONCE)),--once) --out $(DEMO)

docs: $(READY)  ## write docs/reference from the code
	@$(BIN)/python scripts/reference.py

lint: $(READY)  ## style, types and floors
	@$(BIN)/ruff check src tests benchmarks scripts
	@$(BIN)/ruff format --check src tests benchmarks scripts
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

test: $(READY) services lint  ## everything: servers, browser and outside programs included (under 20 minutes)
	@$(BIN)/python -m pytest -n 3 $(SPREAD) $(PYTEST)

test-fast: $(READY)  ## without servers and slow tests (under 2 minutes)
	@$(BIN)/python -m pytest -n 2 $(SPREAD) -m 'not slow and not service' $(PYTEST)

fuzz: $(READY)  ## the property tests with examples drawn anew ('make test' has the same ones every time)
	@VITRIFLOW_FUZZ=1 $(BIN)/python -m pytest -n 2 $(SPREAD) -m 'not service' $$(grep -rl 'from hypothesis' tests) $(PYTEST)

bench: $(READY) services  ## the short set of benchmarks, into results/
	@$(BIN)/python -m benchmarks short

bench-full: $(READY) services  ## all benchmarks, hours
	@$(BIN)/python -m benchmarks full

soak: $(READY)  ## an unattended session with everything going wrong at random, into results/ (SOAK=1000, as root for all faults)
	@$(BIN)/python -m benchmarks.soak --exposures $(SOAK)

bundle: $(READY)  ## all wheels, checksums and an install script for a machine without internet, into dist/bundle
	@$(BIN)/python scripts/bundle.py

bundle-check: $(READY)  ## install from dist/bundle with no registry, and correct a small movie there
	@$(BIN)/python scripts/bundle.py --check

clean:  ## remove what the targets made
	rm -rf $(VENV) .venv-airflow demo results build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
