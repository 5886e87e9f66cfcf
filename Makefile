# Everything lives in .venv. `make setup` builds it once, and again only when the requirements change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Two threads on two busy cores slow torch down tenfold and more, so tests get one that does not spin.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: setup quickstart test test-fast test-slow test-plain-cpu lint

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: setup
	$(BIN)/emor3 quickstart

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint test-fast test-slow

test-fast: setup
	$(ONE_THREAD) $(BIN)/pytest -m 'not slow' --numprocesses 2

test-slow: setup
	$(ONE_THREAD) $(BIN)/pytest -m slow --numprocesses 2 --dist loadfile

# The arithmetic of a CPU without AVX, on any machine: sums are rounded in another order.
test-plain-cpu: setup
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(MAKE) test-fast
