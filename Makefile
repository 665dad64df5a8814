# make install | demo | test | test-fast | check | engines | bench; make help says the rest
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
# AMD's AITER is the distribution amd-aiter. The one that has its import name on PyPI is an unrelated package.
AITER := amd-aiter==0.1.7.post2.dev18
# torch names a Triton of its own; the tests run and cross-compile with this one, so it is installed last and by itself.
TRITON := triton==3.9.0
# One more than cores of a small machine: a fifth of the suite's time is waiting for processes, databases and clocks.
WORKERS ?= 3
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
BENCH ?= $(wildcard bench/bench_*.py bench/*/bench_*.py)
# Tests that the oldest and the newest dependencies have to pass, each in an environment of its own. TORCH=torch takes
# the oldest or the newest torch; on PyPI those are CUDA builds, so name the index of a CPU build in PIP_EXTRA_INDEX_URL.
LOWEST ?= .venv-lowest
NEWEST ?= .venv-newest
TORCH ?= torch==2.13.0
PYTHONS ?= python3.11 python3.12 python3.13
PARTS ?= tests/registry tests/layouts/checkpoint tests/layouts/stamps tests/layouts/loader tests/layouts/moves tests/api
TESTED := -e '.[layouts,service,postgres]' build pytest pytest-xdist hypothesis schemathesis selenium axe-core-python kubernetes-validate numpy
PIP := -m pip --disable-pip-version-check
# Tools of a release, in an environment of their own: what they need is not held to constraints.txt.
TOOLS ?= .venv-tools
RELEASE_TOOLS := uv==0.13.9 cyclonedx-bom==7.5.0 pip-audit==2.10.1 twine==7.0.0
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --constraints constraints.txt --custom-compile-command "make lock"
DOCKER ?= docker
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= ghcr.io/preshuffle/preshuffle:$(VERSION)
SBOM_OF_WHEEL = $(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --sv 1.6 --of JSON \
  --output-reproducible -o $$(ls dist/preshuffle-$(VERSION)-*.whl).cdx.json requirements/service.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint check bench soak engines docs docs-serve clean
.PHONY: test-lowest test-newest test-pythons lock pin-images changelog release image sbom sbom-image audit

help:
	@echo "make install   a virtual environment in $(VENV) with all that development needs"
	@echo "make demo      the demonstration (ARGS=… are its arguments)"
	@echo "make test      the whole test suite"
	@echo "make test-fast what answers within a minute: no browser, PostgreSQL, packaging, demo, Triton or long property runs"
	@echo "make lint      style and types"
	@echo "make check     style, types and tests"
	@echo "make soak      the tests marked slow, and those of properties on new examples"
	@echo "make engines   layers converted by the code of vLLM, SGLang and ATOM (fetched into .engines), and a table of them"
	@echo "make docs      the documentation site, into build/site; make docs-serve shows it at http://127.0.0.1:8000/"
	@echo "make bench     the benchmarks (BENCH=bench/bench_kernels.py for one)"
	@echo "make test-lowest, make test-newest   the tests of PARTS at the oldest and at the newest versions of dependencies"
	@echo "make test-pythons the tests of PARTS on every Python of PYTHONS (3.11 to 3.13) that is here"
	@echo "make lock      requirements/*.txt: what the images install, with hashes, in the versions of constraints.txt"
	@echo "make pin-images the digests of the base images into the Dockerfile, where their registry can be reached"
	@echo "make changelog what lies in changelog.d, into CHANGELOG.md under pyproject.toml's version, which chart, manifests and docs get, too"
	@echo "make release   wheel and sdist of the commit into dist/, built twice with the same bytes, checked, with a bill of materials"
	@echo "make image, make sbom, make sbom-image   the service's image; the wheel and the image with their bills of materials"
	@echo "make audit     known vulnerabilities of what the images install, where a database can be reached"

install: $(STAMP)

# Set up again only when what is installed has changed; a failed set-up leaves no stamp.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "preshuffle needs Python 3.11 or newer; '$(PYTHON)' is not: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(AITER) $(TRITON)
	$(BIN)/python -m compileall -q preshuffle registry layouts api
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
	$(BIN)/python -m pytest --hypothesis-profile=soak -m "slow or hypothesis" $(ARGS)

# The engines are run beside the product: they are in no environment of it, and nothing of them is committed.
engines: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m support.engines.fetch
	$(BIN)/python -m pytest -m engines tests/engines $(ARGS)
	PYTHONPATH=tests $(BIN)/python -m support.engines.figures

# The variable silences the theme's announcement of its successor.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(STAMP)
	$(BIN)/python -m mkdocs build --strict $(ARGS)
	$(BIN)/python deploy/site/check_site.py build/site

docs-serve: export NO_MKDOCS_2_WARNING = 1
docs-serve: $(STAMP)
	$(BIN)/python -m mkdocs serve $(ARGS)

bench: $(STAMP)
	@set -e; for file in $(BENCH); do echo "== $$file"; $(BIN)/python $$file $(ARGS); done

test-lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) deploy/packages/lowest.py '$(TORCH)' > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python $(PIP) install --quiet -c $(LOWEST)/constraints.txt '$(TORCH)' $(TESTED)
	$(LOWEST)/bin/python $(PIP) install --quiet --no-deps $(AITER) $(TRITON)
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) $(PARTS) $(ARGS)

test-newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python $(PIP) install --quiet --upgrade '$(TORCH)' $(TESTED)
	$(NEWEST)/bin/python $(PIP) install --quiet --no-deps $(AITER) $(TRITON)
	$(NEWEST)/bin/python -m pytest -n $(WORKERS) $(PARTS) $(ARGS)

# Each Python of PYTHONS that answers, in an environment of its own; a name that none answers to is told and passed over.
test-pythons:
	@set -e; for python in $(PYTHONS); do \
	  version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || { echo "$$python: not here"; continue; }; \
	  echo "== Python $$version"; $$python -m venv --clear $(VENV)-$$version; \
	  $(VENV)-$$version/bin/python $(PIP) install --quiet -c constraints.txt '$(TORCH)' $(TESTED); \
	  $(VENV)-$$version/bin/python $(PIP) install --quiet --no-deps $(AITER) $(TRITON); \
	  $(VENV)-$$version/bin/python -m pytest -n $(WORKERS) $(PARTS) $(ARGS); \
	done

$(TOOLS)/.stamp: Makefile
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python $(PIP) install --quiet $(RELEASE_TOOLS)
	@touch $@

# torch is in none of them: the service has no use for it, and the loader takes that of its base image.
lock: $(TOOLS)/.stamp
	printf 'build\nsetuptools\n' | $(COMPILE) - -o requirements/build.txt
	printf 'safetensors\nnumpy\n' | $(COMPILE) pyproject.toml - -o requirements/loader.txt
	$(COMPILE) pyproject.toml --extra service --extra postgres -o requirements/service.txt

pin-images:
	@$(PYTHON) deploy/packages/pin_images.py

image:
	$(DOCKER) build --target service --tag $(IMAGE) .

changelog: $(STAMP)
	$(BIN)/python deploy/packages/write_version.py
	$(BIN)/towncrier build --yes --version "$(VERSION)"

# ARGS=--unreleased builds though changes wait in changelog.d.
release: $(STAMP) $(TOOLS)/.stamp
	$(BIN)/python deploy/packages/release.py dist $(ARGS)
	$(TOOLS)/bin/twine check --strict dist/preshuffle-$(VERSION).tar.gz dist/preshuffle-$(VERSION)-*.whl
	$(SBOM_OF_WHEEL)

sbom: $(STAMP) $(TOOLS)/.stamp
	$(BIN)/python -m build --wheel --outdir dist
	$(SBOM_OF_WHEEL)

sbom-image: $(TOOLS)/.stamp
	mkdir -p dist
	$(DOCKER) run --rm -i --entrypoint python3 $(IMAGE) - $(IMAGE) < deploy/packages/image_sbom.py > dist/image.cdx.json
	$(TOOLS)/bin/python deploy/packages/validate_sbom.py dist/image.cdx.json

audit: $(TOOLS)/.stamp
	@$(PYTHON) deploy/packages/audit.py $(TOOLS)/bin/pip-audit requirements/*.txt

clean:
	rm -rf $(VENV) .engines $(LOWEST) $(NEWEST) $(TOOLS) build dist .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
