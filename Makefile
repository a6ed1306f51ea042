# Everything a newcomer or CI runs. Needs python3 (3.11 or newer, with venv) and make; sets up the rest itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
DEMO := build/demo
SITES := $(wildcard site_configs/demo/site-*.yaml)
export MPLBACKEND := Agg

.PHONY: demo test test-fast test-long check docs bench faults mutants sbom clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo  ## three simulated hospitals train a model together; goes on where it was interrupted
	test -f $(DEMO)/cohort/cohort.json || $(BIN)/msfl-server make-cohort --output $(DEMO)/cohort --sites 3 --patients 12 --seed 0
	if test -f $(DEMO)/run/run.json; then $(BIN)/msfl-server simulate --resume $(DEMO)/run; \
	else $(BIN)/msfl-server simulate site_configs/demo/study.yaml --output $(DEMO)/run $(SITES:%=--site %); fi

CORES := $(shell nproc 2>/dev/null || echo 2)

# Many processes share few cores, and small tensors gain nothing from threads. The longest tests come first; one worker
# more than cores, as tests wait for the processes that they start for a quarter of their time.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not long" -n $(shell expr $(CORES) + 1) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Whole deployments that repeat, among real processes, what shorter tests hold: before a release, and after changes of
# how processes or messages are handled.
test-long: export OMP_NUM_THREADS := 1
test-long: $(VENV)/.dev
	$(BIN)/python -m pytest -m long -n $(CORES) --maxprocesses 4 --dist loadfile

# Tests of single modules, without processes: what to run at every change. tests/fast.py says which these are.
test-fast: export OMP_NUM_THREADS := 1
test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -p tests.fast -n $(CORES) --maxprocesses 4 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.dev  ## the documentation, into build/docs; a dead link fails
	$(BIN)/mkdocs build
	@echo "open build/docs/index.html"

AREA ?= *
bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks "$(AREA)"

FAULT ?=
faults: $(VENV)/.dev  ## kills, full disks, cut networks, wrong clocks: an hour, no part of `make test`
	$(BIN)/python -m tests.faults $(FAULT)

PART ?=
mutants: export OMP_NUM_THREADS := 1
mutants: $(VENV)/.dev  ## which small faults in metrics, aggregation, gateway and ledger no test notices
	$(BIN)/python -m tests.mutants $(PART)

# What an installation is made of, for each side: CycloneDX, with the files' hashes.
sbom: $(VENV)/.dev
	mkdir -p build/sbom
	for side in client server; do cat deploy/requirements/torch.txt deploy/requirements/$$side.txt | \
		$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml -o build/sbom/$$side.json - || exit 1; done

# torch first: plain torch would bring several gigabytes of CUDA where no GPU needs them.
$(VENV)/.demo: pyproject.toml deploy/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-compile --constraint deploy/constraints.txt torch
	$(PIP) install --quiet --no-compile --constraint deploy/constraints.txt --editable '.[sim]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --quiet --no-compile --constraint deploy/constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf build $(VENV)
