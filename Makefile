# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1

.PHONY: demo test lint types imports tests browser benchmarks peers clean

demo: $(READY)
	$(BIN)/teramito demo --output demo

test: lint types imports tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-cache

# Two processes: much of a test is waiting for a server or a worker. A file's tests stay in one of them.
tests: $(READY) browser
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 15 $(PYTEST_ARGS)

# Tests marked `browser` drive a real headless Chromium, from Debian's packages; without root they skip and say so.
browser:
	@command -v chromium >/dev/null 2>&1 || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null || true; \
	  else echo "chromium is not installed: tests that need a browser will skip"; fi

benchmarks: $(READY)
	for name in predict_engine labels label_peers label_scaling merge_scale million_blocks driver_memory evaluate training_speed local_convolution; do $(BIN)/python -m benchmarks.$$name || exit 1; done
	@test -n "$$TERAMITO_DATA" || echo "TERAMITO_DATA is not set: no benchmarks on the real volumes"
	test -z "$$TERAMITO_DATA" || for name in ablation fine_tune interpolation damage denoise_cost noise; do $(BIN)/python -m benchmarks.$$name || exit 1; done

# igneous and dask-image, for benchmarks/label_peers.py alone: never in the project's own environment.
peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --constraint benchmarks/peers/constraints.txt \
	  igneous-pipeline compresso dask-image zarr

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) .venv-peers demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache
