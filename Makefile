# Every target prepares .venv by itself: minutes the first time, at once when constraints.txt and pyproject.toml are unchanged.
# `make PYTHON=/path/to/python3.12 …` chooses the interpreter, `make test ARGS="tests/core -x"` passes arguments on.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean install-cpu install-cuda

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
PYTHON ?=
ARGS ?=
# cpu or cuda: what was installed last; .venv remembers it
FLAVOUR := $(shell cat $(VENV)/.flavour 2>/dev/null || echo cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install -qq --constraint constraints.txt
# pip takes exact versions of what it installs by itself from constraints.txt; these lines name them for the other cases
pinned = $(shell sed -n 's/^\($(1)==[^ ]*\).*/\1/p' constraints.txt)

help:  ## this list
	@echo "make demo          raw rows to a served model on generated data; prints where everything is"
	echo "make test          all tests (ARGS=… goes to pytest)"
	echo "make lint          format, lint and types"
	echo "make bench         this project beside FuxiCTR on real rows (ARGS=… goes to the tool)"
	echo "make install-cuda  exchange the CPU build of FBGEMM for the CUDA one; make install-cpu goes back"
	echo "make clean         delete .venv and all caches; runs/ stays"

demo: $(READY)  ## ends by saying where the report and the bundle are
	@started=$$SECONDS
	$(BIN)/python -m pipelines.run experiment=demo $(ARGS)
	echo "demo: scoring raw rows with the exported file, in a process that cannot import this project"
	$(BIN)/python -I tools/serve_example/score.py runs/demo/export
	echo "demo: done in $$((SECONDS - started)) s; everything it made is in runs/demo/"

test: $(READY)
	@# a process for each core and one thread in each: most tests wait for processes that they start
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal $(ARGS)

lint: $(READY)
	@failed=""
	echo "lint: ruff format --check"; $(BIN)/ruff format --check . || failed="$$failed format (mend: $(BIN)/ruff format .);"
	echo "lint: ruff check";          $(BIN)/ruff check . || failed="$$failed ruff (mend some: $(BIN)/ruff check --fix .);"
	echo "lint: mypy --strict";       $(BIN)/mypy || failed="$$failed types;"
	if [ -n "$$failed" ]; then echo "lint: failed:$$failed" >&2; exit 1; fi
	echo "lint: format, lint and types are clean"

bench: $(READY)
	@$(BIN)/python tools/bench_fuxictr.py $(ARGS)

clean:
	@rm -rf $(VENV) build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find recsys pipelines tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
	echo "clean: .venv, caches and builds are gone; runs/ is kept, delete it yourself if you no longer need it"

install-cpu install-cuda: install-%:
	@rm -f $(READY)
	$(MAKE) --no-print-directory FLAVOUR=$* $(READY)

# The stamp is written last: an interrupted installation is taken up again by the next make.
$(READY): constraints.txt pyproject.toml
	@fail() { echo "setup: $$1" >&2; exit 1; }
	step() { printf 'setup: [%3d s] %s\n' "$$SECONDS" "$$1"; }
	find_python() {
	  local old="" bare=""
	  for candidate in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do
	    "$$candidate" -c "" 2>/dev/null || continue
	    "$$candidate" -c "import sys; sys.exit(sys.version_info < (3, 11))" || { old="$$candidate"; continue; }
	    "$$candidate" -c "import venv, ensurepip" 2>/dev/null || { bare="$$candidate"; continue; }
	    echo "$$candidate"; return
	  done
	  [ -z "$$bare" ] || fail "$$bare lacks the venv module. Install it (Debian, Ubuntu: apt install python3-venv), or make PYTHON=…"
	  [ -z "$$old" ] || fail "$$old is $$("$$old" -V 2>&1), too old: 3.11 or newer is needed. Install one, or name it: make PYTHON=…"
	  fail "no Python found ($(or $(PYTHON),python3.11 … python3)). Install Python 3.11 or newer, or name it: make PYTHON=…"
	}
	rm -f $(READY)
	if $(BIN)/python -c "import sys, pip; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
	  step "bringing $(VENV) up to date ($(FLAVOUR))"
	else
	  python=$$(find_python)
	  step "creating $(VENV) with $$("$$python" -V 2>&1) ($(FLAVOUR)); a few minutes, most of it downloading"
	  rm -rf $(VENV)
	  "$$python" -m venv $(VENV)
	fi
	echo $(FLAVOUR) > $(VENV)/.flavour
	step "torch ($(call pinned,torch))"
	$(INSTALL) "$(call pinned,torch)$(if $(filter cuda,$(FLAVOUR)),$(comma)!=$(patsubst torch==%,%,$(call pinned,torch))+cpu)"
	step "this package and what it needs"
	$(INSTALL) "$(call pinned,setuptools)"
	$(INSTALL) --no-build-isolation --editable ".[dev]"
	# Without dependencies, because TorchRec's name the CUDA build of FBGEMM, also for a CPU. The two builds share one
	# folder: the other one leaves first.
	other=$(if $(filter cuda,$(FLAVOUR)),fbgemm-gpu-cpu,fbgemm-gpu)
	fbgemm=$(if $(filter cuda,$(FLAVOUR)),$(call pinned,fbgemm-gpu),$(call pinned,fbgemm-gpu-cpu))
	step "TorchRec and FBGEMM ($(call pinned,torchrec), $$fbgemm)"
	again=""
	if $(PIP) show --quiet "$$other" 2>/dev/null; then $(PIP) uninstall --quiet --yes "$$other"; again=--force-reinstall; fi
	$(INSTALL) --no-deps $$again "$$fbgemm" "$(call pinned,torchrec)"
	$(BIN)/python -W ignore -c "import torchrec, recsys" || fail "installed, but import fails: $(BIN)/python -m pipelines.doctor tells more"
	date > $(READY)
	step "$(VENV) is ready"

comma := ,
