# make demo       sets up everything and runs the whole life of a training task on a local chain
# make test       sets up everything and runs the tests
# make check      formatting, lint and types, Python and Solidity
# make test-full  the heavy tests too
# make benchmarks TEXT=tinyshakespeare.txt   speed, quality, hashing, gas, ranks, rounds and scale, into benchmarks/results
# make analyse    Slither over the contracts and proofs by halmos of the libraries; docs/analysis.md
# make coverage   lines and branches of the contracts that forge's tests reach
# make wheel      dist/trainledger-….whl, with the compiled contracts in it: needs no Node where it is installed

PYTHON ?=
BIN := .venv/bin
SOLIDITY := 'contracts/**/*.sol'
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

SETUP := @PYTHON="$(PYTHON)" sh tools/setup.sh

.PHONY: demo setup setup-tools setup-python setup-node test test-full test-contracts test-python check analyse coverage benchmarks format wheel clean

setup: setup-python setup-node
	$(SETUP) contracts

setup-tools:
	$(SETUP) tools

setup-python: setup-tools
	$(SETUP) python

setup-node: setup-tools
	$(SETUP) node

demo: setup
	@$(BIN)/trainledger demo --home .demo

# Side by side: forge compiles its tests while the Python packages are installed.
test:
	@$(MAKE) --no-print-directory --jobs=2 test-contracts test-python

test-contracts: setup-node
	forge test
	hardhat test

# Three processes keep two cores busy, since tests wait for processes of their own. Files in their order: sorted by their
# number of tests, those of one long test would come last, the other processes idle.
test-python: setup
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not full"

test-full: setup
	FOUNDRY_PROFILE=full forge test
	hardhat test
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	forge fmt --check
	solhint --max-warnings 0 $(SOLIDITY)

# Environments of their own: their packages clash with the project's, and Slither has another licence. What they build
# lies apart too, because Slither empties its folder first.
ANALYSIS := build/analysis
ANALYSIS_PYTHON := $(or $(PYTHON),python3)

$(ANALYSIS)/slither/bin/slither:
	$(ANALYSIS_PYTHON) -m venv $(ANALYSIS)/slither
	$(ANALYSIS)/slither/bin/python -m pip install --quiet slither-analyzer==0.11.6

# This version counts the bits of what SHA-256 is given as bytes.
$(ANALYSIS)/halmos/bin/halmos:
	$(ANALYSIS_PYTHON) -m venv $(ANALYSIS)/halmos
	$(ANALYSIS)/halmos/bin/python -m pip install --quiet halmos==0.3.3
	sed -i.bak 's/BitVecSorts\[arg_size\], BitVecSort256/BitVecSorts[8 * arg_size], BitVecSort256/' \
		$(ANALYSIS)/halmos/lib/python3*/site-packages/halmos/sevm.py

analyse: setup-node $(ANALYSIS)/slither/bin/slither $(ANALYSIS)/halmos/bin/halmos
	FOUNDRY_OUT=$(ANALYSIS)/out FOUNDRY_CACHE_PATH=$(ANALYSIS)/cache $(ANALYSIS)/slither/bin/slither . \
		--compile-force-framework foundry --filter-paths 'contracts/test|contracts/mocks|node_modules' \
		--exclude-low --exclude-informational --exclude-optimization --fail-medium
	FOUNDRY_PROFILE=symbolic $(ANALYSIS)/halmos/bin/halmos --forge-build-out build/analysis/symbolic/out --loop 40 --no-status

# Code for coverage is compiled almost without the optimizer, so that each instruction belongs to one line.
coverage: setup-node
	FOUNDRY_PROFILE=coverage forge coverage --ir-minimum --no-match-coverage 'contracts/(test|mocks)|node_modules'

# An hour and a half or so, most of it for `quality.py` and those of rounds; leave the machine alone meanwhile.
benchmarks: setup
	@test -f "$(TEXT)" || { echo "Name a text to train on: make benchmarks TEXT=tinyshakespeare.txt"; exit 2; }
	$(BIN)/python benchmarks/training_speed.py --text "$(TEXT)" --folder build/libraries
	$(BIN)/python benchmarks/training_memory.py --text "$(TEXT)" --folder build/libraries
	$(BIN)/python benchmarks/hashing.py --text "$(TEXT)" --folder build/libraries
	$(BIN)/python benchmarks/gas.py
	$(BIN)/python benchmarks/arithmetic_gas.py
	$(BIN)/python benchmarks/referee_gas.py
	$(BIN)/python benchmarks/dispute_gas.py --folder build/libraries
	$(BIN)/python benchmarks/rank_traffic.py
	$(BIN)/python benchmarks/scale.py --folder build/libraries
	$(BIN)/python benchmarks/dispute_trace.py --text "$(TEXT)" --folder build/libraries
	$(BIN)/python benchmarks/audit_cost.py --text "$(TEXT)" --folder build/libraries
	$(BIN)/python benchmarks/smollm2_step.py --folder build/libraries
	$(BIN)/python benchmarks/quality.py --text "$(TEXT)" --folder build/libraries
	$(BIN)/python benchmarks/rounds_quality.py --text "$(TEXT)" --folder build/libraries
	$(BIN)/python benchmarks/rounds_warm.py --text "$(TEXT)" --folder build/libraries
	$(BIN)/python benchmarks/rounds_causes.py --text "$(TEXT)"

wheel: setup
	$(BIN)/python -c 'from ledger.compile import export_artifacts; export_artifacts()'
	$(BIN)/python -m hatchling build -t wheel

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	forge fmt

clean:
	rm -rf build cache out artifacts dist .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
