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
# uv installs torch in half of pip's time, and other packages in a quarter. Releases after this one
# also compute the SHA-256 of what they download, in one thread, and take twice as long for torch.
INSTALLER := uv==0.11.18
# It does not read pip's configuration, so it is told where that finds packages. What is sorted last,
# the environment, counts.
SOURCES = $(BIN)/python -m pip config list | sort -r | sed -n \
    -e 's/\\n/ /g;s/=\(.\) */=\1/' \
    -e 's/.*[.]index-url=/export UV_DEFAULT_INDEX=/p' \
    -e 's/.*[.]extra-index-url=/export UV_EXTRA_INDEX_URL=/p' \
    -e 's/.*[.]no-index=/export UV_NO_INDEX=/p' \
    -e 's/.*[.]constraint=/export UV_CONSTRAINT=/p' \
    -e 's/.*[.]cert=/export SSL_CERT_FILE=/p' \
    -e '/[.]find-links=/{s/  */,/g;s/.*[.]find-links=/export UV_FIND_LINKS=/p;}'
UV = eval "$$($(SOURCES))"; UV_INDEX_STRATEGY=unsafe-best-match $(BIN)/uv pip install --quiet
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
INSTALL = echo 'installing $(PROJECT)'; \
    $(UV) --python $(BIN)/python -e "$(PROJECT)" || $(PIP) -e "$(PROJECT)"

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

# The first takes half as long. It needs a Python that has pip.
.venv/bin/uv:
	$(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-compile pip $(INSTALLER) || \
	{ $(BIN)/python -m ensurepip && $(PIP) $(INSTALLER); }

.venv/run-time: PROJECT := .
.venv/run-time: pyproject.toml | .venv/bin/uv
	@$(INSTALL)
	touch $@

# Meanwhile, the first import compiles torch.
.venv/development: PROJECT := .[dev,peers]
.venv/development: .venv/run-time
	@$(BIN)/python -c "import torch._dynamo" & \
	$(INSTALL); \
	status=$$?; wait; exit $$status
	touch $@

.venv/documentation: PROJECT := .[docs]
.venv/documentation: pyproject.toml | .venv/bin/uv
	@$(INSTALL)
	touch $@ .venv/run-time
