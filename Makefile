# Every step of CI is a target here. `make` alone lists them.
# Needs git, make, bash and Python 3.11 or newer with venv; everything else is installed into .venv from the lock.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --root-user-action=ignore
STAMPS := $(VENV)/.stamps

# A folder is a package as soon as it has a pyproject.toml.
PROJECTS := $(sort $(wildcard libs/*/pyproject.toml services/*/pyproject.toml operator/pyproject.toml \
	cli/pyproject.toml demo/pyproject.toml bench/pyproject.toml delivery/pyproject.toml simulation/pyproject.toml \
	demo/mail-catcher/pyproject.toml argocd/git-server/pyproject.toml))
PACKAGES := $(patsubst %/pyproject.toml,%,$(PROJECTS))
SOURCES := $(addsuffix /src,$(PACKAGES))
PROTOS := $(shell find protos -name '*.proto')

# Given on the command line: make test ARGS="-k barrier -x", make soak SEEDS=100000
ARGS ?=
SEEDS ?= 10000

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##@ Set up

.PHONY: setup
setup: $(STAMPS)/local $(STAMPS)/proto ## Create .venv and install everything into it (nothing to do when nothing changed)
	@made_at=$$(sed -n 's/^command = .* -m venv //p' $(VENV)/pyvenv.cfg); \
	if [ -n "$$made_at" ] && [ "$$made_at" != "$(CURDIR)/$(VENV)" ]; then \
	  echo "$(VENV) was made at $$made_at and runs the sources of that folder: make clean, then again" >&2; exit 1; \
	fi

$(STAMPS)/venv:
	@tools/make-venv $(VENV)
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/locked: requirements.lock | $(STAMPS)/venv
	@echo "installing $$(grep -c '^[A-Za-z0-9].*==' requirements.lock) locked packages into $(VENV) ..."
	@$(PIP) --no-deps --require-hashes --requirement requirements.lock || { \
	  echo "The packages could not be installed. Is the package index reachable? PIP_INDEX_URL, pip's configuration" \
	    "and https_proxy say how it is reached." >&2; exit 1; }
	@touch $@

# One call without build isolation: the locked build tools are used, and it takes seconds.
$(STAMPS)/local: $(STAMPS)/locked $(PROJECTS)
	@echo "installing $(words $(PACKAGES)) local packages ..."
	@$(PIP) --no-build-isolation --no-deps $(addprefix --editable ,$(PACKAGES))
	@$(PY) -m compileall -q -j 0 $(SOURCES) libs/contracts/gen  # every process of the demo starts sooner
	@touch $@ $(STAMPS)/proto

$(STAMPS)/proto: $(PROTOS) libs/contracts/hatch_build.py | $(STAMPS)/local
	@$(PY) libs/contracts/hatch_build.py
	@touch $@

.PHONY: proto
proto: setup ## Generate Python code and descriptors from protos/
	@$(PY) libs/contracts/hatch_build.py
	@touch $(STAMPS)/proto

# A copy, so that nobody edits a file that Python no longer reads. Without a compiler it is empty, and the source is used.
COMPILED := $(VENV)/compiled
PY_COMPILED := PYTHONPATH=$(CURDIR)/$(COMPILED) $(PY)

.PHONY: compiled
compiled: $(COMPILED)/.done ## Compile the engine to machine code, for benchmarks and soak (needs gcc and Python's headers)

