# Ratchet's commands. `make` alone lists them.
#
# PYTHON    the interpreter that .venv is made with (default: the distribution's)
# LATEST    LATEST=1: with the newest versions that setup.cfg allows instead of the locked ones, in .venv-latest
# DESTDIR   where `make install` puts everything below (default: the machine itself)
# BINDIR    where the runtime looks for plugins
# PREFIX    `ratchetctl` goes to $(PREFIX)/bin
# UNITDIR   where `make install` puts the systemd unit, on a machine with systemd
# IMAGE     the name of the image that `make image` makes; BASE and BUILDER: see packaging/image.sh
# RELEASE   the folder for `make dist`
# PYTEST    further arguments for pytest, as in: make test PYTEST='-k vxlan -x'
# WORKERS   how many tests run at the same time, each in a cluster of its own; those after the fourth mostly wait
# BENCH     further arguments for the benchmark, as in: make bench BENCH='--only link-up,pairs'
# STEPS     how long `make faults` goes on; SEED repeats a run, of `make fuzz` as well
# FUZZ      further arguments for the fuzzing, as in: make fuzz FUZZ='--only labels --inputs 100000'

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BINDIR ?= /opt/cni/bin
PREFIX ?= /usr/local
UNITDIR ?= $(PREFIX)/lib/systemd/system
IMAGE ?= ghcr.io/ratchet-cni/ratchet:$(shell sed -n 's/^version = //p' setup.cfg)
RELEASE ?= dist/release
PYTEST ?=
WORKERS ?= 7
BENCH ?=
SMALL ?=
STEPS ?= 2000
SEED ?=
FUZZ ?=
LATEST ?=
export PYTHON LATEST
# What is compiled is kept, whoever says otherwise: a run of the tests starts Python a thousand times.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv$(if $(LATEST),-latest)
BIN := $(VENV)/bin
PROGRAMS := dist/$(if $(LATEST),latest/)ratchet.d
# Which tests share a worker is in tests/parallel.py.
PARALLEL := -n $(WORKERS) --dist loadgroup
SUITES := $(wildcard tests/unit tests/integration tests/e2e)
CHECKED := $(wildcard ratchet ratchet_child ratchetctl tests benchmarks packaging)
SOURCES := $(shell find ratchet ratchet_child ratchetctl -name '*.py' -o -name py.typed -o -path '*/assets/*' 2>/dev/null)

# Root alone is not enough in a container that may not make network namespaces.
CAN := $(shell if [ "$$(id -u)" = 0 ] && unshare --net true 2>/dev/null; then echo root; fi)

.PHONY: help
help:  ## what can be made
	@echo 'Ratchet: make TARGET'
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

.PHONY: system
system:
	@packaging/bootstrap.sh system

.PHONY: system-for-tests
system-for-tests:
	@packaging/bootstrap.sh tests

.PHONY: venv
venv:  ## .venv with Ratchet and what its tests and its build need, as locked in requirements/
	@packaging/bootstrap.sh venv

.PHONY: update
update:  ## requirements/ anew: the newest versions that setup.cfg allows
	@packaging/bootstrap.sh update

.PHONY: demo
demo: system venv  ## as root: the examples on a simulated cluster, from an empty machine (shows, then cleans up)
	@$(BIN)/python -m ratchetctl demo

.PHONY: test
test: system-for-tests venv  ## all tests; installs what is missing; without root, those that can run
	@# Each keeps one processor busy.
	@+$(MAKE) --no-print-directory --jobs=2 --output-sync check build .pytest_cache/compiled
ifeq ($(CAN),root)
	RATCHET_REQUIRE_ROOT=1 RATCHET_PLUGIN_DIR=$(CURDIR)/$(PROGRAMS) $(BIN)/pytest $(PARALLEL) $(PYTEST) $(SUITES)
