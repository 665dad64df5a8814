# make install | demo | test | test-fast | check | engines | bench
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
# AMD's AITER is the distribution amd-aiter. The one that has its import name on PyPI is an unrelated package.
AITER := amd-aiter==0.1.7.post2.dev18
# torch names a Triton of its own; the tests run and cross-compile with this one, so it is installed last and by itself.
TRITON := triton==3.9.0
WORKERS ?= 2
# What answers within a minute on two cores: no browser, PostgreSQL, packaging, demonstration, Triton or long property runs.
FAST := tests/registry tests/layouts/loader tests/layouts/stamps/test_stamp.py tests/layouts/checkpoint/test_checkpoint.py \
  tests/api/fleet tests/api/web tests/api/store/test_find.py tests/api/store/test_store.py \
  tests/api/routes/test_check.py tests/api/routes/test_registry.py tests/api/routes/test_resolve.py \
  tests/api/pages/test_html.py tests/api/commands/test_check.py tests/api/commands/test_explain.py \
  tests/system/test_architecture.py tests/system/imports/test_dependencies.py \
  tests/system/imports/test_exports.py
SLOW_OF_FAST := tests/layouts/loader/test_apply.py tests/layouts/loader/test_apply_layout.py \
  tests/layouts/loader/test_expert.py tests/layouts/loader/test_own_layouts.py tests/registry/lint/test_lint.py \
  tests/registry/loading/test_book.py tests/registry/loading/test_book_fuzz.py \
  tests/registry/loading/test_rule_index.py tests/registry/resolve/test_recipe_shapes.py
BENCH ?= $(wildcard bench/bench_*.py)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint check bench soak engines clean

help:
	@echo "make install   a virtual environment in $(VENV) with all that development needs"
	@echo "make demo      the demonstration (ARGS=… are its arguments)"
	@echo "make test      the whole test suite"
	@echo "make test-fast what answers within a minute: no browser, PostgreSQL, packaging, demo, Triton or long property runs"
	@echo "make lint      style and types"
	@echo "make check     style, types and tests"
	@echo "make soak      the tests marked slow"
	@echo "make engines   layers converted by the code of vLLM, SGLang and ATOM (fetched into .engines), and a table of them"
	@echo "make bench     the benchmarks (BENCH=bench/bench_kernels.py for one)"

install: $(STAMP)

# Set up again only when what is installed has changed; a failed set-up leaves no stamp.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "preshuffle needs Python 3.11 or newer; '$(PYTHON)' is not: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(AITER) $(TRITON)
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/preshuffle registry check
	@touch $@

demo: $(STAMP)
	$(BIN)/python demo.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-fast: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -k "not postgresql" $(addprefix --ignore=,$(SLOW_OF_FAST)) $(FAST) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

soak: $(STAMP)
	$(BIN)/python -m pytest -m slow $(ARGS)

# The engines are run beside the product: they are in no environment of it, and nothing of them is committed.
engines: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m support.engines.fetch
	$(BIN)/python -m pytest -m engines tests/engines $(ARGS)
	PYTHONPATH=tests $(BIN)/python -m support.engines.figures

bench: $(STAMP)
	@set -e; for file in $(BENCH); do echo "== $$file"; $(BIN)/python $$file $(ARGS); done

clean:
	rm -rf $(VENV) .engines build dist .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
