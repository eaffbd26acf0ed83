# Everything one types. `make` alone lists the targets.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Where this is set every process compiles torch and diffusers anew: ten seconds and more each.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## a virtual environment in .venv with everything in it

# uv installs in a fraction of pip's time; where it cannot be had, pip does the same work.
$(STAMP): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; try: make setup PYTHON=python3.11 (after rm -r $(VENV))"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true
	$(BIN)/uv pip install --python $(BIN)/python -r requirements.txt \
	  || $(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/uv pip install --python $(BIN)/python --no-deps -e . \
	  || $(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

demo: setup ## FreeMask beside plain DDIM on a few clips; table, videos, page in runs/demo (under 3 minutes)
	$(BIN)/freemask run experiment=demo

test: setup ## all tests but the long ones (about 6 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not parity and not long"

parity: setup ## the long comparisons with the authors' own numbers (needs FREEMASK_SHARED)
	$(BIN)/python -m pytest -m parity

kill: setup ## runs killed at random points on every engine, their rows compared (long)
	$(BIN)/python -m pytest -m long
	$(BIN)/python -m tests.kill

docs: setup ## the pages of docs/ as a site in site/, with a reference of every key (no network)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: setup ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright freemask evaluation experiments

check: lint docs test ## what CI asks: format, lint, types, pages, tests

format: setup ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: help setup demo test parity kill docs lint check format