else
	@if [ "$${CI:-}" = true ] || [ "$${RATCHET_REQUIRE_ROOT:-}" = 1 ]; then \
		echo 'make test: these tests need root and network namespaces, and none may be left out' >&2; \
		exit 1; \
	fi
	RATCHET_PLUGIN_DIR=$(CURDIR)/$(PROGRAMS) $(BIN)/pytest $(PARALLEL) -m 'not root' $(PYTEST) $(SUITES)
	@echo
	@echo 'Left out, because they need root and network namespaces:'
	@$(BIN)/pytest --collect-only -q -m root $(SUITES) 2>/dev/null | grep '::' | cut -d: -f1 | sort | uniq -c || true
	@echo 'Run them with: sudo make test'
endif

# Where nothing of the tests is compiled yet, every worker would compile all of it at the same time.
.pytest_cache/compiled: | venv
	@$(BIN)/pytest --collect-only -qq $(SUITES) >/dev/null
	@mkdir -p $(@D) && touch $@

.PHONY: unit
unit: venv .pytest_cache/compiled  ## the unit tests alone, in under a minute; needs no root
	$(BIN)/pytest -n auto --dist worksteal $(PYTEST) tests/unit

.PHONY: faults
faults: system venv build  ## as root: a cluster that is broken at random for an hour or two; see docs/faults.md
	RATCHET_PLUGIN_DIR=$(CURDIR)/$(PROGRAMS) $(BIN)/python -m tests.faults \
		--steps $(STEPS) $(if $(SEED),--seed $(SEED)) --json build/faults.json
	RATCHET_PLUGIN_DIR=$(CURDIR)/$(PROGRAMS) $(BIN)/python -m tests.faults \
		--steps $$(($(STEPS) / 4)) $(if $(SEED),--seed $(SEED)) --members 3 --json build/faults-3.json

.PHONY: fuzz
fuzz: system venv  ## as root: hostile input for a quarter of an hour; see docs/fuzzing.md
	@$(BIN)/python -m tests.fuzz --go-on $(if $(SEED),--seed $(SEED)) $(FUZZ)

.PHONY: bench
bench: system venv build  ## as root: time, memory and growth of the programs (SMALL=1: a little of everything)
	@packaging/bootstrap.sh bench
	@RATCHET_PLUGIN_DIR=$(CURDIR)/$(PROGRAMS) $(BIN)/python -m benchmarks $(if $(SMALL),--small) $(BENCH)

.PHONY: check
check: venv  ## formatting, lint, types, who may import whom
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports
	packaging/front.sh lint

.PHONY: format
format: venv  ## put the formatting right
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix-only $(CHECKED)

.PHONY: build
build: $(PROGRAMS)/.built  ## the programs, in one folder: dist/ratchet.d

$(PROGRAMS)/.built: $(SOURCES) setup.cfg $(wildcard packaging/* front/*) $(VENV)/.ratchet-stamp | system
	@packaging/build.sh $(PROGRAMS) $(VENV)
	@touch $@

# Newer than the programs when the environment was made anew: then they are built again.
$(VENV)/.ratchet-stamp: venv
	@:

.PHONY: install
install: build  ## the programs to $(DESTDIR)/opt/cni/bin, in use from one moment to the next
	@packaging/install.sh install $(PROGRAMS) '$(DESTDIR)' '$(BINDIR)' '$(PREFIX)/bin' '$(UNITDIR)'

.PHONY: uninstall
uninstall:  ## take them away again
	@packaging/install.sh uninstall $(PROGRAMS) '$(DESTDIR)' '$(BINDIR)' '$(PREFIX)/bin' '$(UNITDIR)'

.PHONY: image
image: build  ## the image of the programs, with buildah, podman or docker
	@packaging/image.sh $(PROGRAMS) '$(IMAGE)'

.PHONY: dist
dist: build  ## a release: wheel, source, programs, what they consist of, manifests, checksums
	@packaging/dist.sh $(PROGRAMS) '$(RELEASE)' $(VENV)

.PHONY: clean
clean:  ## what was built, and the environments
	rm -rf build dist .venv .venv-latest *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
