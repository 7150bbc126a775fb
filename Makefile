# `make demo` runs the main job, `make test` passes the tests; both set up whatever is missing first.

PYTHON ?= python3
BIN = .venv/bin
SETUP = .venv/.installed

.PHONY: demo test setup

demo: setup
	$(BIN)/python Distillation/Pusher.py --PPD --mode ImpaalaMid --optimization_steps 2000 --test_every 200 \
	  --run_name demo --overwrite

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

setup: $(SETUP)
	@sh setup_gl.sh $(BIN)/python

$(SETUP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt -e '.[dev]'
	@touch $@
