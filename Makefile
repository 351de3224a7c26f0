# `make` lists the commands. Each does its own set-up; python3 (3.11 or later) and make are all that has to be there.
# Written for GNU make 3.81, which macOS has.

PYTHON ?= $(firstword $(foreach each,python3 python3.13 python3.12 python3.11,$(shell $(each) -c $(RECENT) 2>/dev/null && echo $(each))))
RECENT := 'import sys; sys.exit(sys.version_info < (3, 11))'
BIN := .venv/bin
INSTALLED := .venv/.installed
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock" pyproject.toml
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# uv takes a fraction of pip's time; without --quiet it ends with a line for each package. pip does it where uv cannot be
# had, or knows another index than pip does.
UV_WHEEL := uv==0.13.9
get = { PATH="$(PATH):$(BIN)" uv pip install --quiet --python $(BIN)/python $1 || { \
	echo "uv cannot install, so pip does: a few minutes ..."; $(PIP) $1; }; }
# Linux has no BLAS of its own that is worth its name, and the CPU build of MLX is 13 to 30 times faster with one.
NO_BLAS := 'import ctypes.util as c, platform as p; raise SystemExit(c.find_library("openblas") is not None or (p.system(), p.machine()) != ("Linux", "x86_64"))'
# As it was typed: make must not read a $ in it as one of its own.
override PROMPT := $(value PROMPT)
export PROMPT
# Containers often have this set. uv compiles nothing, so that every worker, engine and command would compile all that it
# imports: four times the processor time of a start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install model models clients demo test check chaos lint format types contracts coverage bench docs lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with everything in it

$(INSTALLED): pyproject.toml setup.py requirements.lock requirements-mkl.lock
	@$(or $(PYTHON),python3) -c $(RECENT) || { echo "error: celery-mlx needs Python 3.11 or later: install it, or name it: make install PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
	@echo "installing $$(grep -c '^[a-z].*==' requirements.lock) packages into .venv: about a minute ..."
	@command -v uv >/dev/null || $(PIP) $(UV_WHEEL) || true
	@$(call get,--require-hashes -r requirements.lock)
	@$(call get,--no-deps -e .)
	@if $(BIN)/python -c $(NO_BLAS); then \
		echo "no OpenBLAS in this system: installing the mkl wheel (220 MB) instead ... (apt install libopenblas0-pthread is smaller)"; \
		$(call get,--require-hashes -r requirements-mkl.lock); \
	fi
	@touch $@

model: install ## fetch the bundled model into the cache (93 MB, once)
	@$(BIN)/python -m tasks.demo.bundled

demo: install ## watch a real model answer several people at once; PROMPT="..." asks your own question
	@$(BIN)/python -m tasks.demo $${PROMPT:+"$$PROMPT"}

test: model ## run the tests, on a real Valkey and real worker processes
	$(BIN)/python -m pytest

check: lint types contracts coverage ## everything that CI runs

chaos: install ## kill, stop and restart everything under load; 20 minutes, CHAOS="--requests 100000" for longer
	$(BIN)/python -m benchmarks.chaos $(CHAOS)
	$(if $(CHAOS),,$(BIN)/python -m benchmarks.chaos --mix answers --requests 1000 --workers 2 --faults 40 --pause-s 8)

models: install ## serve tiny models of every architecture that mlx-lm knows, and renew the table in docs/models.md
	$(BIN)/python -m benchmarks.models --write

clients: model ## try other people's clients on the gateway (LangChain, LiteLLM, Node, ...); CLIENTS="litellm" for one
	$(BIN)/python -m benchmarks.clients $(CLIENTS)

lint: install ## look for mistakes and for formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: install ## fix the formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: install ## check the types
	$(BIN)/mypy

contracts: install ## check which part imports which
	$(BIN)/lint-imports

coverage: model ## run the tests and require 90 % of lines and branches, subprocesses included
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: model ## measure, beside mlx_lm.server and others, in 25 minutes; BENCH="--quick" or BENCH="--rows overhead,relay"
	$(BIN)/python -m benchmarks $(BENCH)

docs: install ## build the documentation into site/, and fail on a broken link
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: install ## update the versions in requirements*.lock
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --upgrade --extra dev --output-file requirements.lock
	$(LOCK) --upgrade --extra mkl --constraint requirements.lock --output-file requirements-mkl.lock
	$(LOCK) --upgrade --extra docs --constraint requirements.lock --output-file requirements-docs.lock

clean: ## remove what the other commands have made, except the cached model
	rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*
