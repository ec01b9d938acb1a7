# make demo | make test | make check | make docs | make clean. A second call repeats no installation.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTHON ?= python3.13 python3.12 python3.11 python3 python
WORKERS ?= 2
PYTEST_ARGS ?=

.PHONY: demo test check format docs lock clean
.NOTPARALLEL:

demo: $(VENV)/.package
	$(BIN)/ayatori demo

# One thread a worker: two workers with two threads each would only wait for one another.
test: $(VENV)/.package $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/.package $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.package $(VENV)/.test
	$(BIN)/sphinx-build -W -q docs docs/_build

lock: $(VENV)/.test
	$(BIN)/python dev/lock.py

clean:
	rm -rf $(VENV)

# Each stamp is written last, so that a broken installation is begun again.
$(VENV)/.made:
	@for python in $(PYTHON); do \
	  if $$python -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "$$python -m venv $(VENV)"; \
	    $$python -m venv --clear $(VENV) && touch $@; exit; \
	  fi; \
	done; \
	echo "Ayatori needs Python 3.11, 3.12 or 3.13 with its venv module, however none was found as: $(PYTHON);" \
	  "install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make demo PYTHON=/path/to/python" >&2; \
	exit 1

$(VENV)/.lock: requirements/lock.txt $(VENV)/.made
	$(PIP) install --requirement $<
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.lock
	$(PIP) install --requirement $<
	@touch $@

$(VENV)/.package: pyproject.toml $(VENV)/.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
