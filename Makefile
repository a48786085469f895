# `make demo` and `make test` set everything up in $(VENV) first; pass options on with ARGS, as in
#   make demo ARGS="--limit 20"
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format clean

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

# Named after what is installed, so that a change of either file sets up again and a fresh clone of the same doesn't.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install the package, its dependencies and the tools into .venv (about 7 GB).

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; say which with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "Setting up in $(VENV): about 7 GB, a few minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# The exact versions are those of Python 3.11 and newer; 3.10 takes the newest that it can.
	@$(BIN)/python -m pip install --disable-pip-version-check \
		$$($(BIN)/python -c 'import sys; print("--constraint constraints.txt" if sys.version_info >= (3, 11) else "")') \
		--editable '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP) ## Fill Table 3 on the built-in benchmark: results/measured/tiny.
	@$(BIN)/vico-eval demo $(ARGS)

test: $(STAMP) ## Run the tests; no network needed.
	@# A file's tests share what they have loaded, so they stay together.
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(STAMP) ## Check style and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## Format the code and mend what can be mended.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## Remove what running leaves behind (runs/ and caches), not .venv.
	rm -rf runs build dist .mypy_cache .pytest_cache .ruff_cache
