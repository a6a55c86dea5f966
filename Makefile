# `make help` lists the verbs. Each makes .venv and installs from constraints.txt first, where it must.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check fmt ui bench

help:  ## what can be done
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## make .venv and install everything

demo: $(STAMP)  ## the main job: spec to shards and report, in out/demo
	$(BIN)/counterpoise demo --out out/demo || [ $$? -eq 3 ]  # 3: some sets fell short, and were named

test: $(STAMP)  ## the default tests: no network, no GPU; in JOBS processes, 2 unless told otherwise
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: $(STAMP)  ## the tests that take long
	$(BIN)/python -m pytest -m slow

check: $(STAMP)  ## lint, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(STAMP)  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(STAMP)  ## Prefect's UI on the demo's runs: http://127.0.0.1:4200
	PREFECT_HOME='$(CURDIR)/out/prefect' $(BIN)/prefect server start --host 127.0.0.1

bench: $(STAMP)  ## measured figures: the embedded model, prompt-to-prompt, reading, ten million records, publishing, asking, csd
	@missed=0; for what in '-m generators.paperdolls evaluate' '-m generators.paperdolls proof' \
		tests/benchmarks/p2p.py tests/benchmarks/reading.py tests/benchmarks/metadata.py \
		tests/benchmarks/publishing.py tests/benchmarks/asking.py tests/benchmarks/csd_step.py; do $(BIN)/python $$what || missed=1; done; exit $$missed

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo >&2 "Python 3.11 or newer is needed, $(PYTHON) is `$(PYTHON) --version 2>&1`: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
