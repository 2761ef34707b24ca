# The commands people type. `make demo` and `make test` set up all they need in .venv.

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
SOURCES = pyproject.toml setup.py $(wildcard csrc/core/*.[ch] csrc/binding/*.[ch])

help:
	@echo 'make demo      a key server, clients and workers on a store, with kills: about 20 s'
	@echo 'make test      the C tests, the lock under kills, pytest'
	@echo 'make test-all  pytest with every CPython from 3.11 on that is found'
	@echo 'make test-free-threaded  pytest with a Python that has no GIL'
	@echo 'make bench     every operation beside a dict and LMDB: 3 to 5 minutes'
	@echo 'make bench-segment, make bench-family  beside sysv_ipc; ways between two processes'
	@echo 'make guard     instruction counts beside those that are kept (needs valgrind)'
	@echo 'make prove     the long runs of kills and of attacks: about 20 minutes'
	@echo 'make lint      gcc and clang warnings, ruff, mypy, stubtest'
	@echo 'make wheels    an sdist, and of it a wheel for every CPython from 3.11 on that is found'
	@echo 'make clean     removes what was built, and .venv'

demo: $(VENV)/demo
	$(BIN)/shmkey demo $(DEMO)

test: $(VENV)/test
	$(MAKE) --no-print-directory -C csrc test
	$(MAKE) --no-print-directory -C tests/crash short
	$(BIN)/python -m pytest $(PYTEST)

test-all: $(VENV)/test
	tools/test_all.sh

test-free-threaded:
	python=$$(tools/free_threaded_python.sh) && tools/test_all.sh "$$python"

bench: $(VENV)/bench
	$(BIN)/python benchmarks/bench.py $(BENCH)

bench-segment: $(VENV)/bench
	$(BIN)/python benchmarks/segment.py $(BENCH)

bench-family: $(VENV)/bench
	$(BIN)/python benchmarks/family.py $(BENCH)

guard:
	$(PYTHON) benchmarks/guard/guard.py $(GUARD)

prove: $(VENV)/test
	$(MAKE) --no-print-directory -C tests/crash prove
	$(MAKE) --no-print-directory -C tests/hostile prove
	$(BIN)/python -m pytest --full tests/test_oracle.py tests/test_races.py tests/test_model.py \
	    tests/test_hostile.py

lint: $(VENV)/lint
	tools/lint.sh $(BIN)

wheels: $(VENV)/release
	tools/wheels.sh $(BIN)

# One environment; each mark says which extra it has, built from these sources.
$(VENV)/%: $(SOURCES)
	tools/venv.sh $(PYTHON) $(VENV) $*

clean:
	$(MAKE) --no-print-directory -C csrc clean
	$(MAKE) --no-print-directory -C tests/crash clean
	$(MAKE) --no-print-directory -C tests/hostile clean
	rm -rf $(VENV) build dist *.egg-info pyshmkey/_core.*.so pyshmkey/include pyshmkey/lib

.PHONY: help demo test test-all test-free-threaded bench bench-segment bench-family guard prove \
	lint wheels clean
