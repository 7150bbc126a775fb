# `make demo` runs the main job, `make test` passes the tests; both set up whatever is missing first.

PYTHON ?= python3
BIN = .venv/bin
SETUP = .venv/.installed

.PHONY: demo test setup

DEMO = Results/Pusher/PPD/demo

demo: setup
	$(BIN)/python Distillation/Pusher.py --PPD --mode ImpaalaMid --optimization_steps 2000 --test_every 200 \
	  --run_name demo --overwrite
	@echo; echo "The same student where every episode has another camera, light and colours, which it never saw:"
	@$(BIN)/python Distillation/Play.py $(DEMO) --views small --seeds 1900-1903 --video $(DEMO)/videos/views_small.mp4
	@echo; echo "Next, after . $(BIN)/activate:"
	@echo "  python Distillation/Play.py Results/Pusher/Students/DAgger-small.pt --views small --seeds 1900-1903   # a student that did see them"
	@echo "  python Distillation/Pusher.py --PPD --mode ImpaalaMid --views small --run_name mine                   # train one (hours)"
	@echo "  python Distillation/Check.py --task Reacher                                                           # look at another task"

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
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@
