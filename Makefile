# Each target works on a fresh machine that has Python 3.11 or newer, make and a C library; all are idempotent.
# PYTHON picks the interpreter, PIP_ARGS passes options to pip (an index of CPU builds of torch, say).
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS := $(VENV)/.docs
LOWEST := .venv-lowest
PEERS := .venv-peers

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest lint format bench bench-peers docs clean

help: ## say what the targets do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

$(INSTALLED): pyproject.toml constraints.txt
	@echo "flatprobe: setting up $(VENV) with the versions of constraints.txt"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED) ## set up, train six networks on the bundled digits, probe them, write flatprobe-demo/report.html
	$(BIN)/flatprobe demo --out flatprobe-demo

test: $(INSTALLED) ## set up and run every test, doctest and README example
	$(BIN)/python -m pytest --quiet --numprocesses=auto --maxprocesses=4 --dist=loadfile

test-lowest: ## set up .venv-lowest with the oldest versions claimed (torch excepted), run the tests of files, pictures and commands
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints-lowest.txt \
		-e . pytest pytest-xdist hypothesis beartype
	$(LOWEST)/bin/python -m pytest --quiet --numprocesses=auto --maxprocesses=4 --dist=loadfile \
		tests/utils tests/data tests/plotting tests/report tests/cli README.md

lint: $(INSTALLED) ## set up and check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED) ## rewrite the sources as `make lint` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## set up, measure speed and memory against the obvious alternatives, rewrite tests/benchmarks/records
	$(BIN)/python -m tests.benchmarks

bench-peers: ## set up .venv-peers with other libraries, measure beside them, rewrite tests/benchmarks/records/peers.parquet
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps \
		-r tests/benchmarks/peers/requirements.txt
	OMP_NUM_THREADS=1 $(PEERS)/bin/python -W ignore -m tests.benchmarks peers

$(DOCS): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS) ## set up and build the site strictly into docs/_build/html (`make test` runs its examples)
	$(BIN)/sphinx-build -W -n --keep-going -q docs docs/_build/html

clean: ## remove what the other targets made
	rm -rf $(VENV) $(LOWEST) $(PEERS) flatprobe-demo docs/_build .mypy_cache .pytest_cache .ruff_cache .coverage
