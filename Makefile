# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
JUDGES ?= .venv-judges

.PHONY: help demo test test-slow lint bench clean

help:
	@echo "make demo       install, then train, generate and evaluate on built-in data (some minutes)"
	@echo "make test       install, then run the tests"
	@echo "make test-slow  the longer suites too"
	@echo "make lint       style, types, direction of imports"
	@echo "make bench      quick benchmarks on the data sets in OMNIFILL_DATA=folder"
	@echo "make clean      remove the environment and all caches"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Omnifill needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[report]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/demo.stamp

$(VENV)/slow.stamp: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,browser]'
	@touch $@

demo: $(VENV)/demo.stamp
	$(BIN)/omnifill demo

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

test-slow: $(VENV)/slow.stamp
	$(BIN)/python -m pytest -q -m 'slow or not slow'

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(JUDGES)/judges.stamp: benchmarks/requirements-judges.txt
	$(PYTHON) -m venv $(JUDGES)
	$(JUDGES)/bin/python -m pip install --quiet -r benchmarks/requirements-judges.txt
	@touch $@

bench: $(VENV)/dev.stamp $(JUDGES)/judges.stamp
	$(BIN)/python -m pip install --quiet -c constraints.txt -r benchmarks/requirements.txt
	OMNIFILL_JUDGES=$(JUDGES)/bin/python $(BIN)/python benchmarks/run.py --quick

clean:
	rm -rf $(VENV) $(JUDGES) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
