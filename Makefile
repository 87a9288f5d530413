PYTHON ?= python3
BIN := .venv/bin
# Every process of the tests that starts anew loads compiled modules, also where the shell says not to keep them.
export PYTHONDONTWRITEBYTECODE :=
INSTALLED := .venv/installed
# Compared with in the tests. Resolved by pip they would replace NumPy or torch, so they come without what they ask for;
# the small packages that they import are in the extra `test`.
PEERS := aum==1.0.2 captum==0.9.0 einconv==0.1.0 kronfluence==1.0.1 pydvl==0.10.0 'more-itertools>=9' \
	'pydeprecate>=0.3.2,<0.4'
# One file for each part that everything else stands on, and what sees a wrong name or a wrong import.
QUICK := tests/test_architecture.py tests/test_data.py tests/test_selection.py tests/test_noise.py \
	tests/test_distributions.py tests/engine/test_kernel.py tests/engine/test_last_layer.py tests/engine/test_blocks.py \
	tests/model/test_linear.py tests/attribution/test_complexity_gap.py tests/attribution/test_inner_product.py \
	tests/cleaning/test_pruner.py

# What sees a package that is too old: the quick tests, and what reads files, draws, and speaks to a user.
OLD := $(QUICK) tests/test_cli.py tests/test_doctor.py tests/test_displays.py tests/test_formats.py

.PHONY: help test tests quick lint docs linkcheck fuzz coverage minimum release demo gpu gpu-wheels clean

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	$(BIN)/python -m pip install --quiet --no-deps $(PEERS)
	touch $@

test: $(INSTALLED)  ## lint, types, docs, tests and doctests: what CI runs
	$(MAKE) --jobs=3 lint docs tests

tests: $(INSTALLED)  ## tests and doctests alone
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

quick: lint  ## lint, types and the fastest tests of every part, in a minute
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -q $(QUICK)

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)  ## these pages, in docs/_build/html
	$(BIN)/sphinx-build --quiet --jobs=2 --fail-on-warning -b html docs docs/_build/html

linkcheck: docs  ## the links of these pages to other places, which needs a network
	$(BIN)/sphinx-build --quiet -b linkcheck docs docs/_build/linkcheck

fuzz: $(INSTALLED)  ## an hour of tables, labels, weights and files that nobody has thought of
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --timeout=0 --hypothesis-profile=long tests/fuzz

coverage: $(INSTALLED)  ## the lines that no test runs, in htmlcov/
	$(BIN)/python -m pip install --quiet 'pytest-cov>=6'
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -q --cov=sktda --cov-report=html --cov-report=term:skip-covered

minimum:  ## the quick suite with the lowest versions that pyproject.toml allows, in an environment of its own
	$(PYTHON) -m venv --clear .venv-minimum
	.venv-minimum/bin/python -m pip install --quiet --constraint constraints-minimum.txt \
		--editable '.[shell,report,heic,progress,cluster]' pytest pytest-timeout pytest-xdist hypothesis
	# string views are written by the test itself, with a PyArrow that has them
	OMP_NUM_THREADS=1 .venv-minimum/bin/pytest -n 2 -q -W ignore::DeprecationWarning -k 'not string_view' $(OLD)

release: test minimum  ## build a release into dist/ and check it; SITE=address of the docs (see docs/release.md)
	$(BIN)/python -m pip install --quiet 'build>=1.2' 'twine>=6.1'
	$(BIN)/python .ci/release.py --site '$(SITE)'

demo: $(INSTALLED)  ## clean a real data set: demo/clean.csv, demo/report.html
	OMP_NUM_THREADS=2 $(BIN)/python examples/demo.py demo

gpu:  ## tests and figures of a borrowed GPU into OUT=folder, in ten minutes; needs no .venv (see docs/gpu.md)
	$(PYTHON) benchmarks/shared/gpu_kit.py --out '$(OUT)' $(if $(WHEELS),--wheels '$(WHEELS)') $(if $(SIMULATE),--simulate)

gpu-wheels:  ## what `make gpu` needs on a machine of Python PY=3.12, into WHEELS=folder
	$(PYTHON) benchmarks/shared/gpu_kit.py --download $(or $(PY),3.12) --wheels '$(WHEELS)'

clean:  ## remove what was made
	rm -rf .venv .venv-minimum demo dist docs/_build docs/gallery htmlcov .coverage
