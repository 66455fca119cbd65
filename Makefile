# Every target sets up what it needs: a bare Python 3.11 and a package index are enough.
# `make demo` installs less than `make test`; a second run of either installs nothing.

PYTHON := $(shell for python in python3.11 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint crosscheck clean

demo: .venv/.demo-stamp
	$(BIN)/ecgdiff demo

# One process per core; the tests of each keep to one thread.
test: lint
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4

lint: .venv/.test-stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/check_budgets.py
	$(BIN)/python .ci/check_imports.py

# The samplers against those of other libraries, which only this target installs.
crosscheck: .venv/.crosscheck-stamp
	$(BIN)/python -m pytest -q tests/crosscheck

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/.python:
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 with venv found; install python3.11 and python3.11-venv." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	touch $@

# torch alone first: only its pin decides which build comes.
.venv/.demo-stamp: .venv/.python pyproject.toml constraints.txt
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e '.[plot]'
	touch $@

.venv/.test-stamp: .venv/.demo-stamp
	$(PIP) -e '.[plot,train,ecg,data,dev]'
	touch $@

.venv/.crosscheck-stamp: .venv/.test-stamp
	$(PIP) -e '.[plot,train,ecg,data,dev,crosscheck]'
	touch $@
