# Kthena Runtime. Each target makes what it needs first: `make demo` and `make test` work in a fresh clone
# on a machine with Python 3.11 or later.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
ENGINE ?= vllm
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Programs that tests start for real, and the Debian package of each.
PROGRAMS := prometheus:prometheus promtool:prometheus redis-server:redis-server rsync:rsync \
  node:nodejs npm:npm chromium:chromium
VIEWER := grafana/viewer/node_modules/.package-lock.json

.PHONY: help demo demo-engine unit test test-all test-engine faults check lint types imports dashboards dashboards-check screenshots viewer bench fmt lock apt clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: demo-engine .venv/.runtime ## Run the runtime in front of an embedded engine and watch its metrics (ENGINE=vllm or sglang)
	@$(BIN)/python -m demo --engine $(ENGINE) $(DEMO_ARGS)

demo-engine:
	@$(if $(filter vllm sglang,$(ENGINE)),,$(error ENGINE must be vllm or sglang, not '$(ENGINE)'))

# A path in TESTS is run whole, slow tests too: make test TESTS=tests/lora
PYTEST := $(BIN)/python -m pytest -n 4 --dist loadfile

unit: .venv/.dev ## Run the tests that start no process (seconds)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "unit and not slow" $(or $(TESTS),$(shell grep -rl --include='test_*.py' 'pytest.mark.unit' tests))

test: .venv/.dev apt viewer ## Run all tests but the slow ones (minutes)
	$(PYTEST) $(if $(TESTS),$(TESTS),-m "not engine and not slow")

test-all: .venv/.dev apt viewer ## Run every test but those that need a real engine
	HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-ci} $(PYTEST) $(TESTS)

test-engine: .venv/.dev apt ## Install a real vLLM for the CPU (3.5 GB, once) and run the tests that need it
	$(BIN)/python -m pytest -m engine $(TESTS)

faults: .venv/.dev apt ## Run the tests of misbehaving peers that bound memory and time
	$(BIN)/python -m pytest -m faults $(TESTS)

check: lint types imports dashboards-check test-all ## Everything CI runs: lint, types, imports, generated files, tests

lint: .venv/.dev ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev viewer ## Check types
	$(BIN)/mypy
	npm run --prefix grafana/viewer --silent types

imports: .venv/.dev ## Check that imports run downwards only
	$(BIN)/lint-imports --no-cache

dashboards: .venv/.dev ## Write the dashboards, rules and alerts that grafana/ makes
	$(BIN)/python -m grafana.generate

dashboards-check: .venv/.dev ## Check that they are as grafana/ makes them
	$(BIN)/python -m grafana.generate --check

screenshots: .venv/.dev apt viewer ## Make the pictures of the dashboards from a live run (4 minutes)
	$(BIN)/python -m tests.dashboards.screenshots

viewer: apt $(VIEWER) ## Install Grafana's own components, which draw and check the dashboards

bench: .venv/.dev apt ## Measure scrapes, KV events and downloads against their peers, and the footprint (half an hour on a quiet machine)
	$(BIN)/python -m bench.scrape
	$(BIN)/python -m bench.footprint
	$(BIN)/python -m bench.kv
	$(BIN)/python -m bench.download

fmt: .venv/.dev ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Pin the newest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv/lock && .venv/lock/bin/python -m pip install --quiet uv
	.venv/lock/bin/uv pip compile $(LOCK) pyproject.toml --output-file requirements.lock
	.venv/lock/bin/uv pip compile $(LOCK) pyproject.toml --group dev --output-file requirements-dev.lock
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

apt: ## Install the servers that tests start, as root on Debian; say which are missing otherwise
	@for pair in $(PROGRAMS); do \
	  command -v "$${pair%%:*}" >/dev/null || missing="$${missing:-} $${pair##*:}"; \
	done; \
	if [ -n "$${missing:-}" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	  else \
	    echo "The tests start real servers that are missing here: install$$missing, or run make as root on Debian." >&2; exit 1; \
	  fi; \
	fi

clean: ## Remove the environment and all that was built
	rm -rf .venv .realengine grafana/viewer/node_modules grafana/viewer/.build .hypothesis .mypy_cache .pytest_cache .ruff_cache dist build

# The environment, made anew when what it holds is older than the files that say what it should hold.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv || { [ "$$(id -u)" = 0 ] && rm -rf .venv && apt-get update -qq \
	  && apt-get install -qq -y python3-venv >/dev/null && $(PYTHON) -m venv .venv; }

.venv/.runtime: requirements.lock pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes --requirement requirements.lock
	$(PIP) --no-deps --editable .
	@touch $@

.venv/.dev: requirements-dev.lock pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes --requirement requirements-dev.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@ .venv/.runtime

# npm writes the file that is named here.
$(VIEWER): grafana/viewer/package-lock.json | apt
	npm ci --prefix grafana/viewer --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@
