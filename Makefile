# Headwater's commands for people who work on it. `make` alone lists them.
# Everything runs from .venv, which `make setup` builds from the lock; PYTHON= chooses the interpreter.

SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
# Tests wait more than they compute: two workers, each giving the other what it has not begun.
WORKERS ?= 2
PYTEST_ARGS ?=

# Tests start hundreds of nodes, and compiling their modules anew takes half a second each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-long lint format peers bench lock recordings

help:  ## List these commands
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## Build .venv from the lock (Python 3.11 to 3.13); quick when nothing changed
	@PYTHON="$(PYTHON)" scripts/setup

demo: setup  ## A central, an edge and a simulated wind farm, live in this terminal; Ctrl-C ends it
	@exec $(BIN)/headwater demo $(ARGS)

lint: setup  ## ruff, mypy --strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

recordings: setup
	@scripts/recordings

test: lint recordings  ## Lint, then every test but the long ones
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-long: recordings  ## The tests that take minutes, part by part; PART=list names them, PART=name N=count runs one
	@PYTEST_ARGS="$(PYTEST_ARGS)" scripts/test-long $(PART) $(N)

peers:  ## Install the foreign programs that tests talk to (as root: apt, Maven, Go); INFLUXDB=1 builds InfluxDB too
	@scripts/peers

bench: setup  ## All benchmarks, each beside its peer, or one: make bench NAME=mqtt-ingest
	$(BIN)/python -m benchmarks $(NAME) $(ARGS)

lock: setup  ## Resolve requirements/*.txt anew; UPGRADE=1 moves versions
	UPGRADE="$(UPGRADE)" scripts/lock
