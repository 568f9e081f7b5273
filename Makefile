# Thin targets: what they do lives in the programs they call. Every target that needs the environment makes it first.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help setup demo test test-fast tck bench faults faults-ci lint format lock clean
.DEFAULT_GOAL := help

help:            ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## the environment in .venv, from the hashed locks; runs again when they change
$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.txt > .venv/uv.txt
	$(PIP) install --require-hashes -r .venv/uv.txt
	$(BIN)/python -m tests.install_packages requirements-dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q -j 0 -x '/test_' connector tests  # as the installation of a wheel does: each start takes a third less
	@touch $@

demo: $(READY)   ## a hospital and a biopharma exchange real data on this machine
	$(BIN)/connector demo

test: $(READY)   ## all tests but the kit's and the kills; says why one was skipped
	$(BIN)/pytest -n 3 --dist worksteal -q -rfEs

test-fast: $(READY) ## those of them that are fast, in two minutes
	$(BIN)/pytest -n 2 --dist worksteal -q -rfEs -m "not slow"

tck: $(READY)    ## the official DSP compatibility kit against the product (Java 17 and Maven)
	@sh tests/install_servers.sh java
	$(BIN)/python -m tests.tck

bench: $(READY)  ## the measured promises: a table, and build/bench.json (nginx)
	@sh tests/install_servers.sh nginx
	$(BIN)/python -m tests.bench

faults: $(READY) ## SIGKILL at every await point and 200 times at random; 200 transfers cut anywhere
	$(BIN)/python -m tests.faults --kills 200
	$(BIN)/python -m tests.faults --streams 200
	$(BIN)/python -m tests.faults --hardships

faults-ci: $(READY) ## the same with 30 of each, side by side: either waits for a part of its time
	@$(MAKE) --no-print-directory -j 2 kills-30 streams-30
kills-%: $(READY)
	$(BIN)/python -m tests.faults --kills $*
streams-%: $(READY)
	$(BIN)/python -m tests.faults --streams $*

lint: $(READY)   ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## lets ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)   ## resolves the dependencies of pyproject.toml anew
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--extra lanes pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt

clean:           ## removes what was built and cached; .venv stays
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
