# Every target makes what it needs: on a fresh machine with Python 3.11 and make, `make demo` or `make test` is the first command.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
BENCHMARKS := accuracy crossover reductions losses conditionals busy retrieval ranks targets
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.ready-docs
MIN_VENV ?= .venv-min
MIN_READY := $(MIN_VENV)/.ready
MIN_TESTS := $(addprefix tests/test_,$(addsuffix .py,scores model losses training resume serialization priors \
	conditional conditional_inference_data retrieval_library retrieval_index datasets datasets_ocean \
	assimilation_output assimilation_readers assimilation_readers_tracks cli cli_config cli_use \
	hub sklearn training_loggers))

# Pinned versions hold for what is installed and for what builds it.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo ocean torus test test-all coverage test-min release-check lint docs docs-check docs-links bench clean

help:
	@echo "make demo      fit images and labels on real digits; tables and a figure in results/mnist-digits"
	@echo "make torus     flows retrieved from trajectories, with posteriors; tables and figures in results/torus"
	@echo "make ocean     map currents from drifters in a made-up sea; tables, figures and posterior.nc in results/ocean-vortices"
	@echo "make test      the test suite (under 10 minutes on 2 cores)"
	@echo "make test-all  the same with the slow tests"
	@echo "make coverage  how much of probcl/ the fast tests run; fails below 95%"
	@echo "make test-min  the tests of the core with the lowest versions that are allowed, in $(MIN_VENV)"
	@echo "make release-check  build the wheel, and try it in empty environments without and with every extra"
	@echo "make lint      ruff and mypy"
	@echo "make docs      the documentation, strictly, into docs/_build/html"
	@echo "make docs-check  the documentation in a browser: links, phone width, console, accessibility (needs Chromium)"
	@echo "make docs-links  the links of the documentation to other sites (needs the network)"
	@echo "make bench     the benchmarks, side by side with others, into results/benchmarks (best on a quiet machine)"
	@echo "make clean     remove everything the targets above have made"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	@touch $@

demo: $(READY)
	$(BIN)/python -m applications.mnist --data digits

torus: $(READY)
	$(BIN)/python -m applications.torus

ocean: $(READY)
	$(BIN)/python -m applications.ocean

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

coverage: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow" --cov

$(MIN_READY): pyproject.toml constraints-min.txt
	$(PYTHON) -m venv $(MIN_VENV)
	PIP_CONSTRAINT=$(CURDIR)/constraints-min.txt $(MIN_VENV)/bin/python -m pip install --quiet \
		--editable ".[arviz,dask,faiss,hub,parquet,tensorboard,zarr]" beartype hypothesis pytest pytest-timeout
	@touch $@

test-min: $(MIN_READY)
	$(MIN_VENV)/bin/python -m pytest -m "not slow" $(MIN_TESTS)

release-check: $(READY)
	$(BIN)/python tests/release/check.py

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(DOCS_READY)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

docs-check: docs
	$(BIN)/python -m pip install --quiet --editable ".[docs-check]"
	$(BIN)/python docs/check_site.py

# The pages as they were read for the site: nothing is run again.
docs-links: docs
	$(BIN)/python -m sphinx -b linkcheck -d docs/_build/html/.doctrees docs docs/_build/links

bench: $(READY)
	@for question in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$question || exit 1; done

clean:
	rm -rf $(VENV) $(MIN_VENV) docs/_build docs/api docs/gallery results .pytest_cache .mypy_cache .ruff_cache .hypothesis
