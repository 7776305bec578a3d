# runc's own integration tests. Included by the top Makefile, which has the target `build`.
#
#   make runc-tests                            set up and run all on rcrun, and beside it on runc
#   make runc-tests FILES="exec.bats tty.bats" only these files
#   make runc-tests-doc                        all, and write docs/runc-tests.md

RUNC_TESTS_DIR ?= build/runc-tests
RUNC_TESTS = $(CARGO) run --quiet --package runtime-tests --bin runc-tests -- \
	$(RUNC_TESTS_DIR) $(addprefix --file ,$(FILES))

.PHONY: runc-tests runc-tests-doc runc-tests-setup
runc-tests: build runc-tests-setup ## runc's own tests, on rcrun and on runc
	$(RUNC_TESTS) rcrun=$(RCRUN) runc=$(RUNC_TESTS_DIR)/runc

runc-tests-doc: build runc-tests-setup
	$(RUNC_TESTS) --doc docs/runc-tests.md rcrun=$(RCRUN) runc=$(RUNC_TESTS_DIR)/runc

runc-tests-setup:
	runtime-tests/runc-tests/setup $(RUNC_TESTS_DIR)
