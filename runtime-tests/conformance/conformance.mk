# The OCI conformance suite. Included by the top Makefile, which has the target `build`.
#
#   make conformance                      set up and run all tests on rcrun, and beside it on runc
#   make conformance TESTS="kill state"   only these tests
#   make conformance RUNTIMES="crun=/usr/bin/crun"   another runtime: the first one named is judged
#   make conformance-doc                  the same, and write docs/conformance.md

CARGO ?= cargo
RCRUN ?= $(or $(CARGO_TARGET_DIR),target)/release/rcrun
RUNTIMES ?= rcrun=$(RCRUN) runc=/usr/bin/runc
CONFORMANCE_DIR ?= build/conformance
CONFORMANCE = $(CARGO) run --quiet --package runtime-tests --bin conformance -- \
	$(CONFORMANCE_DIR) $(addprefix --test ,$(TESTS))

.PHONY: conformance conformance-doc conformance-setup
conformance: build conformance-setup
	$(CONFORMANCE) $(RUNTIMES)

conformance-doc: build conformance-setup
	$(CONFORMANCE) --doc docs/conformance.md $(RUNTIMES)

conformance-setup:
	runtime-tests/conformance/setup $(CONFORMANCE_DIR)
