# `make demo` and `make test` work on a bare machine with Python 3.11 to 3.13.
PYTHON ?= python3
BIN := .venv/bin
export UV_COMPILE_BYTECODE := 1
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check bench lock clean

# The stamp is newer than the lock exactly when the environment holds what the lock says.
.venv/.installed: requirements.lock pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
	  uv pip sync --quiet --require-hashes --python .venv requirements.lock && \
	  uv pip install --quiet --no-deps --python .venv --editable . ; \
	else \
	  $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock && \
	  $(BIN)/python -m pip install --quiet --no-deps --editable . && \
	  $(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null ; \
	fi
	@touch $@

demo: .venv/.installed ## train, evaluate and report on the embedded data
	$(BIN)/python train.py experiment=demo
	$(BIN)/hsl report runs='outputs/demo/*/*' output=outputs/demo/report

test: .venv/.installed ## the default test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile # a thread for each of the two processes

check: .venv/.installed ## linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.installed ## speed against named peers; NAME=loop runs one
	$(BIN)/python -m benchmarks $(NAME)

lock: ## renew requirements.lock from pyproject.toml (needs uv)
	uv lock --quiet --upgrade
	uv export --quiet --frozen --no-emit-project --all-extras --format requirements-txt --output-file requirements.lock

clean:
	rm -rf .venv outputs
