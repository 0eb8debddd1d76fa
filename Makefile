# Needs only Python >= 3.11 with its venv module, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup up demo test simulate sensitivity lint format facade clean scale healing
.PHONY: simulate-raft monitor check-monitoring chaos

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything in it (again: under a second)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Pegel needs Python 3.11 or newer; run: make setup PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

up: $(STAMP) ## leave a three-broker cluster running on port 9092 until Ctrl-C
	@exec $(BIN)/pegel up --brokers 3 --base-port 9092

demo: $(STAMP) ## stream the standard library through three brokers, kill a leader, lose nothing
	@exec $(BIN)/python -m pegel_bench.demo

healing: $(STAMP) ## kill one of five brokers for good under load: what the rebuild costs the clients
	@$(BIN)/python -m pegel_bench.healing

scale: $(STAMP) ## the pure controller with 1,000 brokers and 100,000 partitions: CPU and memory
	$(BIN)/python -m tests.simulation.scale

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q

SEEDS ?= 1000
simulate: $(STAMP) ## break a simulated cluster in SEEDS=1000 ways; a failing seed is repeated by one command
	$(BIN)/python -m tests.simulation.cluster --seeds $(SEEDS)

simulate-raft: $(STAMP) ## random histories of the Raft core alone (SEEDS=1000)
	@$(BIN)/python -m tests.simulation.raft --seeds $(SEEDS)

.PHONY: model-raft
model-raft: $(STAMP) ## every state of small worlds of Raft, up to a million each
	@$(BIN)/python -m tests.simulation.raft.model --large

.PHONY: crash-points
crash-points: $(STAMP) ## every file of a node, torn and damaged at each byte; a crash at each disk call
	@$(BIN)/python -m tests.crash_points

.PHONY: fuzz
SECONDS ?= 60
fuzz: $(STAMP) ## hostile bytes to every listener and to our client (SECONDS=60)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --only-binary :all: --group fuzz \
		|| echo "no wheel of Atheris for this Python: without guidance by coverage"
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

sensitivity: $(STAMP) ## take each safeguard away in turn: who notices? writes the table of docs/correctness.md
	$(BIN)/python -m tests.simulation.cluster.sensitivity

monitor: $(STAMP) ## a cluster with Prometheus (and Grafana, where installed); FETCH=1 unpacks Debian's Prometheus
	@exec $(BIN)/python -m grafana.monitor $(if $(FETCH),--fetch)

check-monitoring: $(STAMP) ## dashboards, rules, alerts and the runbook against a real Prometheus, fetched where it is missing (minutes)
	PEGEL_FETCH_MONITORING_TOOLS=1 PEGEL_MONITORING_SCENARIOS=1 $(BIN)/python -m pytest -q tests/monitoring

ROUNDS ?= 20
SEED ?= 0
chaos: $(STAMP) ## break three real brokers under load, ROUNDS=20 times; chaos.html is the time line
	@exec $(BIN)/pegel chaos --rounds $(ROUNDS) --seed $(SEED) --html chaos.html

lint: $(STAMP) ## format check, rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

facade: $(STAMP) ## write the synchronous client from the asynchronous one
	$(BIN)/python -m tests.client.sync.generate

clean: ## remove what setup and tests made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
