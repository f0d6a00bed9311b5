# Each target sets up what it needs by itself: a virtual environment in .venv, Python packages pinned by hash and,
# as root on Debian or Ubuntu, system packages; without root it says what to type. Only python3, make and git must
# be there. `make PYTHON=/path/to/python3.12 ...` chooses the interpreter.

export PYTHON
MAKEFLAGS += --no-print-directory
BIN := .venv/bin

.PHONY: help demo test test-long bench bench-gate truth fault mutants soak lint format lock bundle test-install clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' Makefile | expand -t 24

demo: .venv/.stamp-run  ## watch a production line being traced, about a minute
	@$(BIN)/edge-agent demo

test: .venv/.stamp-dev  ## the whole suite, on loopback only
	@.ci/need mosquitto mosquitto-clients libzbar0 postgresql --wish nats-server rabbitmq-server cc iproute2 util-linux
	@$(BIN)/pytest tests -n auto --maxprocesses 8 --dist loadfile

test-long: .venv/.stamp-dev  ## what the suite leaves out for its length: kills, outages and full disks in real time
	@.ci/need mosquitto mosquitto-clients libzbar0 postgresql --wish nats-server rabbitmq-server cc iproute2 util-linux
	@$(BIN)/pytest tests -m long

COMMA := ,
bench: .venv/.stamp-dev  ## measure, beside bare pymodbus, asyncua and zxing-cpp; some 20 minutes, idle machine (ONLY=a,b)
	@.ci/need mosquitto libzbar0
	@PYTHONPATH=tests $(BIN)/python tests/bench/run.py $(subst $(COMMA), ,$(ONLY))

bench-gate: .venv/.stamp-dev  ## only the gate: from a scan to the answer in the PLC, under load; about five minutes
	@.ci/need mosquitto
	@PYTHONPATH=tests $(BIN)/python tests/bench/run.py gate

truth: .venv/.stamp-dev  ## every binding strategy against what really happened; about three minutes (UNITS=n SEED=n)
	@$(BIN)/python tests/truth/run.py $(if $(UNITS),--units $(UNITS)) $(if $(SEED),--seed $(SEED))

FAULT = $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS)) $(if $(KEEP),--keep $(KEEP))
fault: .venv/.stamp-dev  ## some minutes of named faults, counting what is missing (ONLY=a,b SEED=n KILLS=n KEEP=dir)
	@.ci/need mosquitto cc --wish nats-server rabbitmq-server iproute2 util-linux
	@$(BIN)/python tests/fault/run.py $(FAULT)

mutants: .venv/.stamp-dev  ## seed deliberate bugs, one at a time: each must turn the torture red; some minutes
	@.ci/need mosquitto cc --wish nats-server rabbitmq-server iproute2 util-linux
	@$(BIN)/python tests/fault/mutants.py

soak: .venv/.stamp-dev  ## the same for hours, memory and descriptors watched (HOURS=n KILLS=n SEED=n KEEP=dir)
	@.ci/need mosquitto
	@$(BIN)/python tests/fault/soak.py $(if $(HOURS),--hours $(HOURS)) $(if $(KILLS),--kills $(KILLS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep $(KEEP))

lint: .venv/.stamp-dev  ## style, types, who imports whom
	@.ci/need shellcheck
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	shellcheck .ci/need .ci/venv .ci/run deploy/*.sh

format: .venv/.stamp-dev  ## let ruff lay out the source
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bundle: .venv/.stamp-run  ## dist/: all that a line PC without a network needs, this machine's Python and processor
	@deploy/bundle.sh

test-install: .venv/.stamp-dev bundle  ## install that bundle below a temporary root, upgrade, roll back, remove
	@$(BIN)/pytest tests/e2e/full_install.py

# one resolution for every Python from 3.11 up: a package may need others, or another version, on a newer one
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command 'make lock'
lock: .venv/.stamp-dev  ## pin every dependency anew (UPGRADE=--upgrade takes the newest)
	@$(BIN)/pip install --quiet uv
	@$(COMPILE) $(UPGRADE) --extra demo --extra sql pyproject.toml -o deploy/requirements.lock
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
		| $(COMPILE) $(UPGRADE) - -o deploy/build.lock
	@$(COMPILE) $(UPGRADE) --extra demo --extra sql --extra dev -c deploy/requirements.lock pyproject.toml -o .ci/dev.lock

clean:  ## remove what can be made again, .venv too
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.stamp-run: deploy/requirements.lock deploy/build.lock pyproject.toml .ci/venv
	@.ci/venv deploy/requirements.lock
	@touch $@

.venv/.stamp-dev: .ci/dev.lock deploy/build.lock pyproject.toml .ci/venv
	@.ci/venv .ci/dev.lock
	@touch .venv/.stamp-run $@
