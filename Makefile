# Two lines are enough: `make run` and `make test`. Everything is installed into .venv, once.

SHELL := bash
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: run test lint install lock clean help

run: install ## first look: three rounds on the data that come with the software
	$(BIN)/screen run --task high-k --rounds 3

# Three at a time on two cores, for many of the flows' tests wait; the longest files come first. One
# thread each: PyTorch's threads get into each other's way where there are more of them than cores.
test: lint ## checks and all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=40

lint: install ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

install: ## the environment .venv, as locked; TORCH=cpu|cuda|skip chooses PyTorch
	@tools/environment.sh install

lock: ## requirements.lock anew, from the ranges in pyproject.toml
	@tools/environment.sh lock

clean: ## remove the environment and all caches here; campaigns stay
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 14
