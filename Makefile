# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Dozens of Python processes start in a run; compiling their imports each time costs seconds of each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-all bench chaos lint clean

help:
	@echo "make demo      lose a site, fail over, come home: on real servers"
	@echo "make test      lint, unit tests, and a named part of the matrix on real servers"
	@echo "make test-all  the whole matrix"
	@echo "make bench     measure and print"
	@echo "make chaos     break every part at every step of every action; goes on where it was stopped"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) sandbox/preflight.py
	@test -x $(BIN)/python || { echo "making $(VENV)" >&2; $(PYTHON) -m venv $(VENV); }
	@echo "installing the Python packages" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".[sandbox,test]"
	@touch $@

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/hubless demo $(DEMO_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m "not matrix" $(TEST_ARGS)

test-all: lint
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $(TEST_ARGS)

bench: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sandbox.bench $(BENCH_ARGS)

chaos: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sandbox.chaos $(CHAOS_ARGS)

clean:
	rm -rf $(VENV) build *.egg-info
