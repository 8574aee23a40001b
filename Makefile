# The tasks of this repository, one target each.
# Needs Python 3.11, 3.12 or 3.13 (with venv) and make. All other dependencies are installed into .venv from the locks in
# requirements/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV ?= .venv
# Build of the engine: gpu if the NVIDIA driver is loaded, else cpu.
ACCELERATOR ?= $(if $(wildcard /dev/nvidiactl),gpu,cpu)
BIN := $(VENV)/bin
UV := $(BIN)/uv
READY := $(VENV)/.ready-$(ACCELERATOR)
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: help setup run test soak trainers check format bench page pictures site images lock clean cluster cluster-down cluster-tools cluster-prepare pool-prepare prometheus-prepare page-prepare

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## Makes .venv from the lock (about 7 GB, once)

run: $(READY) ## Runs the example job: examples/arithmetic.yaml
	@$(BIN)/openseer run examples/arithmetic.yaml

test: $(READY) cluster-prepare pool-prepare prometheus-prepare page-prepare ## Runs all tests that this machine can run
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadscope --durations=15

soak: $(READY) ## Runs the long random searches in full (`make test` shortens them); SEED, MINUTES: seed and time of random faults
	@OPENSEER_SOAK=1 OPENSEER_SOAK_SEED="$(SEED)" OPENSEER_SOAK_MINUTES="$(MINUTES)" $(BIN)/python -m pytest --durations=0 $$(grep -rlw SOAK tests --include='test_*.py')

trainers: $(READY) ## Runs trainers' own code against openseer, each in its own environment (500 MB); TRAINER=areal: only that one
	@tests/client/trainers/run.sh $(BIN)/python $(TRAINER)

# The check of types takes longest, so it runs beside the others; its output is printed last.
check: $(READY) ## Lint, format, types, import directions, house rules
	@echo "lint" && $(BIN)/ruff check .
	@echo "format" && $(BIN)/ruff format --check .
	@types=$$(mktemp); trap 'rm -f "$$types"' EXIT; $(BIN)/pyright --project pyproject.toml >"$$types" 2>&1 & \
	others=0; { echo "import directions" && $(BIN)/lint-imports && \
	    echo "house rules" && $(BIN)/python -m pytest --quiet tests/house; } || others=$$?; \
	echo "types"; types_are=0; wait $$! || types_are=$$?; cat "$$types"; exit $$((others | types_are))

format: $(READY) ## Formats the code and applies ruff's automatic fixes
	@$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

