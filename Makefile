# Two commands set everything up on a machine with Python 3.11 (venv) and make:
#   make train    the main job on faces that the project draws itself
#   make test     the tests
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do command -v $$name && break; done)
LOCK ?= requirements.lock
BIN := .venv/bin

.PHONY: train test slow check lint types install lock clean FORCE

train: .venv/installed
	$(BIN)/python -m apps.demo

# Two at once, file by file: files share what they trained.
test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: .venv/installed
	$(BIN)/python -m pytest -m slow

check: lint types test

lint: .venv/installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: .venv/installed
	$(BIN)/python -m mypy .

# Installs again whenever the lock file is another one than last time.
.venv/installed: FORCE
	@cmp -s $(LOCK) $@ || $(MAKE) --no-print-directory install

# uv installs the lock file in seconds; pip does the same, slower, where uv cannot be had.
install:
	$(PYTHON) -m venv .venv
	if $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'; \
	then $(BIN)/uv pip sync --require-hashes --quiet --python $(BIN)/python $(LOCK); \
	else $(BIN)/python -m pip install --require-hashes --quiet -r $(LOCK); fi
	cp $(LOCK) .venv/installed

FORCE:

# No index address goes into the lock files, so they install from any mirror.
UV_LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	--custom-compile-command 'make lock' pyproject.toml --extra dev
lock:
	$(UV_LOCK) -o requirements.lock
	$(UV_LOCK) --extra cuda -o requirements-cuda.lock

clean:
	rm -rf .venv
