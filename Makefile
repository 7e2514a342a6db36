# Needs Python 3.11+ and pip, nothing else: everything goes into a private virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run test lint bench accuracy soak fuzz faults lock clean

run: $(VENV)/.run  ## the agent on a simulated site
	@$(BIN)/edge-agent demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev  ## speed and memory, as ratios measured side by side
	$(BIN)/python -m tests.benchmarks $(ARGS)

accuracy: $(VENV)/.dev  ## error rates on real data
	$(BIN)/python -m tests.accuracy $(ARGS)

soak: $(VENV)/.dev  ## load over time; ARGS="--minutes 30"
	$(BIN)/python -m tests.soak $(ARGS)

fuzz: $(VENV)/.dev $(VENV)/.fuzz  ## every codec; ARGS="--seconds 60"
	$(BIN)/python -m tests.fuzz $(ARGS)

faults: $(VENV)/.dev  ## kills, torn writes, full disks, the long form; ARGS="--kills 1000"
	$(BIN)/python -m tests.faults $(ARGS)

lock: $(VENV)/.dev  ## rewrite the pinned requirements
	deploy/lock.sh $(BIN)/uv

clean:
	rm -rf $(VENV) var

$(VENV)/bin/python:
	deploy/bootstrap.sh $(PYTHON) $(VENV)

$(VENV)/.run: $(VENV)/bin/python requirements.txt requirements-build.txt
	@test -e $(VENV)/.dev || deploy/install.sh $(BIN)/python requirements.txt
	@$(MAKE) -s $(VENV)/.self
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python requirements-dev.txt requirements-build.txt
	deploy/install.sh $(BIN)/python requirements-dev.txt -q
	@$(MAKE) -s $(VENV)/.self
	@touch $@

# The project itself: importable from the checkout, with the `edge-agent` command beside it.
$(VENV)/.self: pyproject.toml deploy/link_checkout.py
	@$(BIN)/python deploy/link_checkout.py
	@touch $@

$(VENV)/.fuzz: requirements-fuzz.txt
	deploy/install.sh $(BIN)/python requirements-fuzz.txt -q
	@touch $@