bench: $(READY) ## Runs each benchmark in its short form
	@for benchmark in $$(grep -lF -e --quick benchmarks/*.py); do \
	    echo "$$benchmark" && $(BIN)/python "$$benchmark" --quick; \
	done

page: ## Builds the live page from page/ into the API's package (Node.js 20.19 or newer); the result is committed
	@cd page && npm ci --no-fund --no-audit && npm run build

pictures: ## Runs the example and makes the README's recording and plot from it
	@$(BIN)/python docs/images/record.py docs/images/run.svg -- .venv/bin/openseer run examples/arithmetic.yaml --fresh
	@$(BIN)/python docs/images/timeline.py runs/arithmetic docs/images/timeline.svg

images: ## Builds both images and the chart for a registry: REGISTRY=registry.example/team [PUSH=1] [ENGINE=gpu|cpu|none]
	@images/make.sh

cluster: ## Starts a Kubernetes cluster on this machine (root; the first time builds it, about 15 minutes)
	@cluster/cluster.sh prepare && cluster/cluster.sh up 2 && cluster/cluster.sh load operator scripted
	@printf '%s\n' "kubectl works inside its network: cluster/cluster.sh exec kubectl get nodes" \
	    "a shell there, with KUBECONFIG and its programs: cluster/cluster.sh exec bash" "all commands: cluster/cluster.sh help"

cluster-down: ## Removes the cluster, also after a crash
	@cluster/cluster.sh down

cluster-tools: ## Installs the Debian packages that the cluster needs (root)
	@cluster/cluster.sh tools

# Builds the cluster's programs and images before the tests, so that progress is visible. Exit code 3: this machine cannot
# run a cluster, for the reason in the output.
cluster-prepare:
	@test -n "$${KUBECONFIG:-}" || cluster/cluster.sh prepare || { \
	    test $$? = 3 && echo "tests that need a Kubernetes cluster will be skipped"; }

# Libraries that Mooncake's programs need, installed if possible (root, apt).
pool-prepare:
	@PATH=$$PATH:/usr/sbin:/sbin; test $$(ldconfig -p | grep -c -e 'libibverbs\.so\.1' -e 'libcurl\.so\.4') -ge 2 || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	    echo "tools: apt-get install libibverbs1 libcurl4" && apt-get update -q >/dev/null && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends libibverbs1 libcurl4 >/dev/null; } || \
	    echo "tests of Mooncake's store will be skipped: Debian's libibverbs1 or libcurl4 is missing"

# Prometheus for the tests of metrics, dashboards and alerts. The package is only unpacked: installing it starts a service.
prometheus-prepare:
	@programs="$${OPENSEER_CACHE:-$$HOME/.cache/openseer}/programs/prometheus"; \
	command -v prometheus promtool >/dev/null || test -x "$$programs/promtool" || { command -v apt-get >/dev/null && \
	    echo "tools: apt-get download prometheus" && folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cd "$$folder" && \
	    { test "$$(id -u)" != 0 || apt-get update -q >/dev/null; } && apt-get download -q prometheus >/dev/null 2>&1 && \
	    dpkg-deb -x prometheus_*.deb . && mkdir -p "$$programs" && cp usr/bin/prometheus usr/bin/promtool "$$programs"; } || \
	    echo "tests that need Prometheus will be skipped: Debian's package is missing"

# Debian's Chromium, for the tests of the live page, installed if possible (root, apt).
page-prepare:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	    echo "tools: apt-get install chromium" && apt-get update -q >/dev/null && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium >/dev/null; } || \
	    echo "tests of the live page in a browser will be skipped: Debian's chromium is missing"

site: $(READY) ## Builds the site of the documentation into build/site/html; a broken link is an error
	@$(BIN)/python docs/site/build.py build/site

lock: $(READY) ## Renews requirements/ from pyproject.toml
	@for accelerator in cpu gpu; do \
	    echo "requirements/$$accelerator.txt" && $(BIN)/$(COMPILE) --group dev --extra local --extra datasets --extra traces --extra operator --extra "$$accelerator" \
	        --output-file "requirements/$$accelerator.txt" pyproject.toml; \
	done
	@# An image contains the versions with which the tests ran.
	@image() { \
	    echo "requirements/image-$$1.txt" && $(BIN)/$(COMPILE) --no-annotate --constraint "requirements/$$2.txt" "$${@:3}" \
	        --output-file "requirements/image-$$1.txt" pyproject.toml; }; \
	image operator cpu --extra operator --extra api --extra traces; image worker-none cpu --extra driver --extra datasets --extra traces; \
	image worker-cpu cpu --extra driver --extra datasets --extra traces --extra cpu; \
	image worker-gpu gpu --extra driver --extra datasets --extra traces --extra gpu
	@for trainer in requirements/trainers/*.in; do \
	    echo "$${trainer%.in}.txt" && $(BIN)/$(COMPILE) --no-deps --no-annotate --output-file "$${trainer%.in}.txt" "$$trainer"; \
	done
	@echo "requirements/bootstrap.txt" && echo uv | $(BIN)/$(COMPILE) --no-annotate --output-file requirements/bootstrap.txt -

clean: ## Removes .venv and caches; runs/ stays
	@rm -rf "$(VENV)" build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp file per build of the engine. Each build removes the other's stamp, because both use the same folder.
$(READY): requirements/bootstrap.txt requirements/$(ACCELERATOR).txt pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	    echo "openseer needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$("$(PYTHON)" --version 2>&1)." \
	        "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@rm -f "$(VENV)"/.ready-*
	@echo "setup 1/4: environment in $(VENV)"
	@test -x "$(BIN)/python" || "$(PYTHON)" -m venv "$(VENV)"
	@echo "setup 2/4: uv, from requirements/bootstrap.txt"
	@test -x "$(BIN)/pip" || "$(BIN)/python" -m ensurepip >/dev/null
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/bootstrap.txt
	@echo "setup 3/4: dependencies, from requirements/$(ACCELERATOR).txt (about 7 GB; two minutes on a fast line)"
	@"$(UV)" pip sync --quiet --compile-bytecode --python "$(BIN)/python" --require-hashes requirements/$(ACCELERATOR).txt
	@echo "setup 4/4: openseer itself"
	@"$(UV)" pip install --quiet --python "$(BIN)/python" --no-deps --no-build-isolation --editable .
	@touch "$@"
