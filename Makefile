# `make quickstart` trains the first network; `make test` runs the fast tests. Both install what they need into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
SHELL := /bin/sh

.PHONY: help quickstart test slow lint types constraints results bench bench-table clean

help:
	@echo "make quickstart   install, then train a small network on real digits (about a minute after installation)"
	@echo "make test         install, then the fast tests"
	@echo "make slow         the slow tests"
	@echo "make lint types   ruff and pyrefly"
	@echo "make results      write the README's table of results from the stored result.json files"
	@echo "make bench        time training against PyTorch on this CPU and write the README's table"
	@echo "make constraints  resolve all dependencies anew and pin them"

quickstart: $(VENV)/.core
	$(BIN)/python experiments/train.py --config=configs/quickstart.py --workdir="$(WORKDIR)" --resume

# The fast tests compile hundreds of small programs that run once; the slow ones, among them those of exact bits, compile
# as users do. These are options of the pinned jaxlib; XLA stops where it does not know one.
QUICK_COMPILATION := --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false

test: $(VENV)/.dev
	XLA_FLAGS="$(QUICK_COMPILATION) $$XLA_FLAGS" $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

# Those that compare with references, to bounds, are quickly compiled, too.
QUICK_TESTS := tests/models tests/weights tests/data tests/ops tests/nn tests/methods tests/study/test_claim_configs.py tests/study/test_probes.py
slow: $(VENV)/.dev
	XLA_FLAGS="$(QUICK_COMPILATION) $$XLA_FLAGS" $(BIN)/python -m pytest -n auto --dist worksteal -m slow $(QUICK_TESTS)
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow $(QUICK_TESTS:%=--ignore=%)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/pyrefly check

results: $(VENV)/.core
	$(BIN)/python experiments/tabulate_results.py

bench: $(VENV)/.core
	$(BIN)/python experiments/benchmark.py cpu --store

bench-table: $(VENV)/.core
	$(BIN)/python experiments/benchmark.py table

# Say what is missing before pip or venv fail in their own words.
$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "error: $(PYTHON) is not there; install Python 3.11 or newer, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $$($(PYTHON) --version) is too old; install Python 3.11 or newer, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "error: $(PYTHON) has no venv; install it (on Debian: apt install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing cnn_jax into $(VENV) (once; a few minutes)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . || { \
		echo "error: installation failed; is the package index reachable?" >&2; exit 2; }
	@$(BIN)/python -c "from cnn_jax.ops.native.library import library; print(library().description)"
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]' || { \
		echo "error: installation failed; is the package index reachable?" >&2; exit 2; }
	@touch $@

constraints: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report $(VENV)/resolved.json \
		--editable '.[dev,tensorboard,slurm,prepare,cuda,tpu]'
	$(BIN)/python -c "import json; \
		pins = {p['metadata']['name']: p['metadata']['version'] for p in json.load(open('$(VENV)/resolved.json'))['install']}; \
		pins.pop('cnn_jax', None); \
		print('# Every package of cnn_jax with all its extras, as resolved together; \`make constraints\` writes it anew.'); \
		[print(f'{name}=={pins[name]}') for name in sorted(pins, key=str.lower)]" > constraints.txt

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis
