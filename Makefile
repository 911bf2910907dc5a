# Every command sets up what it needs: .venv is made on first use and brought
# up to date when pyproject.toml changes.
# A part of the tests: make test ARGS="tests/cli/test_cli.py -k help"
PYTHON ?= python3
# All tests run in three processes with one thread each: on two cores, some wait while others compute.
# They are forks of one that has imported torch: see tests/workers.py.
ARGS ?= -n 3 --dist worksteal -p tests.workers
BIN := .venv/bin
# Python compiles a module when it is first imported: most of those installed never are. It has to
# store the result, or each process compiles again, which takes three times as long as an import.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo test check docs bench clean

demo: .venv/run-time
	$(BIN)/hfclip classify hfclip/digits/seven.png --model digits \
	    --labels "zero,one,two,three,four,five,six,seven,eight,nine" \
	    --template "a handwritten {}" --top 3

test: .venv/development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

check: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/documentation
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml

bench: .venv/development
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv dist docs/site .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The pip of Python 3.11 takes half as long again.
.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip uv

.venv/run-time: pyproject.toml | .venv/bin/python
	$(PIP) -e .
	touch $@

# pip installs torch, from where it is configured to. uv installs the other packages in a quarter of
# the time. Meanwhile, the first import compiles torch.
.venv/development: .venv/run-time
	$(BIN)/python -c "import torch._dynamo, torchvision.transforms.v2.functional" & \
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[dev,peers]" || \
	$(PIP) -e ".[dev,peers]"; \
	status=$$?; wait; exit $$status
	touch $@

.venv/documentation: pyproject.toml | .venv/bin/python
	$(PIP) -e ".[docs]"
	touch $@ .venv/run-time
