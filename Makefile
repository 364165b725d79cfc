PYTHON ?= python3
BIN := .venv/bin
DATA := $(wildcard ../shared/data)
export NEUROLOOP_DATA ?= $(if $(DATA),$(abspath $(DATA)))

.PHONY: setup demo compile test image-test lint bench clean

setup: .venv/installed

.venv/installed: pyproject.toml clients/python/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "neuroloop needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e clients/python -e '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/neuroloop demo $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy server/neuroloop clients/python/neuroloop_client clients/lsl/neuroloop_sources

# Compiled kernels and bytecode are kept; made ahead, no two tests, and no two processes of theirs, compile the same ones.
compile: setup
	@$(BIN)/python -m compileall -q server clients
	@$(BIN)/neuroloop compile

test: setup
	@$(MAKE) --no-print-directory --output-sync -j 2 lint compile
	$(BIN)/pytest -n 4 --dist worksteal -m "not image" $(ARGS)

# Builds docker/Dockerfile and runs it, without a container engine; tests/e2e/image.py says what it needs and takes.
image-test: setup
	$(BIN)/pytest -m image tests/e2e $(ARGS)

# The numerics beside the peers', which get environments of their own in build/peers; ARGS="latency", "peers" or "gpu"
# with their options for the other benchmarks, ARGS="--results FILE" to write the table into a Markdown file.
bench: setup
	$(BIN)/python -m tests.benchmarks $(ARGS)

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis
