# Everything a person runs. Each target sets up what it needs on a Linux machine that has Python 3.11+ (and Node 20 for play).
PYTHON ?= python3
VENV := .venv
CUDA_VENV := .venv-cuda
BIN := $(VENV)/bin
# uv looks only where it is told for wheels that pip is configured to find.
export UV_FIND_LINKS ?= $(shell $(PYTHON) -m pip config list 2>/dev/null | sed -n "s/^global.find-links='\(.*\)'/\1/p")
# Who plays (in `duel` against you), and whose mind `view` shows: the bundled model to start from, or a run's folder.
AGENT ?= battle/starter
# Compiled modules are kept, whatever the machine's habit: else each process compiles some 3,000 files anew, for 4 s.
unexport PYTHONDONTWRITEBYTECODE
# Threads that wait give their core back: without it a busy machine trains many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: train play duel view test test-full gpu-dry-run lint hooks setup clean

train: $(VENV)/.ready
	$(BIN)/python -m trainer.train --config launch/runs/quickstart.yaml
	$(BIN)/python -m trainer.evaluate --checkpoint runs/quickstart --data data/sample
	$(BIN)/python -m battle.agents --checkpoint runs/quickstart --state launch/sample_state.json

play: $(VENV)/.ready battle/node_modules/.ready
	$(BIN)/python -m battle.evaluate --agent $(AGENT) --against all --formats gen1ou gen9ou --battles 20 \
		$(if $(filter runs/%,$(AGENT)),--json $(AGENT)/play.json)

duel: $(VENV)/.ready battle/node_modules/.ready
	$(BIN)/python -m battle.duel --agent $(AGENT) --out runs/duel

view: $(VENV)/.ready
	$(BIN)/python -m battle.view $(firstword $(wildcard data/sample/gen9ou/*)) --checkpoint $(AGENT) --out runs/battle.html

test: lint battle/node_modules/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

test-full: lint battle/node_modules/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --full --timeout 7200
	$(BIN)/python -m pytest -q --full --timeout 7200 -m gpu

# The host's side of a training step on an H100, where there is none (gcc, and some 6 GB for PyTorch's CUDA build).
gpu-dry-run: $(CUDA_VENV)/.ready
	$(CUDA_VENV)/stand_in/python -m tests.cuda_stand_in.dry_run

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos

hooks: $(VENV)/.ready
	$(BIN)/pre-commit install

setup: $(VENV)/.ready battle/node_modules/.ready

# An older Python is refused before it leaves an environment that a newer one would not replace.
$(VENV)/.ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python %d.%d is too old: install Python 3.11, then give make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt
	touch $@

$(CUDA_VENV)/.ready: requirements.txt $(wildcard tests/cuda_stand_in/*)
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/pip install --quiet uv
	env -u UV_FIND_LINKS $(CUDA_VENV)/bin/uv pip install --quiet --python $(CUDA_VENV)/bin/python -r requirements.txt
	$(CUDA_VENV)/bin/python tests/cuda_stand_in/build.py $(CUDA_VENV)/bin/python $(CUDA_VENV)/stand_in
	touch $@

battle/node_modules/.ready: battle/package-lock.json
	cd battle && npm ci --omit=optional --ignore-scripts --no-audit --no-fund --silent
	touch $@

clean:
	rm -rf $(VENV) $(CUDA_VENV) battle/node_modules runs .pytest_cache .ruff_cache
