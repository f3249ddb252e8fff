# Two commands matter: `make search` and `make test`. Both set up everything they need on a machine with Python 3.11+.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: search test test-system test-cluster lint bench clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,plots]'
	touch $@

search: $(STAMP)   ## the embedded search: generated skeletons, two methods, a best.yaml
	$(BIN)/skeltune search

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(STAMP) lint   ## quick tests on all cores, then the system tests one by one
	$(BIN)/python -m pytest -q -n auto -m "not system and not cluster"
	$(BIN)/python -m pytest -q -m system

test-system: $(STAMP)   ## every system test, with two hundred kills a kind without Ray and ten with it; about half an hour
	SKELTUNE_KILLS=10 $(BIN)/python -m pytest -q -m system

test-cluster: $(STAMP)   ## as root: real hosts in namespaces (iproute2, openssh, rsync; slurm-wlm and munge for SLURM); half an hour
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,plots,cluster]'
	$(BIN)/python -m pytest -q -s -m cluster

bench: $(STAMP)   ## ratios only; results are filed under benchmarks/results/
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.generator

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
