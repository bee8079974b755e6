# `make demo` and `make test` work on a bare machine with Python 3.11 to 3.13, with uv or pip alone.
# PYTHON=python3.12 chooses the interpreter; UV= does without uv.
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE :=
# Threads that wait do not spin: a quarter of the processor time where others work on the machine too.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test check bench install extras docs/demo_report.png docs/metrics.md lock clean

demo: install ## train two models on the embedded pictures, compare them, say where the page lies
	$(BIN)/python train.py -m experiment=demo encoder.weights=auto,null
	$(BIN)/hsl report runs='outputs/demo/fold*/*' output=outputs/demo/report
	@printf '%s\n' '' "The answer: $$PWD/outputs/demo/report/index.html (opens in a browser, needs no network)" \
	  'Try next:' \
	  '  $(BIN)/python train.py experiment=demo encoder=mobilenetv3_small encoder.weights=null && make demo' \
	  '      (a third model on the same page; what is trained is not trained again)' \
	  "  $(BIN)/hsl predict run=$$(ls -d outputs/demo/fold0/* | head -n 1) input=$$(ls -d outputs/demo_data/*/images | head -n 1) output=outputs/demo/predicted" \
	  '      (masks and overlays; `input` may be any folder of pictures)'

test: install ## the default test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile # a thread for each of the two processes

check: install ## linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install ## speed against named peers; NAME=loop runs one
	$(BIN)/python -m benchmarks $(NAME)

install: ## .venv with what requirements.lock names; at once where it is there
	@sh install.sh

extras: install ## into the same .venv what `hsl export`, `hsl serve`, Ray and their tests need besides (400 MB)
	$(BIN)/python -m ensurepip --default-pip >/dev/null 2>&1 || true # where uv made the environment
	$(BIN)/python -m pip install --no-deps --require-hashes --requirement requirements-extras.lock

docs/demo_report.png: ## the picture in README, of the page that `make demo` left (needs Debian's chromium)
	chromium --headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update \
	  --disable-sync --no-first-run --hide-scrollbars --window-size=1200,980 --screenshot=$@ \
	  "file://$$PWD/outputs/demo/report/index.html"

docs/metrics.md: ## the tables of scores in it, from the catalogue
	$(BIN)/python -m hsl.metrics.catalogue $@

lock: ## renew requirements.lock from pyproject.toml (needs uv)
	uv lock --quiet --upgrade
	uv export --quiet --frozen --no-emit-project --extra weights --extra sam --format requirements-txt --output-file requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --all-extras --group dev --group extras \
	  --constraint requirements.lock --output-file requirements-extras.lock pyproject.toml

clean:
	rm -rf .venv outputs
