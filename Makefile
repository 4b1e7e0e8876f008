# `make help` lists the targets. Two environments are tested (requirements/*.txt):
#   make test                  modern: Python >= 3.10, newest PyTorch, in .venv
#   make test LEG=compiled     compiled: Python 3.10, where Detectron2's compiled part loads, in .venv-py310
LEG ?= modern
ifeq ($(LEG),modern)
PYTHON ?= python3
VENV ?= .venv
else ifeq ($(LEG),compiled)
PYTHON ?= python3.10
VENV ?= .venv-py310
else
$(error LEG must be modern or compiled, got $(LEG))
endif

BIN := $(VENV)/bin
REQUIREMENTS := requirements/$(LEG).txt
STAMP := $(VENV)/.resnest-d2-$(LEG)
PYTEST_ARGS ?=
DEMO_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help env test demo docs lint format clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  variables: LEG=modern|compiled PYTHON=$(PYTHON) VENV=$(VENV) PYTEST_ARGS= DEMO_ARGS="

env: $(STAMP) ## virtual environment with PyTorch, Detectron2 and this package, editable

test: lint ## linter, formatter's check and the default tests
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

demo: env ## train, evaluate and predict on a small made-up data set
	$(BIN)/python tools/demo.py $(DEMO_ARGS)

docs: env ## the documentation site, in build/docs; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -d build/doctrees docs build/docs

lint: env ## ruff, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: env ## ruff, mending what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove build results and caches; environments and output/ stay
	rm -rf build dist docs/reference *.egg-info .pytest_cache .ruff_cache
	find configs resnest_d2 resnest_d2_command tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that is already there is adopted, and what it has is kept where it fits the pins.
# No build isolation: an isolated build would download what is pinned here a second time.
$(STAMP): setup.py pyproject.toml $(REQUIREMENTS) tools/install_detectron2.py | $(BIN)/python
	$(BIN)/python -m pip install -r $(REQUIREMENTS)
	$(BIN)/python tools/install_detectron2.py
	$(BIN)/python -m pip install --quiet --no-build-isolation -c $(REQUIREMENTS) -e '.[test]'
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: name another with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (v == (3, 10) if "$(LEG)" == "compiled" else v >= (3, 10)))' || \
	  { echo "$(PYTHON) does not fit the $(LEG) environment (modern: Python >= 3.10, compiled: 3.10): name another with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv or ensurepip module: install them (Debian, Ubuntu: python3-venv) or name another with PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
