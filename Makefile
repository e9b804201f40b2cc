# Two commands for a machine with Python and make alone: `make demo` and `make test`.
# One environment, .venv, is made once and shared by every target.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin
# Threads of one process that has the machine to itself; parallel workers set their own.
# Passive waiting, because two OpenMP pools that spin on the same cores stall each other.
export OMP_WAIT_POLICY := passive

.PHONY: demo test check fast clean

demo: $(VENV)/.study
	$(RUN)/whatwhere compare --out runs/demo

fast: $(VENV)/.study
	$(RUN)/whatwhere compare --fast --out runs/fast

test: $(VENV)/.dev check
	OMP_NUM_THREADS=1 $(RUN)/pytest -n 2 --dist loadgroup

check: $(VENV)/.dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

clean:
	rm -rf $(VENV)

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.study: $(VENV)/.python pyproject.toml constraints.txt
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[study]"
	touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.study
