# Every target needs a Python from 3.11 to 3.14 and the package registry, nothing else.
# `make demo PYTHON=/path/to/python` names the Python; otherwise the first of these that runs makes .venv/.
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON ?= python3.14 python3.13 python3.12 python3.11 python3
VENV := .venv
DONE := $(VENV)/.installed
DOCS_DONE := $(VENV)/.installed-docs
LINKS := build/typing/effivmt_flows build/typing/effivmt_tasks
INSTALL := $(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable
# A version manager puts commands on the PATH that do not run, and Debian's python3 comes without ensurepip.
USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))

.PHONY: demo repro test trust bench lint audit docs wheel clean

$(VENV)/bin/python:
	@for python in $(PYTHON); do \
	    if "$$python" -c '$(USABLE)' 2>/dev/null; then \
	        echo "making $(VENV) with $$("$$python" --version)"; exec "$$python" -m venv $(VENV); \
	    fi; \
	done; \
	echo "error: no working Python 3.11 to 3.14 with venv among: $(PYTHON); name one: make demo PYTHON=/path/to/python (Debian, Ubuntu: apt install python3-venv)" >&2; \
	exit 1

$(DONE): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) ".[dev]"
	touch $@

$(DOCS_DONE): $(DONE)
	$(INSTALL) ".[docs]"
	touch $@

# One transfer on a sample clip with two target prompts; writes under out/demo/.
demo: $(DONE)
	$(VENV)/bin/effivmt demo --out out/demo --store out/demo/store

# Everything that dvc.lock records, over data/catalog.csv; what the store has is not computed again.
repro: $(DONE)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" dvc repro

test: $(DONE)
	$(VENV)/bin/python -m pytest

# All of tests/trust/, and a line for each area at the end; some tests need root, to mount small disks.
trust: $(DONE)
	$(VENV)/bin/python -m pytest -m "" tests/trust

# The quick comparisons of speed, ten minutes on one idle core; JSON under out/perf/. A GPU: python bench/gpu.py.
bench: $(DONE)
	$(VENV)/bin/python bench/step.py
	$(VENV)/bin/python bench/classification.py
	$(VENV)/bin/python bench/render.py
	$(VENV)/bin/python bench/preview.py
	$(VENV)/bin/python bench/pipeline.py

# mypy and mkdocs follow no editable install: links show them flows/ and tasks/ under their installed names.
build/typing/effivmt_%:
	mkdir -p build/typing
	ln -sfn ../../$* $@

lint: $(DONE) | $(LINKS)
	$(VENV)/bin/lint-imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The pinned versions against the published advisories; needs a network.
audit: $(DONE)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt pip-audit
	$(VENV)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

# The pages of docs/ and the API reference, under site/; a broken link is an error.
docs: $(DOCS_DONE) | $(LINKS)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

# dist/*.whl. setuptools would add what an earlier build left in build/lib.
wheel: $(DONE)
	rm -rf build/lib dist
	$(VENV)/bin/python -m build --wheel

clean:
	rm -rf $(VENV) out .effivmt build dist site
