# Everything a person or a CI job needs. `make` alone lists the targets; each installs what it needs into .venv first.

VENV := .venv
BIN := $(VENV)/bin
# Set PYTHON to choose the interpreter; otherwise the first of these that can make a virtual environment.
PYTHONS := $(or $(PYTHON),python3 python3.11 python3.12 python3.13 python3.14)
# Tests mostly wait. Each process has servers of its own; a file's tests stay together, because some share a stack.
SIDE_BY_SIDE = -n 3 --dist loadfile
# Images often set it. Every process would compile all modules anew then, and tests start hundreds: they took twice as long.
unexport PYTHONDONTWRITEBYTECODE
# More arguments for pytest: make test PYTEST_ARGS="-k limits -x"
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo up test check lint types contracts chaos storm soak failover rabbitmq overload simulate mutants bench docs site example generators wheel sbom clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

install: $(VENV)/.dev ## install everything, for work on the code, into .venv

demo: $(VENV)/.runtime ## three notifications to simulated people, start to end
	@$(BIN)/knocktwice demo

up: $(VENV)/.runtime ## the whole stack until Ctrl-C
	@$(BIN)/knocktwice up

example: $(VENV)/.runtime ## a coffee shop that notifies its customers, beside make up
	@$(BIN)/python docs/example/shop.py

test: $(VENV)/.dev ## all tests, against real servers that start by themselves
	$(BIN)/pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

check: $(VENV)/.dev ## what CI runs: lint, types, contracts, test
# One by one and to the end, so that one run shows everything that is wrong; the tests come last.
	@$(MAKE) --no-print-directory --keep-going --jobs=1 lint types contracts test

lint: $(VENV)/.dev ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

contracts: $(VENV)/.dev ## which module may import which
	$(BIN)/lint-imports

chaos: $(VENV)/.dev ## only the tests that kill workers and servers; with SECONDS=60 SEED=7 (FAULTS KINDS PER_S ONLY DEFAULTS=1) a storm before a judge
ifdef SECONDS
	@PYTHONPATH=tests $(BIN)/python -m oracle --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) \
	  $(if $(PER_S),--per-s $(PER_S)) $(if $(CROWD),--crowd $(CROWD)) $(if $(ONLY),--only "$(ONLY)") $(if $(KINDS),--kinds "$(KINDS)") $(if $(DEFAULTS),--defaults)
else
	$(BIN)/pytest tests/chaos $(PYTEST_ARGS)
endif

storm: ## a storm of a minute with 36 faults
	@$(MAKE) --no-print-directory chaos SECONDS=60 FAULTS=36 SEED=$(or $(SEED),11)

simulate: $(VENV)/.dev ## runs in which a seed decides who steps, stops and dies, before the same judge; RUNS=2000 SEED=1 JOBS=1
	@PYTHONPATH=tests $(BIN)/python -m simulation --runs $(or $(RUNS),2000) --seed $(or $(SEED),1) --jobs $(or $(JOBS),1) \
	  $(if $(ONLY),--only $(ONLY)) $(if $(PLAY),--play $(PLAY))

failover: $(VENV)/.dev ## the server that all work with is lost under load, again and again: OF=database|broker TIMES=20 SEED=1 (LOOSE=1)
	@PYTHONPATH=tests $(BIN)/python -m oracle.failover --of $(or $(OF),database) --times $(or $(TIMES),20) \
	  $(if $(SEED),--seed $(SEED)) $(if $(PER_S),--per-s $(PER_S)) $(if $(LOOSE),--loose)

rabbitmq: $(VENV)/.dev ## the leader of a queue in RabbitMQ is killed under load, again and again: TIMES=20
	@PYTHONPATH=tests $(BIN)/python -m oracle.rabbitmq_cluster --times $(or $(TIMES),20)

overload: $(VENV)/.dev ## a backlog that nobody works on, and workers that come to it late; MESSAGES=1000000 LIMIT=900000
	@PYTHONPATH=tests $(BIN)/python -m oracle.overload --messages $(or $(MESSAGES),1000000) $(if $(LIMIT),--limit $(LIMIT))

