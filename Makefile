# One word per duty. `make up` and `make test` work on a fresh machine with Python 3.11+ and make.

PYTHON ?= python3
# Another torch than constraints.txt names, TORCH=2.11.0, gets an environment of its own.
TORCH ?=
VENV := .venv$(TORCH:%=-torch-%)
BIN := $(VENV)/bin
NATIVE := $(wildcard kernels/native/*.c kernels/native/*.h kernels/native/*.inc)
# One thread a process: ranks, not OpenMP, use the cores (docs/performance.md).
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help same-python install install-dev dashboard up down test lint types format bench proto models-doc demo-model pins clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv with what serving needs

install-dev: $(VENV)/.installed-dev ## Make .venv with what development needs, too

same-python:
ifneq ($(origin PYTHON),file)
	@asked=$$($(PYTHON) -V 2>&1); made=$$($(BIN)/python -V 2>/dev/null) || exit 0; [ "$$asked" = "$$made" ] || { \
	   echo "PYTHON=$(PYTHON) is $$asked, but $(VENV) holds $$made: 'make clean' first, or add VENV=.venv-other" >&2; exit 1; }
endif

$(VENV)/.installed: pyproject.toml setup.py constraints.txt tools/install.sh $(NATIVE) | same-python
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" tools/install.sh $(VENV) "."
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" tools/install.sh $(VENV) ".[dev]"
	@touch $@

dashboard: install ## Build the dashboard when its sources changed
	@$(BIN)/python -m headway.controller.dashboard.build

up: dashboard ## Bring a local cluster up with the demo model; Ctrl-C stops it (ARGS="--replicas 2 --tp 2")
	@$(BIN)/headway up $(ARGS)

down: install ## Stop the local cluster
	@$(BIN)/headway down

test: install-dev dashboard ## Run all tests (ARGS="-k name"; PYTHON=python3.12 or TORCH=2.11.0 for other versions)
	@$(BIN)/python -m tools.run_tests $(ARGS)

lint: install-dev ## Formatting, style, layers, protos and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@cd proto && ../$(BIN)/buf lint
	@$(BIN)/python -m headway.proto.generate --check
	@$(MAKE) --no-print-directory types

types: install-dev ## mypy, strict
	@MYPYPATH=$(VENV)/src $(BIN)/mypy -p headway

format: install-dev ## Format and fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: dashboard ## Measure the demo model on a fresh local cluster (docs/performance.md)
	@$(BIN)/python benchmarks/demo.py $(ARGS)

proto: install-dev ## Generate the stubs from the .proto files
	@$(BIN)/python -m headway.proto.generate

models-doc: install-dev ## Write docs/models.md from the table of architectures and the cases of its tests
	@$(BIN)/python -m tools.models_doc

demo-model: install-dev ## Train the demo model and its draft again (ARGS="--minutes 60")
	@$(BIN)/python -m tools.demo_model $(ARGS)

pins: install-dev ## Write the versions at hand to constraints.txt
	@{ echo "# Versions that CI tests, for every install. \`make pins\` renews them. A CPU build of torch answers to torch==2.13.0, too."; \
	   $(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | sed 's/+cpu//'; } > constraints.tmp && mv constraints.tmp constraints.txt

clean: ## Remove what the other duties made
	rm -rf $(VENV) build dist *.egg-info controller/dashboard/static controller/dashboard/web/node_modules
