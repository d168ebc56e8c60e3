# `make demo` shows it, `make test` proves it; both make the environment first if need be.
# PYTHON=... chooses the interpreter (3.11 or newer), VENV=... another environment, JOBS=... the number of test processes.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.millrace-installed
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=

.DEFAULT_GOAL := help

.PHONY: help
help:  ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: install
install: $(STAMP)  ## Make the environment: every version pinned by constraints.txt

# Stamped, so that a second run takes no time; a change of what is wanted installs again.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer was found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); wanted Python 3.11 or newer" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); } || { \
		echo "make: $(PYTHON) -m venv failed; on Debian and Ubuntu it needs the package python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,local,features,checks,dev,bench]'
	@touch $@

.PHONY: demo
demo: $(STAMP)  ## Score a minute of simulated payments, live, and check the sums (DEMO_ARGS="--seconds 20")
	$(BIN)/millrace demo $(DEMO_ARGS)

.PHONY: up
up: $(STAMP)  ## Start a local broker and Redis
	$(BIN)/millrace up

.PHONY: down
down: $(STAMP)  ## Stop them
	$(BIN)/millrace down

.PHONY: test
test: $(STAMP)  ## Run the tests, on a real broker and Redis that they start and stop
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

.PHONY: check
check: lint types imports test  ## Everything that has to hold before a change lands

.PHONY: lint
lint: $(STAMP)  ## Format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.PHONY: format
format: $(STAMP)  ## Put the format right
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: types
types: $(STAMP)  ## mypy --strict, tests too
	$(BIN)/mypy

.PHONY: imports
imports: $(STAMP)  ## Imports go one way, and each library has one door
	$(BIN)/lint-imports --no-logo

.PHONY: audit
audit: $(STAMP)  ## Look the pinned packages up among known vulnerabilities; needs the advisory database, and pip-audit
	$(PYTHON) -m pip_audit --requirement constraints.txt --no-deps --disable-pip

.PHONY: bench
bench: $(STAMP)  ## Measure Millrace's own rows of docs/benchmarks.md, in less than twenty minutes (BENCH_ARGS="codec knee")
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

.PHONY: bench-peers
bench-peers: $(STAMP)  ## Run other engines beside Millrace, on the same job (PEERS="faust quix" for some)
	$(BIN)/python -m benchmarks.peers $(PEERS)

.PHONY: clean
clean:  ## Stop the local services, and remove what was built, cached and kept
	@if test -x $(BIN)/millrace && test -d .millrace; then $(BIN)/millrace down; MILLRACE_STATE_DIR=.millrace/demo/services $(BIN)/millrace down; fi
	rm -rf .millrace build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean  ## The same, and the environment
	rm -rf $(VENV)
