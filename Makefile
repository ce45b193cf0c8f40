# `make help` lists the targets. Those that need the environment make it themselves, or bring it up to date.
VENV ?= .venv
TORCH ?= auto
ARGS ?=
WORKERS ?= 2
BIN = $(VENV)/bin
ROOT_FLAG = $(if $(filter 0,$(shell id -u)),--allow-root)

# Without byte code every start of Python takes seconds longer.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env setup demo test check check-long docs lab bench bench-stats notebooks reference gpu-check bench-gpu lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "  ARGS='...' adds arguments; PYTHON=... names the Python; TORCH=cpu or pip chooses torch's build"

env:
	@PYTHON="$(PYTHON)" sh scripts/setup.sh --venv "$(VENV)" --torch "$(TORCH)"

setup: env ## make .venv with exact versions (no CUDA without a GPU)
	@echo "setup: $(VENV) is up to date"

demo: env ## a real model, a real sweep, the answer in words and a picture
	@$(BIN)/workbench demo $(ARGS)

test: env ## the tests
	@$(BIN)/python -m pytest -m "not long" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: env ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

check-long: env ## the proofs that take minutes
	@$(BIN)/python -m pytest -m long $(ARGS)

lab: env ## JupyterLab on notebooks/, on this machine only
	@$(BIN)/jupyter lab --ip=127.0.0.1 $(ROOT_FLAG) $(ARGS) notebooks/

bench: env ## the sweep against plain generate, side by side
	@$(BIN)/python scripts/bench_sweep.py $(ARGS)

bench-stats: env ## how well intervals, tests and racing keep their promises, simulated
	@$(BIN)/python scripts/bench_stats.py $(ARGS)
	@$(BIN)/python scripts/bench_race.py --rules race pairwise normal
	@$(BIN)/python scripts/bench_search.py

docs: env ## write the generated pages of docs/ anew
	@$(BIN)/python scripts/make_docs.py $(ARGS)

reference: env ## the results shown in results/reference/cpu (a quarter of an hour)
	@$(BIN)/python scripts/make_reference.py $(ARGS)

notebooks: env ## run every notebook from top to bottom, in a temporary place
	@$(BIN)/python -m pytest tests/test_notebooks.py $(ARGS)

gpu-check: env ## CUDA against the CPU reference, pass or fail per part
	@$(BIN)/python scripts/gpu_check.py $(ARGS)

bench-gpu: env ## the sweep on a GPU, random weights in Qwen1.5-7B shape (writes 5.6 GB under /tmp)
	@$(BIN)/python scripts/random_awq.py /tmp/awq-workbench-random-7b
	@mkdir -p results/reference/gpu
	@$(BIN)/python scripts/bench_sweep.py --model /tmp/awq-workbench-random-7b --device cuda \
		--json results/reference/gpu/sweep.json $(ARGS)

lock: ## resolve everything anew and rewrite requirements.lock
	@PYTHON="$(PYTHON)" sh scripts/setup.sh --lock --torch "$(TORCH)"

clean: ## remove .venv, caches and build leftovers (never results/)
	@rm -rf "$(VENV)" build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
