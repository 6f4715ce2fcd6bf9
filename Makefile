# Everything a newcomer types. Each target does all the set-up it needs, and nothing twice.
#
#   make demo      from nothing to results/demo/samples.txt, without a download of data
#   make test      the test suite, in minutes; OPTIONS="--cov" also tells how much of the code it runs
#   make test NANOGPT=PATH    also the tests that run nanoGPT's own code, from a checkout of it
#   make test-slow     the few tests that take long and rarely break
#   make test-faults   kills, full disks and damaged files, in full; SEED=2 for others
#   make test-slurm    the workflow on a Slurm of two nodes on this machine; docs/CLUSTER.md installs it
#   make test-browser  the report in a headless Chromium, which must be installed
#   make lint      style, types, words, workflow lint      make format    fix the style
#   make docs      the pages of docs/ as a site, in site/
#   make bench NANOGPT=PATH   our training beside that of a checkout of nanoGPT, in ten minutes
#   make speed     how fast the models of `report.runs` train and sample here
#   make report    all runs as they stand, also unfinished ones      make watch     their curves in TensorBoard
#   make clean     remove what was computed, with the cache and unfinished trainings
#   make distclean and the environment

PYTHON ?= python3
CORES ?= all
SEED ?= 1
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test test-slow test-faults test-slurm test-browser lint format docs bench speed report watch picture clean distclean environment

demo: environment
	$(BIN)/snakemake --cores $(CORES) results/demo/samples.txt results/demo/eval.json
	@echo && cat results/demo/samples.txt

test: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not slurm" --ignore tests/browser $(OPTIONS)

test-slow: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not slurm" --ignore tests/browser

test-faults: environment
	NANOGPT_FAULTS=full NANOGPT_FAULT_SEED=$(SEED) $(BIN)/python -m pytest -n 2 --dist loadfile tests/faults

test-slurm: environment
	$(BIN)/python -m pytest -n 3 --dist loadfile -m slurm --ignore tests/browser

test-browser: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/browser

lint: environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint
	$(BIN)/python -m tests.prose

# A line about the future of MkDocs is printed without the variable.
docs: environment
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo open site/index.html

format: environment
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow
	$(BIN)/nanogpt schema > workflow/schemas/config.schema.json
	$(BIN)/nanogpt settings > docs/SETTINGS.md
	$(BIN)/python -m tests.mistakes.page > docs/ERRORS.md

bench: environment
	@test -n "$(NANOGPT)" || { echo "NANOGPT is not set; say make bench NANOGPT=PATH_OF_A_NANOGPT_CHECKOUT"; exit 1; }
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

clean:
	rm -rf .snakemake .nanogpt resources/corpora resources/tokenizers
	find results -mindepth 1 ! -name README.md -delete
	rm -rf site

distclean: clean
	rm -rf $(VENV)

environment: $(READY)

# The package itself is installed in place, so that an edit of nanogpt/ needs no installation.
$(READY): envs/requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement envs/requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@
