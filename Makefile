# The project's commands. `make quickstart`, `make demo` and `make test` work on a bare clone: git, make, Python 3.11+ with venv.

PYTHON ?= python3
PIP_FLAGS = --quiet --disable-pip-version-check
SOAK_MINUTES ?= 10
export SOAK_MINUTES

.PHONY: demo demo-pq quickstart quick test processes interop soak bench sbom lint format reference lock clean missing

# a hospital with one ward in try/, which git ignores: a device's first certificate and first connection
quickstart:
	@began=$$(date +%s); $(MAKE) --no-print-directory .venv/ready && .venv/bin/python -m examples.quickstart try/ward --since $$began

demo: .venv/ready
	.venv/bin/python -m examples.demo $(DEMO_FLAGS)

demo-pq: .venv/ready
	.venv/bin/python -m examples.demo_pq $(DEMO_FLAGS)

# the tests of the layers below the processes: some seconds after each edit; `make test` has all of them
QUICK = tests/x509 tests/wire tests/tlog tests/tls tests/trust tests/keystore tests/policy tests/records tests/fleet \
  tests/endpoints tests/vagus_agent $(filter-out $(NOT_QUICK),$(wildcard tests/test_*.py))
NOT_QUICK = tests/test_five_hospitals.py tests/vagus_agent/test_main.py tests/records/revocation/test_selections.py \
  tests/records/test_selections_statistics.py
PYTEST = .venv/bin/python -m pytest
QUICKLY = -n 2 --dist worksteal -m "not interop and not soak and not process"

quick: .venv/ready
	$(PYTEST) $(QUICKLY) $(QUICK) $(addprefix --ignore=,$(NOT_QUICK))

test: .venv/ready
	$(PYTEST) $(QUICKLY)

processes: .venv/ready
	$(PYTEST) -n 2 --dist worksteal -m "process and not interop and not soak"

interop: .venv/ready
	bash tests/interop/prepare.sh
	$(PYTEST) -rs -m interop

soak: .venv/ready
	$(PYTEST) -s -rs -m soak

bench: .venv/ready
	.venv/bin/python -m bench

# what is installed, with the hashes that pip checked, as CycloneDX; dated by the commit, so that it can be repeated
sbom: .venv/ready
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) .venv/bin/vagus sbom --lock requirements/vagus.txt \
	  --lock requirements/optional.txt --out vagus.cdx.json --replace

lint: .venv/ready
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports
	.venv/bin/mypy

format: .venv/ready
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

# docs/reference from the models of plan, policy pack and settings
reference: .venv/ready
	.venv/bin/python -m tests.reference_pages

# requirements/*.txt are what pip installs, each file with its hash; pyproject.toml is what people edit
LOCK = .tools/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
  --no-emit-find-links --custom-compile-command "make lock"
lock:
	test -x .tools/bin/uv || { $(PYTHON) -m venv .tools && .tools/bin/python -m pip install $(PIP_FLAGS) uv; }
	$(LOCK) pyproject.toml --extra test --extra interop --extra postgres -o requirements/development.txt
	$(LOCK) pyproject.toml -c requirements/development.txt -o requirements/vagus.txt
	$(LOCK) pyproject.toml --extra postgres --extra hsm --extra reports -c requirements/development.txt -o requirements/optional.txt
	$(LOCK) requirements/agent.in -c requirements/development.txt -o requirements/agent.txt
	$(LOCK) requirements/interop-openssl.in -o requirements/interop-openssl.txt
	$(LOCK) requirements/interop-java-17.in -o requirements/interop-java-17.txt
	$(LOCK) requirements/interop-java-25.in -o requirements/interop-java-25.txt
	$(LOCK) requirements/interop-sdc.in -o requirements/interop-sdc.txt
	$(LOCK) requirements/build.in -o requirements/build.txt

missing:
	@command -v git >/dev/null || { echo "missing: git (apt-get install git)"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "missing: Python 3.11 or newer (apt-get install python3 python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "missing: Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1): make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "missing: Python's venv (apt-get install python3-venv)"; exit 1; }

.venv/ready: requirements/build.txt requirements/development.txt pyproject.toml
	@$(MAKE) --no-print-directory missing
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing what the project needs into .venv"
	@.venv/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/build.txt
	@.venv/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/development.txt
	@.venv/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis bench/results
