# The two commands: `make demo` runs the whole loop on this machine, `make test` proves it.
.PHONY: help demo test setup setup-dev check format bench simulate mutants lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     set up, then run the whole loop here: upload, events, dispatch, training, gate, rollout"
	@echo "make test     set up, then run every check and test"
	@echo "make setup    set up only; afterwards .venv/bin/signalbox is there"
	@echo "make check    format, lint, types and import rules, without tests"
	@echo "make format   write the format that make check wants"
	@echo "make bench    measure cold start, group commit and the memory of a data check and of a large window, as ratios (docs/benchmarks.md)"
	@echo "make simulate SEED=1 N=1000   run N simulated histories from that seed on (docs/simulation.md)"
	@echo "make mutants  break the deciding code on purpose and list what no test notices (docs/mutants.md)"
	@echo "make lock     pin the requirements anew (needs the network)"
	@echo "make clean    remove what set-up and runs have made"

setup:
	@scripts/setup local

setup-dev:
	@scripts/setup dev

demo: setup
	@.venv/bin/signalbox demo

test: setup-dev
	@scripts/check
	@.venv/bin/python -m pytest -n 2 --dist loadfile

check: setup-dev
	@scripts/check

format: setup-dev
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: setup-dev
	@.venv/bin/python bench/cold_start.py
	@.venv/bin/python bench/group_commit.py
	@.venv/bin/python bench/large_file.py
	@.venv/bin/python bench/large_window.py

SEED ?= 1
N ?= 1000
simulate: setup-dev
	@scripts/simulate $(SEED) $(N)

mutants: setup-dev
	@.venv/bin/python scripts/mutants

lock: setup-dev
	@scripts/lock

clean:
	rm -rf .venv node_modules .signalbox build mutants