$(COMPILED)/.done: libs/saga/hatch_build.py $(shell find libs/saga/src -name '*.py') | setup
	@rm -rf $(COMPILED)
	@mkdir -p $(COMPILED)
	@$(PY) libs/saga/hatch_build.py $(COMPILED)
	@if ls $(COMPILED)/*.so >/dev/null 2>&1; then touch $@; fi

.PHONY: argocd-cm
argocd-cm: setup ## Write argocd/health/argocd-cm.yaml from the scripts beside it
	@$(PY) tools/argocd_cm.py

.PHONY: charts
charts: setup ## Write the charts' schemas and the page of their values, from charts/microservice
	@$(PY) tools/charts.py

.PHONY: asyncapi
asyncapi: setup ## Write the page of all events, and what the monitor knows of them, from protos/
	@$(PY) tools/asyncapi.py
	@$(PY) tools/event_contracts.py

.PHONY: openapi
openapi: setup ## Write the OpenAPI document of the gateway, from its operations and protos/
	@$(PY) tools/openapi.py

.PHONY: pictures
pictures: setup ## Draw docs/explanation/pictures from the import law, the charts and the engine
	@PYTHONPATH=tools $(PY) -m pictures

.PHONY: lock
lock: setup ## Resolve all dependencies again and write the lock files (keeps what still fits)
	@$(PY) tools/lock.py

.PHONY: clean
clean: ## Remove the virtual environment, generated code and caches (make down first; demo data stays in .amends)
	@rm -rf $(VENV) libs/contracts/gen dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

##@ Try it

.PHONY: demo
demo: setup ## Start the shop, tell the stories of saved orders, prove that the books balance, stop
	@$(PY) -m amends_demo demo $(ARGS)

.PHONY: up
up: setup ## Start the shop and leave it running
	@$(PY) -m amends_demo up $(ARGS)

.PHONY: down
down: setup ## Stop what `make up` started
	@$(PY) -m amends_demo down $(ARGS)

.PHONY: status
status: setup ## Show what runs, and on which ports
	@$(PY) -m amends_demo status $(ARGS)

.PHONY: logs
logs: setup ## Follow the logs of what runs
	@$(PY) -m amends_demo logs $(ARGS)

.PHONY: audit
audit: setup ## Check the books of the shop that runs, and name what is wrong
	@$(PY) -m amends_demo audit $(ARGS)

##@ Check

.PHONY: lint
lint: lint-python lint-imports lint-deps lint-protos breaking ## Style, import law, dependencies, contracts

.PHONY: lint-python
lint-python: setup ## Style and format of the Python code (ruff)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: lint-imports
lint-imports: setup ## The import law (.importlinter)
	@$(BIN)/lint-imports

.PHONY: lint-deps
lint-deps: setup ## Every package names what it imports, and imports what it names (deptry)
	@bad=0; for package in $(PACKAGES); do \
	  (cd $$package && $(CURDIR)/$(BIN)/deptry $$(ls -d src gen 2>/dev/null) --no-ansi --known-first-party "$$(ls src)" \
	    --package-module-name-map "$$(cat $(CURDIR)/tools/deptry-modules)" 2>&1) >$(STAMPS)/deptry.txt \
	  || { bad=1; sed -n "s|^.*: \(DEP[0-9]*\)|$$package: \1|p" $(STAMPS)/deptry.txt; }; \
	done; exit $$bad

.PHONY: lint-protos
lint-protos: setup ## Style of the contracts (buf lint, buf format)
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code

.PHONY: breaking
breaking: setup ## Contracts against the last release (or AGAINST=REVISION), those of events against all that may be in a log
	@BUF=$(BIN)/buf tools/buf-breaking $(AGAINST)
	@BUF=$(BIN)/buf PYTHONPATH=tools $(PY) -m event_rules $(AGAINST)

.PHONY: typecheck
typecheck: setup ## mypy --strict over every package
	@$(PY) -m mypy $(SOURCES) tools tests operator/tests examples/own-services/server.py

.PHONY: format
format: setup ## Format the Python code and the contracts
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .
	@$(BIN)/buf format --write

##@ Test

.PHONY: test
test: setup ## All tests but the slow ones, on two cores: three processes, because tests wait more than they compute
	@$(PY) -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder $(ARGS)

.PHONY: test-slow
test-slow: setup ## The tests that take minutes
	@$(PY) -m pytest -m slow $(ARGS)

.PHONY: test-whole
test-whole: setup ## The demo with its stories, a shop that heals itself, and the engine as machine code: they want both cores
	@$(PY) -m pytest -q -n 0 -m "slow or not slow" demo/tests/test_whole.py tests/compiled $(ARGS)

.PHONY: test-kubernetes
test-kubernetes: setup ## The operator, the charts and kubectl against a real API server (KUBEBUILDER_ASSETS names the folder of one)
	@$(PY) -m pytest -m kubernetes --numprocesses 2 --dist loadfile $(ARGS)

.PHONY: test-attacks
test-attacks: setup ## What a stranger may send, in turn, beside 20 honest sagas a second
	@$(PY) -m pytest -q -n 0 -m "slow or not slow" tests/attacks $(ARGS)

.PHONY: test-foreign
test-foreign: setup ## Contracts, dialects and servers that nobody here wrote (with servers in Go, Java and Node where these are installed)
	@$(PY) -m pytest -q -rs -n 0 -m "foreign or not foreign" tests/foreign cli/tests/test_foreign.py libs/saga/tests/test_contracts.py libs/saga/tests/test_presence.py $(ARGS)

.PHONY: test-browser
test-browser: setup ## A customer's whole way in a real browser, also while services are dead (needs chromium and chromedriver)
	@$(PY) -m pytest -q -rs -n 0 -m browser tests/browser $(ARGS)

.PHONY: screenshots
screenshots: setup ## Make the pictures of the shop's pages that the documentation shows (needs chromium and chromedriver)
	@mkdir -p docs/explanation/pages
	@AMENDS_SCREENSHOTS=docs/explanation/pages $(PY) -m pytest -q -rs -n 0 -m browser tests/browser -k "script and not no or dead"

.PHONY: test-kafka
test-kafka: setup ## All faults of events on a real Kafka: KAFKA_HOME names the folder of a distribution, and there is Java
	@$(PY) -m pytest -q -n 0 -m "faults or not faults" libs/events tests/shop tests/charts/test_kafka.py -k kafka $(ARGS)

.PHONY: test-kind
test-kind: setup ## The whole way on a real kind cluster with Argo CD, from a clone of what is committed (KEEP_KIND=1 keeps it)
	@$(PY) -m pytest -m kind -p no:randomly -s -v tests/kind $(ARGS)

.PHONY: soak
soak: setup compiled ## Live through SEEDS worlds of the simulation that go wrong (100000 take half an hour on two cores)
	@$(PY_COMPILED) -m amends_simulation --seeds $(SEEDS) --jobs 2 $(ARGS)
	@$(PY_COMPILED) -m amends_simulation --events --seeds $(SEEDS) --jobs 2 $(ARGS)

.PHONY: faults
faults: setup ## Every crash point, every pair of them, and all faults of real processes
	@$(PY) -m pytest tests/faults libs/events services/notifications -m "faults or not faults" $(ARGS)

.PHONY: mutants
mutants: setup ## Make small mistakes on purpose and count what tests notice (ARGS="--only engine", ARGS="--sample 30")
	@PYTHONPATH=tools $(PY) -m mutants $(ARGS)

.PHONY: ci
ci: ## What CI runs, from nothing
	@.ci/run

##@ Deliver

# Which: make images ONLY="orders payments", make ship SERVICE=payments, make affected BASE=main
ONLY ?=
SERVICE ?=
BASE ?= main
DELIVERY := $(PY) -m amends_delivery

.PHONY: images
images: setup ## Build the images whose inputs changed (ONLY="orders payments": these)
	@$(DELIVERY) images $(ONLY)

.PHONY: affected
affected: setup ## The deployables that differ from BASE (main), through libraries and contracts; ARGS=--why for the files
	@$(DELIVERY) affected $(BASE) $(ARGS)

.PHONY: test-affected
test-affected: setup ## The tests of what differs from BASE (main), and nothing else
	@folders=$$($(DELIVERY) affected --tests $(BASE)); $(PY) -m pytest --numprocesses 2 --dist loadfile $$folders $(ARGS)

.PHONY: kind-up
kind-up: setup ## From nothing to a healthy shop in a kind cluster with Argo CD; repeat it at any point
	@$(DELIVERY) kind-up

.PHONY: kind-down
kind-down: setup ## Remove the cluster and everything in it
	@$(DELIVERY) kind-down

.PHONY: kind-status
kind-status: setup ## What is deployed in kind, and how it is
	@$(DELIVERY) kind-status

.PHONY: kind-password
kind-password: setup ## The password of Argo CD's user admin
	@$(DELIVERY) kind-password

.PHONY: ship
ship: setup ## Build, load, commit and push one service (SERVICE=payments), and wait until it runs
	@$(DELIVERY) ship $(SERVICE)

##@ Measure

.PHONY: bench
bench: setup compiled bench-peers ## All benchmarks, under 25 minutes (ARGS=--list: their names, bench-NAME: one); writes docs/reference/performance.md
	@$(PY_COMPILED) -m amends_bench $(ARGS)

.PHONY: bench-quick
bench-quick: setup compiled ## A short form, under three minutes; fails when a ratio is worse than half of its target
	@$(PY_COMPILED) -m amends_bench --quick $(ARGS)

.PHONY: bench-peers
bench-peers: bench/.peers/.done ## Install what sagas are compared with, into a virtual environment of its own

bench/.peers/.done: bench/peers/requirements.txt
	@tools/make-venv bench/.peers
	@bench/.peers/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

# One target for each name in amends_bench's table: `make bench ARGS=--list` says what they measure.
BENCHES := sagas-vs-dbos sagas-vs-plain-calls with-barriers latency journal chassis-vs-grpc tls-vs-plain-text claims-vs-queue \
	operator-vs-kopf recovery barrier-transaction events projections search-apart choreographed-vs-orchestrated gateway-vs-framework page-of-parts growth
.PHONY: $(addprefix bench-,$(BENCHES))
$(addprefix bench-,$(BENCHES)): bench-%: setup compiled
	@$(PY_COMPILED) -m amends_bench $* $(ARGS)
bench-sagas-vs-dbos bench-claims-vs-queue bench-growth: bench-peers
