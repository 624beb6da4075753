# Everything is set up on demand: `make demo` and `make test` need Debian (or any Linux with Docker), Python 3.11 and make.
SHELL := /bin/bash
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-asterisk lint format venv serve check-config bench speech \
        asterisk-up asterisk-down asterisk-logs asterisk-cli clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## one real phone call with a voice agent, talked through: no key, no phone
	@scripts/demo.sh $(BIN)/python

test: ## everything CI checks: lint, types, tests on this and the newest other Python, the real Asterisk
	@scripts/test.sh

test-quick: $(READY) ## the tests without Asterisk (seconds)
	@$(BIN)/python -m pytest -q

test-asterisk: $(READY) ## the tests against the real Asterisk
	@scripts/asterisk_ring.sh $(BIN)/python

lint: $(READY) ## ruff and mypy --strict
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(READY) ## let ruff format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

serve: $(READY) ## run the bridge with bridge.toml (OPENAI_API_KEY in the environment)
	@$(BIN)/realtime-bridge serve

check-config: $(READY) ## check bridge.toml and print every effective setting
	@$(BIN)/realtime-bridge check-config

bench: $(READY) ## how many calls one process holds here (a few minutes; see bench/README.md)
	@$(BIN)/realtime-bridge bench --find

asterisk-up: ## start the local Asterisk (Docker; see asterisk/README.md)
	@asterisk/asterisk.sh up

asterisk-down: ## stop it, and the Docker engine if we had to start one
	@asterisk/asterisk.sh down && asterisk/asterisk.sh engine-stop

asterisk-logs: ## follow its log
	@asterisk/asterisk.sh logs -f

asterisk-cli: ## its command line
	@asterisk/asterisk.sh cli

speech: ## make the simulators' speech and the bridge's own sounds again (needs espeak-ng and sox)
	@simulators/phrasebook/make_speech.sh
	@scripts/make_sounds.sh

venv: $(READY) ## the Python environment, in .venv

$(READY): pyproject.toml constraints.txt
	@scripts/venv.sh $(PYTHON) $(VENV)

clean: ## remove everything that was built here
	@asterisk/asterisk.sh down 2>/dev/null; asterisk/asterisk.sh engine-stop 2>/dev/null; rm -rf .venv .venv-* build
