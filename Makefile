# Needs make and Python >= 3.11 only; everything else goes into .venv.
#
#   make demo   the whole workflow on the shipped data, results in demo-output/
#   make test   ruff, imports, types and all tests (those marked `slow` apart)
#   make docs   the documentation, in docs/_build/html
#   make bench  every benchmark but the rivals; DATA=folder of measured screens

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-output
JOBS ?= 2

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SPEC := pyproject.toml constraints.txt

# Figures are drawn to files, whatever display there is.
export MPLBACKEND ?= agg

.PHONY: demo test test-slow bench tutorials lint format docs clean help
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@sed -n '3,6s/^#  *//p' Makefile

demo: $(VENV)/.stamp-core
	$(BIN)/python -m scgim demo --out $(OUT)

# One thread per worker: the workers are the parallelism.
test: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-slow: $(VENV)/.stamp-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m slow $(ARGS)

bench: $(VENV)/.stamp-test $(VENV)/.stamp-benchmark
	$(BIN)/python benchmarks/run_all.py $(if $(DATA),--data $(DATA)) --jobs $(JOBS)

tutorials: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -n $(JOBS) --nbmake tutorials

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.stamp-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.stamp-doc
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) $(OUT) docs/_build docs/generated docs/tutorials/*.ipynb

# A stamp says that its part of the environment fits pyproject.toml and constraints.txt.

$(VENV)/.stamp-venv:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "scgim needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --upgrade 'pip>=25.1'  # the first that knows --group
	@touch $@

$(VENV)/.stamp-core: $(SPEC) | $(VENV)/.stamp-venv
	$(PIP_INSTALL) --editable .
	@touch $@

# Groups of pyproject.toml: test, benchmark, doc, dev.
$(VENV)/.stamp-%: $(SPEC) | $(VENV)/.stamp-core
	$(PIP_INSTALL) --editable . --group $*
	@touch $@
