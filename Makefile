# `make demo` and `make test` need Python 3.11 and the package registry, nothing else.
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON ?= python3.11
VENV := .venv
DONE := $(VENV)/.installed

.PHONY: demo repro test lint clean

$(DONE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(DONE)

# One transfer on a sample clip with two target prompts; writes under out/demo/.
demo: $(DONE)
	$(VENV)/bin/effivmt transfer data/samples/zigzag.mp4 --name zigzag \
	    --caption "a red square on a navy background" \
	    --prompt "a yellow star on a black background" \
	    --prompt "a purple square on a black background" \
	    --store out/demo/store --out out/demo

# Everything that dvc.lock records, over data/catalog.csv; what the store has is not computed again.
repro: $(DONE)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" dvc repro

test: $(DONE)
	$(VENV)/bin/python -m pytest

lint: $(DONE)
	$(VENV)/bin/lint-imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) out .effivmt
