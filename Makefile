# `make lab` and `make test` do all of their own set-up; a second call finds it done.
#
#   PYTHON=/path/to/python3.12   which Python makes .venv (3.11 or newer)
#   PORT=9000  IP=0.0.0.0        where `make lab` listens
#   WORKERS=4                    test processes
#   BENCH=--missing              what `make bench` passes on (see `python -m benchmarks --help`)
#
# pip reads its own settings (a mirror, a CPU-only PyTorch index) from its configuration or PIP_* variables.

VENV := .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt
PEERS := .venv-peers
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Made again from nothing: an install that was interrupted, a folder that was moved, a Python that is gone.
STALE := $(shell test -e $(VENV) || exit 0; \
	{ test ! -e $(VENV)/.installing && $(BIN)/python -c '' && \
	  { test ! -e $(VENV)/.home || test "$$(cat $(VENV)/.home)" = "$(CURDIR)"; }; } 2>/dev/null || echo stale)

.DEFAULT_GOAL := help
.PHONY: help lab test lint build bench peers peers-quick clean constraints parts FORCE

help:
	@echo 'make lab          open the lessons in JupyterLab (PORT=9000 to choose the port)'
	@echo 'make test         run every check and every test'
	@echo 'make lint         ruff, mypy and the arrows between the rooms'
	@echo 'make build        build the wheel into dist/'
	@echo 'make peers        build llama.cpp beside the course, for its tests and benchmarks (minutes)'
	@echo 'make bench        measure our engine beside others, write benchmarks/README.md (about 20 minutes)'
	@echo 'make constraints  pin what is installed now into constraints.txt'
	@echo 'make clean        remove what was built and installed (never my-lessons/ or a training run)'

lab: $(VENV)/.ready-lab
	@$(BIN)/lesson lab $(if $(PORT),--port $(PORT)) $(if $(IP),--ip $(IP)) $(LAB_FLAGS)

test: $(VENV)/.ready-test parts lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope $(PYTEST_FLAGS)

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

parts:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
		echo 'Chromium is missing: browser tests will be skipped (on Debian: apt-get install chromium).'
	@test -e $(PEERS)/.ready || \
		echo 'llama.cpp is missing: its tests will be skipped (make peers builds it).'
	@command -v bwrap >/dev/null || \
		echo 'bubblewrap is missing: sandbox tests will be skipped (on Debian: apt-get install bubblewrap).'

build: $(VENV)/.ready-test
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

bench: $(VENV)/.ready-test $(PEERS)/.fast
	$(BIN)/python -m benchmarks all $(BENCH)

peers: $(PEERS)/.fast

# The same llama.cpp, compiled in a fraction of the time, to run slowly: enough for tests.
peers-quick: $(PEERS)/.ready

constraints: $(VENV)/.ready-test
	{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > .pins
	mv .pins constraints.txt

clean:
	rm -rf $(VENV) $(PEERS) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- set-up

$(VENV)/.ready-lab: $(PINS) $(if $(STALE),FORCE)
	@$(call install,.[clients$(comma)serve])

$(VENV)/.ready-test: $(PINS) $(if $(STALE),FORCE)
	@$(call install,.[clients$(comma)grader$(comma)serve$(comma)test])
	@touch $(VENV)/.ready-lab

$(PEERS)/.fast: benchmarks/peers.txt
	@$(call build_peers,)
	@touch $(PEERS)/.ready

$(PEERS)/.ready: benchmarks/peers.txt
	@$(call build_peers,$(addprefix -DCMAKE_,$(addsuffix _FLAGS_RELEASE=-O1,C CXX)) -DGGML_LLAMAFILE=OFF)

# $(1): how to compile, beside leaving out what reads pictures and what the command-line tools share. pip's cache does
# not know of flags: it could offer a slow build to be measured, and later to others.
define build_peers
echo 'Building llama.cpp, once; this takes some minutes …'; \
rm -f $(PEERS)/.fast $(PEERS)/.ready; \
test -x $(PEERS)/bin/python || $(or $(PYTHON),python3) -m venv $(PEERS); \
CMAKE_BUILD_PARALLEL_LEVEL=$(WORKERS) \
CMAKE_ARGS='$(1) -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/benchmarks/peers.cmake' \
	$(PEERS)/bin/python -m pip install --quiet --force-reinstall --no-cache-dir -r benchmarks/peers.txt \
	|| { echo 'llama.cpp could not be built: it needs a C++ compiler (on Debian: apt-get install g++).'; exit 1; }; \
touch $@
endef

comma := ,

# $(1): what to install. The file .installing survives only a kill, and then the environment is made again.
define install
$(if $(STALE),rm -rf $(VENV);) \
test -x $(BIN)/python || { python=; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && python="$$candidate" && break; \
	done; \
	test -n "$$python" || { echo 'Python 3.11 or newer is needed: install it, or name it with PYTHON=/path/to/python3.11.'; exit 1; }; \
	echo "Making $(VENV) with $$python …"; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); echo 'This Python cannot make environments: install its venv part (on Debian: apt-get install python3-venv).'; exit 1; }; \
}; \
echo 'Installing, once; this takes a few minutes …'; \
printf '%s' '$(CURDIR)' > $(VENV)/.home; \
touch $(VENV)/.installing; \
test -t 1 && quiet= || quiet=--quiet; \
$(BIN)/python -m pip install $$quiet -c constraints.txt -e '$(1)'; status=$$?; \
rm -f $(VENV)/.installing; \
test $$status -eq 0 || { echo 'The installation failed for the reason above: check the network and run the same command again.'; exit 1; }; \
touch $@
endef
