# Everything starts here; `make help` lists the targets. Needs Python 3.11 or newer, make, and bash.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo up check test format screenshots dashboards examples chaos cluster fuzz attack gpu lint stubs docs generated lock system-packages clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
SERVER := $(VENV)/.installed-server
DEV := $(VENV)/.installed-dev
WORKERS ?= 3  # processes of `make test`: one more than cores, because many tests wait (tests/lanes.py)

# pip's own output is a wall of text: show one counted line a package instead, and pip's errors as they are.
COUNT = awk -v total="$$(grep -c '^[a-zA-Z]' $<)" '/^(Collecting|Processing) /{sub(".*/", "", $$2); printf "  %d/%d %s\n", ++n, total, $$2; fflush()} \
	/^Installing /{print "  unpacking (a minute or two)"; fflush()}'

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: $(SERVER) ## start the service, let a simulated shopper teach it a taste, show the result (under 10 minutes)
	@$(BIN)/papa demo $(ARGS)

up: $(SERVER) ## start the service and keep it running until Ctrl-C
	@$(BIN)/papa up $(ARGS)

test: $(DEV) ## every test and check, and at the end which tests took longest
	@$(BIN)/python -m pytest -n $(WORKERS) --durations 25 --durations-min 5 $(ARGS)

screenshots: $(DEV) ## the README's pictures of the playground, taken by its test with the shipped backbone (two minutes)
	@SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/playground/test_screenshots.py

dashboards: $(DEV) ## the documentation's pictures of the dashboards, from MINUTES=5 of simulated shoppers (needs Prometheus)
	@MINUTES=$(or $(MINUTES),5) DASHBOARDS=docs/images/dashboards $(BIN)/python -m pytest -q --timeout 900 tests/deploy/test_pictures.py

examples: $(DEV) ## compile the Go example and run the TypeScript one (wants Debian's Go, npm and its registry)
	@EXAMPLES=1 $(BIN)/python -m pytest -q -rs tests/docs/test_other_languages.py

chaos: $(DEV) ## 1,008 seeded schedules of faults over real processes, and a table (SEED=n replays one; 10 to 30 minutes)
	@PYTHONPATH=. $(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(ARGS)

cluster: $(DEV) ## replicas replaced under load on several Ray nodes, with two and with one (two minutes; a short part is in the tests)
	@$(BIN)/python -m pytest tests/cluster/rolling_changes.py $(ARGS)

fuzz: $(DEV) ## a million random and mutated messages to every RPC of running gateways (about 20 minutes on two cores)
	@PYTHONPATH=. $(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(ARGS)

attack: $(DEV) ## the attacks of docs/security.md on real processes of this machine, and a table (a few minutes)
	@PYTHONPATH=. $(BIN)/python -m tests.attack $(ARGS)

gpu: ## what one card does, in at most eight minutes: by GPU_PYTHON, which has torch with CUDA (docs/results/gpu.md)
	@PYTHONPATH=.:services $(or $(GPU_PYTHON),python3) -m benchmarks.gpu $(ARGS)

check: $(DEV) ## the inner loop: static checks and the units that start no server and no browser (three to four minutes)
	@$(BIN)/python -m pytest -q -n 2 -m "not (redis or ray or browser or prometheus or slow)" $(ARGS)

format: $(DEV) ## ruff's formatting and its safe fixes, in place
	@$(BIN)/ruff check --fix --quiet . && $(BIN)/ruff format --quiet .

lint: $(DEV) ## only the static checks: ruff, mypy, import rules, buf, stubs
	@$(BIN)/python -m pytest -q tests/architecture

stubs: $(DEV) ## compile protos/ into services/papa_serving/stubs/
	@$(BIN)/python protos/generate.py && echo "services/papa_serving/stubs is up to date"

docs: $(DEV) ## the documentation site, in build/site
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site && echo "open build/site/index.html"

generated: $(DEV) ## write the pages and files that are made from code: chart schema, dashboards, references in docs/
	@PYTHONPATH=. $(BIN)/python helm/generate.py && $(BIN)/python deploy/grafana/generate.py && PYTHONPATH=. $(BIN)/python docs/generate.py

lock: $(DEV) ## resolve pyproject.toml into requirements/*.txt (ARGS=--upgrade takes newer versions)
	@echo "==> resolving (a few minutes)" && $(BIN)/python requirements/lock.py $(ARGS)

system-packages: ## Debian packages for the checks that want a packaged Redis, Prometheus and Chromium (root)
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends redis-server prometheus prometheus-alertmanager chromium

clean: ## remove the virtual environment, caches and build folders; service data (papa-data) stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis demo-out

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; set PYTHON=/path/to/python" >&2; exit 1; }
	@echo "==> creating $(VENV) with $$($(PYTHON) --version)" && $(PYTHON) -m venv $(VENV)

$(SERVER): requirements/server.txt pyproject.toml | $(BIN)/python
$(DEV): requirements/dev.txt pyproject.toml | $(BIN)/python
$(SERVER) $(DEV):
	@echo "==> installing the locked packages of $< (a few minutes the first time)"
	@$(BIN)/python -m pip install --progress-bar off -r $< | $(COUNT)
	@$(BIN)/python -m pip install -qq --no-deps -e . && touch $@ && echo "==> installed"
