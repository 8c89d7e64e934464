# Two commands on a fresh machine: `make demo`, `make test`. Both set up .venv with the versions of constraints.txt, which
# the suite passed with; it is re-used while it is up to date. `make test-latest` takes the newest versions that
# pyproject.toml admits, in a second environment, and `make lock` writes those down once the suite passes with them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LATEST := .venv-latest
# Tests run in this many processes, each with one thread.
WORKERS ?= 2
CHANGES ?= 200
SEED ?= 0
PYTEST := python -m pytest -n $(WORKERS)
CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	{ echo "Python 3.11 to 3.13 is needed; set PYTHON=python3.11"; exit 1; }

# `make bench CIFAR=DIR STORIES=DIR TEXT=FILE` where these are at hand; BENCH has further options of the command.
# `make paper` takes the same, and PUBLISHED=DIR: the paper's networks, as import_published wrote them.
CIFAR ?=
STORIES ?=
TEXT ?=
PUBLISHED ?=
BENCH ?=
PAPER ?=

.PHONY: demo test coverage mutation bench paper test-latest lock lint clean

demo: $(VENV)/installed
	$(BIN)/python -m experiments.run experiment=demo

test: $(VENV)/installed-dev
	$(BIN)/$(PYTEST)

# Lines of libcore that its own tests execute; fails under 95 %.
coverage: $(VENV)/installed-dev
	$(BIN)/$(PYTEST) tests/libcore tests/parity --cov --cov-report=term

# Which of a sample of single changes of libcore its own tests do not notice; CHANGES and SEED choose the sample.
mutation: $(VENV)/installed-dev
	$(BIN)/python -m tests.mutation --seed $(SEED) --n $(CHANGES) --jobs $(WORKERS)

bench: $(VENV)/installed
	$(BIN)/python -m experiments.benchmark stages $(if $(CIFAR),--cifar $(CIFAR)) $(if $(STORIES),--stories $(STORIES)) \
		$(if $(TEXT),--text $(TEXT)) $(BENCH)

paper: $(VENV)/installed
	$(BIN)/python -m experiments.reproduce $(if $(CIFAR),--cifar $(CIFAR)) $(if $(STORIES),--stories $(STORIES)) \
		$(if $(TEXT),--text $(TEXT)) $(if $(PUBLISHED),--published $(PUBLISHED)) $(PAPER)

test-latest:
	$(CHECK_PYTHON)
	test -x $(LATEST)/bin/python || $(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet --upgrade torch torchvision
	$(LATEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[dev]'
	$(LATEST)/bin/$(PYTEST)

# Names and versions alone: no addresses, no local builds, nothing of this project or of the installer.
lock: test-latest
	$(LATEST)/bin/python -m pip list --format=freeze --exclude-editable \
		| sed -e 's/+.*//' -e '/^\(pip\|setuptools\|wheel\|local-interaction-basis\)==/d' > constraints.txt

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# A plain torch and torchvision first, so that pip settles on builds that belong together before anything else asks.
$(VENV)/installed: pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(LATEST) *.egg-info
