# One word for each chore. Everything sets up what is missing first; the second time that costs a second.
PYTHON := .venv/bin/python
# Hundreds of processes begin in a suite, and each worker loads all tests: with this set, all would be compiled every time.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: demo test test-slow test-ryu test-uml test-vagrant test-machines experiments results bench storm screenshot bench-links bench-growth bench-start bench-day bench-high-rate bench-database bench-simulation audit setup setup-ryu setup-prometheus lint unit pictures interface lock clean

demo: setup ## PoliQI for 30 s with keys, a summary, and everything taken down
	$(PYTHON) testbed/run.py --duration 30 --no-cli

test: setup setup-ryu setup-prometheus ## linter, type checker and the whole test suite (needs root)
	@if [ "$$(id -u)" -ne 0 ]; then echo "make test needs root: the suite makes network namespaces; use 'sudo make test'" >&2; exit 2; fi
	@echo "== ruff ==" && $(PYTHON) -m ruff check .
	@# Meanwhile all tests are loaded once, so that each worker finds them compiled.
	@echo "== mypy =="; $(PYTHON) -m pytest --collect-only -q > /dev/null & $(PYTHON) -m mypy; status=$$?; wait; exit $$status
	@echo "== pytest ==" && $(PYTHON) -m pytest -n 4

test-slow: setup setup-ryu ## what is slow and rarely breaks; its short forms are in the suite (needs root)
	$(PYTHON) -m pytest -m slow

test-ryu: setup setup-ryu ## only the tests of a controller on Ryu 4.34 (needs root)
	$(PYTHON) -m pytest -m ryu

bench: setup ## keys a second of one KME pair; delivery times in every mode beside the floor that the network sets; tunnels
	$(PYTHON) -P -m testbed.bench.bench_014
	$(PYTHON) -P -m testbed.bench.bench
	$(PYTHON) -P -m testbed.bench.bench_view
	$(PYTHON) -P -m testbed.bench.bench_vpn

bench-growth: setup ## costs that are not to grow with sessions, slots or keys, each at two sizes
	$(PYTHON) -m tests.benchmarks.growth

NETWORKS ?= poliqi:1
bench-start: setup ## time to the first key and memory: make bench-start NETWORKS="poliqi:1 FILE.graphml:40" (needs root)
	$(PYTHON) -m tests.benchmarks.start $(NETWORKS)

HOURS ?= 2
bench-day: setup ## whether a run of a day grows: HOURS of ten times the paper's load (needs root)
	$(PYTHON) -m tests.benchmarks.day $(HOURS)

MINUTES ?= 60
bench-high-rate: setup ## whether nodes bear a QC of 10 Mbit/s: MINUTES of it; memory, disk, and what became of the bytes (needs root)
	$(PYTHON) -m tests.benchmarks.high_rate $(MINUTES)

bench-database: setup ## seconds without keys when the shared database fails over, killed and cut off (needs root)
	$(PYTHON) -m tests.benchmarks.database

bench-simulation: setup ## virtual time: 1,000 nodes with 10,000 key sessions, a request at equal hops, a decision of the calendar
	$(PYTHON) -m tests.benchmarks.simulation

bench-links: setup ## delay, jitter, loss and bandwidth of a link, as measured and as configured, with errors
	$(PYTHON) -P -m testbed.bench.bench_links

SEED ?= 1
FAULTS ?= 2000
storm: setup ## faults by the thousand, from which PoliQI has to heal: make storm SEED=1 FAULTS=2000 [GUST=7 | AUDIT_EVERY=1] [DATABASE=ha] [CONTROLLER=ha] [DEVICES=2] (needs root)
	@$(PYTHON) -P -m testbed.storm --seed $(SEED) --faults $(FAULTS) $(if $(GUST),--only-gust $(GUST)) $(if $(AUDIT_EVERY),--audit-every $(AUDIT_EVERY)) $(if $(DATABASE),--database $(DATABASE)) $(if $(CONTROLLER),--controller $(CONTROLLER)) $(if $(DEVICES),--devices $(DEVICES))

experiments: setup ## the paper's table and figures, and latency: some hours, goes on where it was interrupted
	$(PYTHON) testbed/run.py experiment all

results: setup ## what experiments measured, without events, into docs/results/
	$(PYTHON) -P -m testbed.experiments.publish

RUN ?= runs/latest
audit: setup ## replay a run's records against the rules of key material: make audit RUN=DIR
	@$(PYTHON) -P -m testbed.audit $(RUN)

unit: setup ## only the pure tests, in seconds, without root
	$(PYTHON) -m pytest tests/unit

test-machines: setup ## PoliQI over two and three machines, which are network namespaces with an SSH server each (needs root)
	$(PYTHON) -m pytest -m "slow or not slow" tests/machines/whole_networks.py tests/e2e/test_machines.py

SUITE ?= tests/e2e/kernel_path.py tests/e2e/test_poliqi.py tests/e2e/test_fibres.py
test-uml: setup ## end-to-end tests with netem and the kernel's Open vSwitch, in user-mode Linux; SUITE=tests/e2e for all
	QKD_UML_SUITE="$(SUITE)" QKD_UML_LIMIT_S=7200 $(PYTHON) -m pytest -m "slow or not slow" tests/uml

test-vagrant: setup ## the virtual machine's set-up in a fresh Debian 12, Debian 13 and Ubuntu 24.04, booted in user-mode Linux (needs root)
	$(PYTHON) -m pytest tests/vagrant/fresh_systems.py

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

setup: ## Debian packages and the Python environment, if missing
	@vagrant/provision.sh

setup-ryu: setup ## a second environment, with Ryu in place of os-ken, if missing
	@vagrant/provision.sh ryu

setup-prometheus: ## Prometheus for the tests, in build/, if missing
	@vagrant/provision.sh prometheus

pictures: setup ## draw the README's picture anew, and that of rates and QBERs against distance
	$(PYTHON) -P -m testbed.pictures poliqi > docs/poliqi.svg
	$(PYTHON) -P -m testbed.experiments.qc_rate docs/qc-rate.svg

interface: setup ## the table and the schemas of the operator's interface anew, in docs/operator.md and docs/operator.schema.json
	$(PYTHON) -P -m testbed.operation.interface

screenshot: setup ## the README's pictures of the live view and of a story anew, from a running PoliQI (needs root)
	$(PYTHON) -m tests.e2e.screenshot docs/live-view.png docs/story.svg

lock: ## write requirements/lock.txt and ryu-lock.txt anew from the .in files
	rm -rf build/lock-venv && /usr/bin/python3 -m venv build/lock-venv
	build/lock-venv/bin/pip install --quiet -r requirements/runtime.in -r requirements/test.in setuptools
	(echo "# Written by 'make lock'; do not edit."; build/lock-venv/bin/pip freeze --all --exclude pip) > requirements/lock.txt
	rm -rf build/lock-venv && /usr/bin/python3 -m venv build/lock-venv
	(grep -v '^setuptools==' requirements/lock.txt; grep '==' requirements/ryu.in) > build/ryu-constraints.txt
	PIP_CONSTRAINT=build/ryu-constraints.txt PIP_BUILD_CONSTRAINT=build/ryu-constraints.txt \
	  build/lock-venv/bin/pip install --quiet -r requirements/ryu.in
	(echo "# Written by 'make lock'; do not edit."; build/lock-venv/bin/pip freeze --all --exclude pip) > requirements/ryu-lock.txt

clean: ## everything made here but the runs
	rm -rf .venv .venv-ryu build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
