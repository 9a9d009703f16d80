# Every way to start coprof, to test it and to look after the clone. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help run test lint bench bench-setup lock clean

# Arguments for the command behind a target: make run ARGS="--help", make test ARGS="-k flame"
ARGS ?=

# Tests and benchmarks find the tools of .venv first, node among them where the machine has none.
TOOLS := PATH="$$PWD/.venv/bin:$$PATH"

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

# exec: Ctrl-C and signals reach coprof itself, with no shell between.
run: ## install what is missing, profile this machine and show it in a browser
	@setup/prepare run && exec .venv/bin/coprof up $(ARGS)

# make turns every failure into 2; who needs pytest's own exit code names a file for it.
test: ## install what is missing and run all tests
	@setup/prepare test
	@$(TOOLS) .venv/bin/python -m pytest $(ARGS) $(if $(STATUS_FILE),; echo $$? >"$(STATUS_FILE)")

lint: ## ruff, its formatter and mypy
	@setup/prepare test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

bench-setup: ## install the peers that the benchmarks measure beside coprof
	@setup/prepare bench

bench: bench-setup ## measure coprof's own cost, short
	@$(TOOLS) exec .venv/bin/python benchmarks/overhead.py $(ARGS)

lock: ## write the lock files anew from pyproject.toml and package.json
	@setup/lock

clean: ## remove what set-up and tools made; stores stay
	@rm -rf .venv node_modules build *.egg-info .setup.log .setup.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