soak: $(VENV)/.dev ## an hour of ordinary traffic, measured every minute: does anything leak? SECONDS=3600 SEED=1 PER_S=8
	@PYTHONPATH=tests $(BIN)/python -m oracle.soak --seconds $(or $(SECONDS),3600) $(if $(SEED),--seed $(SEED)) $(if $(PER_S),--per-s $(PER_S))

mutants: $(VENV)/.dev ## does a test notice? breaks the program in small ways, one by one; ONLY=limits, or of its own choice SEED=7 COUNT=20
	@PYTHONPATH=tests $(BIN)/python -m mutants $(if $(ONLY),--only "$(ONLY)") $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT)) \
	  $(if $(RESULTS),--results "$(RESULTS)") $(if $(WITHIN),--within $(WITHIN))

bench: $(VENV)/.dev ## what it can do, measured here against the textbook; ONLY=pipeline,push QUICK=1 ROWS=10000000 JSON=file MARKDOWN=file
	@QUICK=$(QUICK) ROWS=$(ROWS) PYTHONPATH=tests $(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(JSON)) $(if $(MARKDOWN),--markdown $(MARKDOWN))

docs: $(VENV)/.dev ## write the parts of the documents that repeat the code
	$(BIN)/python docs/generate.py

generators: $(VENV)/.generators ## what makes clients of the OpenAPI document, and OneSignal's for Node (npm, pip; Go and a JDK by apt), for their tests

site: $(VENV)/.dev ## the documents as a site with search, in build/site; it needs no network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

wheel: $(VENV)/.dev ## the wheel of a release, in dist
	@$(PIP_WHEEL) --wheel-dir dist .

# Of what runs, not of what it is tested with.
sbom: $(VENV)/.dev ## the list of everything that an installation consists of (CycloneDX), in dist
	@$(BIN)/python -m venv --clear build/installation
	@build/installation/bin/python -m pip install --quiet --disable-pip-version-check '.[all]'
	@mkdir -p dist
	@$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --output-file dist/knocktwice.cdx.json \
	  build/installation/bin/python

clean: ## remove .venv, caches and builds; the embedded servers' data in .knocktwice stays
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find producer shared worker tests deploy docs -name __pycache__ -type d -prune -exec rm -rf {} +

# What runs needs less than what is worked on, and `make demo` should not keep anybody waiting.
$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@$(call install,all)
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing everything for work on the code into $(VENV) ..."
	@$(call install,dev)
	@touch $@ $(VENV)/.runtime

# Apart from everything else: the generator for Python wants another version of a library that we use.
GENERATORS := $(VENV)/generators
$(VENV)/.generators: Makefile | $(BIN)/python
	@mkdir -p $(GENERATORS) && echo '{"private": true, "type": "module"}' > $(GENERATORS)/package.json
	@cd $(GENERATORS) && npm install --silent --no-audit --no-fund --no-package-lock \
	  openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9.3 @types/node@20 \
	  @onesignal/node-onesignal@5.18.0 onesignal-node@3.4.0
	@$(BIN)/python -m venv $(GENERATORS)/python
	@$(GENERATORS)/python/bin/python -m pip install --quiet --disable-pip-version-check openapi-python-client==0.29.1 \
	  openapi-generator-cli==7.26.0
	@touch $@

# uv installs in seconds what takes pip a minute. It is the one on PATH or one that pip brings; where uv is not to be had,
# or does not reach the packages (it does not read pip.conf), pip does the whole work.
define install
uv=$$(command -v uv) \
  || { $(PIP) uv 2>/dev/null && uv=$(BIN)/uv; } || uv=; \
if [ -z "$$uv" ] || ! "$$uv" pip install --quiet --python $(BIN)/python -e '.[$(1)]' 2>/dev/null; then \
  echo "... with pip, which takes a minute or two"; $(PIP) -e '.[$(1)]'; \
fi
endef
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
PIP_WHEEL = $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation

$(BIN)/python:
	@for python in $(PYTHONS); do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    exec $$python -m venv --clear $(VENV); \
	  fi; \
	done; \
	for python in $(PYTHONS); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "$$python has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	  fi; \
	done; \
	echo "Python 3.11 or later is needed; tried: $(PYTHONS). Name yours: make PYTHON=/path/to/python3" >&2; exit 1
