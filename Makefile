# amalgam: `make demo` shows it, `make test` proves it; both set up what they need by themselves.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: setup demo test check bench chaos fmt backtest detection lock clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
DATA ?= handbook.parquet
SPREAD := -n auto --dist loadscope
# bytecode is kept, whatever the surroundings say: tests start hundreds of processes
export PYTHONDONTWRITEBYTECODE :=

setup: $(STAMPS)/core $(STAMPS)/mlp  ## everything, the neural families too

# uv installs in seconds what pip takes minutes for; pip brings it where it is absent
$(STAMPS)/uv:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))" || { echo "needs Python 3.11: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5,<1"
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/core: $(STAMPS)/uv pyproject.toml deploy/requirements.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r deploy/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	$(BIN)/python -m deploy.warm
	@touch $@

$(STAMPS)/mlp: $(STAMPS)/core deploy/requirements-mlp.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r deploy/requirements-mlp.txt
	@touch $@

demo: $(STAMPS)/core  ## five banks on a real Kafka, live, then a final table
	$(BIN)/amalgam demo

test: $(STAMPS)/core $(STAMPS)/mlp  ## everything, a real Kafka and the neural families included
	$(BIN)/python -m pytest $(SPREAD) -m "not integration"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "integration and not long"

check: $(STAMPS)/core  ## format, lint, types, tests without a broker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q $(SPREAD) -m "not integration and not slow"

bench: $(STAMPS)/core  ## what a payment costs, piece by piece and beside the peers
	$(BIN)/python -m deploy.bench

chaos: $(STAMPS)/core  ## a hundred faults under load on a real Kafka: nothing lost, nothing learnt twice
	$(BIN)/python -m deploy.chaos --results deploy/bench/results/chaos.json
	$(BIN)/python -m pytest -m long

backtest: $(STAMPS)/core  ## the Handbook's data through the consortium, figures and report
	$(BIN)/amalgam backtest $(DATA) --mapping deploy/mappings/handbook.toml --split handbook \
	  --scored-from 2018-07-15 --scored-to 2018-09-30 \
	  --results deploy/bench/results/backtest.json --report .amalgam/backtest.html

detection: $(STAMPS)/mlp  ## every plan on three splits of the Handbook's data, and foreign data: 70 minutes
	$(BIN)/python -m deploy.detection --handbook $(DATA) --foreign \
	  --results deploy/bench/results/detection.json --report .amalgam/detection.html

fmt: $(STAMPS)/core  ## format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LOCK := compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 \
  --generate-hashes --no-header --no-annotate --no-emit-index-url

lock: $(STAMPS)/uv  ## pin anew what pyproject.toml allows; with UPGRADE=--upgrade the newest
	$(BIN)/uv pip $(LOCK) $(UPGRADE) -o deploy/requirements.txt
	$(BIN)/uv pip $(LOCK) $(UPGRADE) --extra mlp -c deploy/requirements.txt -o deploy/requirements-mlp.txt

clean:  ## remove what setup and the demo made here
	rm -rf $(VENV) .amalgam
