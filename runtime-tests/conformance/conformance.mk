# The OCI conformance suite. Included by the top Makefile, which has the target `build`.
#
#   make conformance                      set up and run all tests on rcrun, and beside it on runc
#   make conformance TESTS="kill state"   only these tests
#   make conformance RUNTIMES="crun=/usr/bin/crun"   another runtime: the first one named is judged
#   make conformance-vm                   in a machine, on rcrun and trixie's runc and crun: MACHINES=qemu for the other one
#   make conformance-doc                  natively and in a machine, on all three, and write docs/conformance.md

CARGO ?= cargo
RCRUN ?= $(or $(CARGO_TARGET_DIR),target)/release/rcrun
# Where cargo puts the drivers of other people's suites.
DRIVERS = $(or $(CARGO_TARGET_DIR),target)/debug
RUNTIMES ?= rcrun=$(RCRUN) runc=/usr/bin/runc
VM_RUNTIMES ?= rcrun=./rcrun runc=/usr/sbin/runc crun=/usr/bin/crun
CONFORMANCE_DIR ?= build/conformance
CONFORMANCE_RECORDS = $(CONFORMANCE_DIR)/records
CONFORMANCE = $(CARGO) run --locked --quiet --package runtime-tests --bin conformance --

.PHONY: conformance conformance-vm conformance-doc conformance-setup
conformance: build conformance-setup
	$(CONFORMANCE) $(CONFORMANCE_DIR) $(addprefix --test ,$(TESTS)) $(RUNTIMES)

conformance-vm: setup build conformance-setup ## the OCI conformance suite in a machine
	$(CARGO) build --locked --quiet --package runtime-tests --bin conformance
	install -s $(DRIVERS)/conformance $(CONFORMANCE_DIR)/suite/driver
	@mkdir -p $(CONFORMANCE_RECORDS)
	set -o pipefail; $(RUN_MACHINES) $(firstword $(MACHINES)) --minutes 120 --carry $(CONFORMANCE_DIR)/suite --command \
		'suite/driver . $(addprefix --test ,$(TESTS)) --record - $(VM_RUNTIMES)' </dev/null | tee $(CONFORMANCE_RECORDS)/machine

conformance-doc: conformance-vm
	rm -f $(CONFORMANCE_RECORDS)/native
	$(CONFORMANCE) $(CONFORMANCE_DIR) --record $(CONFORMANCE_RECORDS)/native $(RUNTIMES) crun=/usr/bin/crun
	$(CONFORMANCE) --document $(CONFORMANCE_RECORDS)/native $(CONFORMANCE_RECORDS)/machine >$(CONFORMANCE_DIR)/conformance.md
	mv $(CONFORMANCE_DIR)/conformance.md docs/conformance.md

conformance-setup:
	runtime-tests/conformance/setup $(CONFORMANCE_DIR)
