# `make demo` and `make test` set everything up themselves; nothing outside this directory is touched.
PYTHON ?= python3
SOURCE ?= synthetic
ROOT ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: setup demo test check clean

setup: $(STAMP)

# torch comes first and pinned: a range would pull a build with several gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/python tools/demo.py --source $(SOURCE) $(if $(ROOT),--root $(ROOT))

# The MALLOC settings keep the memory of large tensors, which glibc would give back and clear anew for each.
test: setup
	HF_HUB_OFFLINE=1 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=4294967296 $(BIN)/python -m pytest -n 2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
