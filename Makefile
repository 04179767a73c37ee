# Two commands: `make demo` shows a whole company at work, `make test` proves it. Each does all of its set-up.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# editable_mode=compat: the folder stands on the path; the default is a finder, which every start of Python here would pay for
# -qq: errors only; warnings about a machine's own package sources say nothing about this project
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: demo test fast lint bench chaos soak chiefs clean lock

demo: $(VENV)/.run
	@$(BIN)/company demo

test: $(VENV)/.test
	@tools/apt-packages chromium libatomic1
	@$(BIN)/python -m tools.check

fast: $(VENV)/.test
	@$(BIN)/python -m pytest -q -m "not slow and not browser"

lint: $(VENV)/.test
	@$(BIN)/python -m tools.check --lint-only

bench: $(VENV)/.bench
	@$(BIN)/python -m benchmarks $(ARGS)

# every crash point, long and large cases, then seeded faults against real processes: make chaos ARGS="--rounds 50 --seed 7 --json report.json"
chaos: $(VENV)/.test
	@FAULTS_FULL=1 $(BIN)/python -m pytest -q tests/faults/test_every_commit_point.py tests/faults/test_contract_crashes.py tests/faults/test_market.py tests/e2e/test_contract_ends.py tests/e2e/test_cut_off_workers.py tests/e2e/test_bad_modules.py tests/e2e/test_secondment.py
	@$(BIN)/python -m tests.faults $(ARGS)

# many workers for long, with memory, descriptors and tasks watched: make soak ARGS="--minutes 30 --workers 50"
soak: $(VENV)/.test
	@$(BIN)/python -m tests.faults.soak $(ARGS)

# thirty chiefs on loopback, half of them restarted in turn: all offers are found again: make chiefs ARGS="--chiefs 30 --json report.json"
chiefs: $(VENV)/.test
	@$(BIN)/python -m tests.support.many_chiefs $(ARGS)

$(VENV)/bin/python:
	@tools/python-check "$(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.run: requirements/build.txt requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing what is needed to run into $(VENV) (locked by hash) ..."
	@$(PIP) install --require-hashes -r requirements/build.txt
	@$(PIP) install --require-hashes --no-deps -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	@echo "installing what the tests need ..."
	@$(PIP) install --require-hashes --no-deps -r requirements/test.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.run requirements/bench.txt
	@echo "installing the peers that the benchmarks compare with ..."
	@$(PIP) install --require-hashes --no-deps -r requirements/bench.txt
	@touch $@

lock:
	@tools/lock

clean:
	rm -rf $(VENV) demo-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
