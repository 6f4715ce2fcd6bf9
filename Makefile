# The commands for a checkout. The first one creates .venv, with all packages pinned.
#
#   make demo          train the demo and print its samples; needs no data from the internet
#   make report        report on all runs, including unfinished ones: results/report/now/index.html
#   make watch         show loss curves in TensorBoard
#   make speed         measure how fast the models in `report.runs` train and sample
#   make picture       the pictures of the report and of `nanogpt serve`; needs Chromium
#   make clean         delete results, downloads, the cache and unfinished trainings
#   make distclean     the same, and delete .venv
#
#   make test          the tests, in minutes; OPTIONS=--cov measures coverage
#   make test NANOGPT=PATH    also the tests that run code of a nanoGPT checkout
#   make test-slow     the few tests that take long and rarely break
#   make test-faults   kills, full disks and damaged files; SEED=2 for others
#   make test-slurm    the workflow on a Slurm of two nodes on this machine (docs/CLUSTER.md)
#   make test-cloud    the workflow with S3 and Kubernetes, both stand-ins on this machine
#   make test-browser  the report and `nanogpt serve` in Chromium, which must be installed
#   make lint          style, types, words, Snakemake's lint
#   make format        fix the style, and write generated files
#   make docs          the pages of docs/ as a site, in site/
#   make bench NANOGPT=PATH   compare our training with that of a nanoGPT checkout, in ten minutes
#
# Variables: PYTHON=python3.13 for another Python, VENV=.venv313 for another environment, CORES=2 to
# use fewer cores.

PYTHON ?= python3
CORES ?= all
SEED ?= 1
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
CLOUD := $(abspath $(VENV)/cloud)

.PHONY: demo test test-slow test-faults test-slurm test-cloud test-browser lint format docs bench speed report watch picture clean distclean environment

demo: environment
	$(BIN)/snakemake --cores $(CORES) results/demo/samples.txt results/demo/eval.json
	@echo && cat results/demo/samples.txt

test: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not slurm and not cloud" --ignore tests/browser $(OPTIONS)

test-slow: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not slurm and not cloud" --ignore tests/browser

test-faults: environment
	NANOGPT_FAULTS=full NANOGPT_FAULT_SEED=$(SEED) $(BIN)/python -m pytest -n 2 --dist loadfile tests/faults

test-slurm: environment
	$(BIN)/python -m pytest -n 3 --dist loadfile -m slurm --ignore tests/browser

# These packages would slow down each snakemake command, so they stay out of the environment.
test-cloud: $(CLOUD)
	PYTHONPATH=$(CLOUD) $(BIN)/python -m pytest -n 2 --dist loadfile -m cloud --ignore tests/browser

$(CLOUD): $(READY) envs/cloud.lock
	rm -rf $@
	$(BIN)/pip install --quiet --no-deps --target $@ --requirement envs/cloud.lock

test-browser: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/browser

lint: environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint
	$(BIN)/python -m tests.prose

# Without the variable, it prints an advertisement. `--quiet` would hide what `--strict` refuses.
docs: environment
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo open site/index.html

format: environment
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow
	$(BIN)/nanogpt schema > workflow/schemas/config.schema.json
	$(BIN)/nanogpt settings > docs/SETTINGS.md
	$(BIN)/python -m tests.mistakes.page > docs/ERRORS.md
	$(BIN)/python -m tests.conda > envs/nanogpt.yaml

bench: environment
	@test -n "$(NANOGPT)" || { echo "NANOGPT is not set; run make bench NANOGPT=PATH_OF_A_NANOGPT_CHECKOUT"; exit 1; }
	$(BIN)/snakemake --cores $(CORES) results/datasets/shakespeare_char/meta.json
	$(BIN)/python benchmarks/train.py $(NANOGPT) --short

speed: environment
	$(BIN)/snakemake --cores $(CORES) --forcerun bench -- benches

report: environment
	$(BIN)/nanogpt report

watch: environment
	$(BIN)/nanogpt watch

picture: environment
	$(BIN)/python docs/picture.py
	$(BIN)/python docs/serve_picture.py

clean:
	rm -rf .snakemake .nanogpt resources/corpora resources/tokenizers resources/imported
	find results -mindepth 1 ! -name README.md -delete
	rm -rf site

distclean: clean
	rm -rf $(VENV)

environment: $(READY)

# The package is installed in editable mode, so edits of nanogpt/ take effect immediately.
$(READY): envs/requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; if you have one, add PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement envs/requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@
