PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test lint docs clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	touch $@

demo: $(INSTALLED)  ## clean a real data set: demo/clean.csv, demo/report.html
	OMP_NUM_THREADS=2 $(BIN)/python examples/demo.py demo

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/sphinx-build --quiet --fail-on-warning -b html docs docs/_build/html

test: lint docs  ## lint, types, docs, tests and doctests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

clean:
	rm -rf .venv demo docs/_build
