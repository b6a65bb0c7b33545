# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

# Everything runs in a virtual environment of its own, .venv, made on first use
# with the Python that bin/find-python finds (PYTHON=... names another).

VENV := .venv
RUN := $(VENV)/bin/python
# Newer than pyproject.toml if the installed packages are those that it requires.
INSTALLED := $(VENV)/installed
# The same for the packages of the benchmarks.
BENCHMARKS_INSTALLED := $(VENV)/benchmarks-installed
# Processes that run tests in parallel.  Each has one thread: more threads are
# slower on images as small as those of the tests.
TEST_JOBS ?= 2
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
TEST = $(ONE_THREAD) $(RUN) -m pytest -n $(TEST_JOBS) --dist loadfile

.PHONY: help demo test test-quick lint docs train bench-quality bench-scale clean

help:
	@echo "make demo        simulate 8 visits, restore the patch they cover, show the result in demo/"
	@echo "make test        check style and types, run all tests (10 minutes on 2 cores)"
	@echo "make test-quick  the same without slow tests (3 minutes on 2 cores)"
	@echo "make lint        check style and types only"
	@echo "make docs        build the documentation: doc/_build/html/index.html"
	@echo "make train       train the network on simulated skies and write the weights that the package ships;"
	@echo "                 resumes if interrupted (an hour on 2 cores; TRAIN='--version NAME --folder DIR' and"
	@echo "                 other options of python -m lsst.drp.restore.training)"
	@echo "make bench-quality  compare restored coadds with other methods, on simulated fields and on real"
	@echo "                 exposures: a table, and figures in benchmarks/results/ (30 minutes)"
	@echo "make bench-scale  time and memory of a patch of 33 exposures of 4200x4200 pixels by stage, their"
	@echo "                 growth, and other methods (2 hours, 12 GB of disk; SCALE='--size 1200' is smaller)"
	@echo "make clean       remove .venv, demo and everything built"
	@echo "PYTHON=/path/to/python chooses the Python (3.12 or 3.13) that .venv is made with."

demo: $(INSTALLED)
	$(RUN) bin/demo

test: lint
	$(TEST)

test-quick: lint
	$(TEST) -m "not slow"

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m mypy

# Any warning is an error.
docs: $(INSTALLED)
	$(RUN) -m sphinx -W --keep-going -q -b html doc doc/_build/html
	@echo "doc/_build/html/index.html"

# The weights that the package ships, from seeds.
train: $(INSTALLED)
	$(RUN) -m lsst.drp.restore.training $(TRAIN)

bench-quality: $(BENCHMARKS_INSTALLED)
	$(RUN) -m benchmarks.quality

bench-scale: $(BENCHMARKS_INSTALLED)
	$(RUN) -m benchmarks.scale $(SCALE)

$(BENCHMARKS_INSTALLED): $(INSTALLED)
	@echo "Installing the methods that the benchmark compares with"
	@$(RUN) -m pip install -qq --disable-pip-version-check --editable '.[benchmarks]' || \
	    echo "STARRED could not be installed: its row will say so"
	@touch $@

$(INSTALLED): pyproject.toml
	@if ! $(RUN) -c "import pip" 2>/dev/null; then \
	    python=$$(bin/find-python) || exit 1; \
	    echo "Creating $(VENV) with $$python"; \
	    "$$python" -m venv --clear $(VENV) || exit 1; \
	fi
	@echo "Installing the package and its dependencies into $(VENV) (a few minutes, about 3 GB)"
	@$(RUN) -m pip install -qq --disable-pip-version-check --editable '.[bps,docs,test]'
	@touch $@

clean:
	rm -rf $(VENV) demo benchmarks/results build dist doc/_build doc/lsst.drp.restore/api python/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
