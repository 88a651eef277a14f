# Everything runs in .venv, which is made when it is needed. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL ?= $(BIN)/python -m pip install --quiet

.PHONY: demo test oldest pythons test-long slurm guides check format bench bench-full bench-compare bench-peers gpu-bench test-gpu faults clean

demo: $(VENV)/.installed
	$(BIN)/softmax-dask demo

# A process a core; more than eight compile the same kernels for nothing.
test: $(VENV)/.tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# The tests with the oldest releases that pyproject.toml allows; `make test` takes the newest that PYTHON can have.
OLDEST := .venv-oldest
oldest:
	$(MAKE) VENV=$(OLDEST) $(OLDEST)/bin/python
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(MAKE) test VENV=$(OLDEST) \
		INSTALL="$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct"

# The tests with newer Pythons than this machine may have: 3.13 of Debian's trixie, 3.14 or later of sid; as root.
# With one that is installed: `make test PYTHON=python3.14 VENV=.venv-3.14`.
pythons:
	tests/pythons/run.sh trixie
	tests/pythons/run.sh sid

test-long: $(VENV)/.tests
	$(BIN)/python -m pytest -m long

# Jobs of a real Slurm, which runs on this machine meanwhile: from Debian's packages, as root. Elsewhere skipped.
# dask-jobqueue leaves the files of keys open, which is found when Python ends.
LEFT_OPEN := -W ignore::ResourceWarning -W ignore::pytest.PytestUnraisableExceptionWarning
slurm: $(VENV)/.tests
	tests/slurm/install.sh
	$(BIN)/python -m pytest -rs -m slurm tests/slurm $(LEFT_OPEN)

# What the guides show of frameworks, run with the frameworks, which are large; `make test` leaves those out.
guides: $(VENV)/.guides
	$(BIN)/python -m pytest -rs tests/test_guides.py

check: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.tests
	$(BIN)/python -m benchmarks.run

bench-full: $(VENV)/.tests
	$(BIN)/python -m benchmarks.run --effort full

# Ends with 1 where a ratio became worse than the committed one; with 2 where there is no telling, as on a busy machine.
bench-compare: $(VENV)/.tests
	$(BIN)/python -m benchmarks.compare

# About an hour; writes benchmarks/faults.md. Ends with 1 where a row was lost, or a half was seen.
faults: $(VENV)/.tests
	$(BIN)/python -m benchmarks.faults

# What the benchmarks compare with, beyond the packages of the tests; without them they skip a line.
bench-peers: $(VENV)/.tests
	$(INSTALL) torch==2.13.0 jax

# On a machine with an NVIDIA GPU and its driver: is it right there, and how fast? Within 10 minutes; writes benchmarks/gpu_results.md.
gpu-bench: $(VENV)/.gpu
	$(BIN)/python -m benchmarks.gpu

# The contract, the array functions and runs on a GPU in the place of the emulator: about two minutes.
ON_GPU := tests/library/test_kernels.py tests/library/test_extremes.py tests/library/test_jacobian_kernels.py \
	tests/library/test_top_k.py tests/library/cuda/test_arrays_on_a_device.py tests/pipelines/test_gpu.py
test-gpu: $(VENV)/.tests $(VENV)/.gpu
	SOFTMAX_DASK_TEST_GPU=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 12 -m "not slurm" \
		-k "cuda or device or gpu" $(ON_GPU)

clean:
	rm -rf $(VENV) $(OLDEST) softmax-dask-demo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.tests: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable ".[test,dev]"
	touch $@ $(VENV)/.installed

# Spark needs Java.
$(VENV)/.guides: $(VENV)/.tests
	$(INSTALL) torch==2.13.0 jax scikit-learn tensorstore $(if $(shell command -v java),pyspark)
	touch $@

# PyTorch brings Triton; both are peers only.
$(VENV)/.gpu: $(VENV)/.installed
	$(INSTALL) --editable ".[gpu]" torch
	touch $@
