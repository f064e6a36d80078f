# `make demo` and `make test` set everything up themselves; nothing outside this directory is touched.
PYTHON ?= python3
SOURCE ?= synthetic
ROOT ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
AUDIT := .venv-audit
LOCK := $(AUDIT)/bin/uv pip compile --quiet --generate-hashes --no-annotate --custom-compile-command "make lock"
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: setup demo test check audit lock clean

setup: $(STAMP)

# Every file is checked against its hash. torch has none, for its builds differ from machine to machine; it is pinned,
# or a range would pull a build with several gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
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

# Exit code 3: no advisory database was reached, and nothing was audited.
audit: $(AUDIT)/.installed
	$(AUDIT)/bin/python .ci/audit.py

$(AUDIT)/.installed: .ci/audit.lock
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement .ci/audit.lock
	touch $@

# After a change of constraints.txt or of the tools: the hashes of all files of those versions.
lock: $(AUDIT)/.installed
	$(LOCK) --no-deps --no-emit-package torch constraints.txt --output-file requirements.lock
	$(LOCK) .ci/audit.in --output-file .ci/audit.lock

clean:
	rm -rf $(VENV) $(AUDIT) runs
