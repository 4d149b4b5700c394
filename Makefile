# Twinlens: every target makes what it needs, the environment included.
#
#   make demo GALLERY=~/Pictures PORT=8000
#   make test TORCH_INDEX_URL=...    PyTorch's smaller CPU build, from the index that pytorch.org names

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The first interpreter on the path that is new enough; PYTHON=/usr/bin/python3.12 overrules it.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

BUNDLE ?= encoders/default
GALLERY ?= demo/gallery
RELEASES ?= releases
HOST ?= 127.0.0.1
PORT ?= 8000
RECIPE ?= training/recipes/lite0-minilm.toml
OUT ?= bundles/$(basename $(notdir $(RECIPE)))
TORCH_INDEX_URL ?=
BASE_IMAGE ?= python:3.11-slim

.PHONY: help demo test check test-names audit format train index serve docs-check bench image lock clean

help: ## say what each target does (the default)
	@printf 'Twinlens: image-text retrieval. Targets:\n\n'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS=$$'\t' read -r name words; do printf '  make %-10s %s\n' "$$name" "$$words"; done
	@printf '\nThe environment is made on first use in %s (Python 3.11 or newer).\n' '$(VENV)'

demo: $(INSTALLED) ## index GALLERY (default: the drawings in demo/gallery) and serve it on PORT (default: 8000)
	@$(BIN)/python demo/run.py --gallery '$(GALLERY)' --bundle '$(BUNDLE)' --host '$(HOST)' --port '$(PORT)'

test: $(INSTALLED) ## run the tests, as CI does (as root on Debian it installs what they use from the system)
	-@requirements/system.sh
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(INSTALLED) test-names ## format, lint, types and the order of the packages, as CI checks them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests are no packages: of two files of one name pytest refuses the second, or takes one helper for the other.
test-names:
	@twice=$$(find tests -name '*.py' ! -name conftest.py | sed 's|.*/||' | sort | uniq -d | tr '\n' ' '); \
		test -z "$$twice" || { echo "two files below tests/ have one name, give one another: $$twice" >&2; exit 1; }

audit: ## ask whether a package of the lock has a known vulnerability
	@$(PYTHON) requirements/audit.py

format: $(INSTALLED) ## rewrite the code as `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train: $(VENV)/.training ## train RECIPE (default: the default encoder's) into OUT
	$(BIN)/python -m training fit '$(RECIPE)' --out '$(OUT)'

index: $(INSTALLED) ## rebuild the index of GALLERY with BUNDLE and publish it in RELEASES
	$(BIN)/python -m index rebuild --gallery '$(GALLERY)' --bundle '$(BUNDLE)' --releases '$(RELEASES)'

serve: $(INSTALLED) ## serve the current release of RELEASES on HOST and PORT
	$(BIN)/python -m service --releases '$(RELEASES)' --host '$(HOST)' --port '$(PORT)'

docs-check: $(INSTALLED) ## run every command of the READMEs and docs in a fresh clone (LONG=1: what takes long, too)
	@$(BIN)/python -m docs.check $(if $(LONG),--long)

bench: $(INSTALLED) ## measure encoder, index, service and evaluation on this machine
	$(BIN)/python -m benchmarks

image: ## build the container image `twinlens` on BASE_IMAGE (TORCH_INDEX_URL=... for the small CPU build)
	docker build --build-arg BASE_IMAGE='$(BASE_IMAGE)' --build-arg TORCH_INDEX_URL='$(TORCH_INDEX_URL)' \
		--tag twinlens .

# The lock holds for every platform and Python from 3.11 on. dev.txt leads: the roles never differ from it.
COMPILE = .cache/uv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --custom-compile-command 'make lock'
lock: ## pin what pyproject.toml asks for, anew (UPGRADE=--upgrade takes the newest)
	@test -x .cache/uv/bin/uv || { $(PYTHON) -m venv .cache/uv && .cache/uv/bin/pip install --quiet uv; }
	$(COMPILE) $(UPGRADE) --extra service --extra training --group dev --output-file requirements/dev.txt
	$(COMPILE) --extra service --constraint requirements/dev.txt --output-file requirements/service.txt
	$(COMPILE) --extra default-encoder --constraint requirements/dev.txt --output-file requirements/training.txt

clean: ## remove the environment and every cache; releases and bundles stay
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(INSTALLED): requirements/dev.txt requirements/install.py pyproject.toml
	@test -n '$(PYTHON)' || { echo 'Twinlens needs Python 3.11 or newer, and there is none on the path:' \
		'install it, or name it with `make PYTHON=/path/to/python3.11 ...`' >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo 'No virtual environment could be made: on Debian and Ubuntu, `apt-get install python3-venv`' >&2; exit 1; }
	$(BIN)/python requirements/install.py dev --torch-index '$(TORCH_INDEX_URL)'
	$(BIN)/pip install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.training: $(INSTALLED) requirements/training.txt
	$(BIN)/python requirements/install.py training --torch-index '$(TORCH_INDEX_URL)'
	@touch $@
