# runc's own integration tests. Included by the top Makefile, which has the target `build`.
#
#   make runc-tests                            set up and run all on rcrun, and beside it on runc
#   make runc-tests FILES="exec.bats tty.bats" only these files
#   make runc-tests-vm                         in machines what a machine adds (hours: an emulated machine forks slowly)
#   make runc-tests-vm RUNC_TESTS_VM="uml root+systemd"    only this one, and others that begin so
#   make runc-tests-doc                        docs/runc-tests.md, of the records of such runs
#
# A run that met the list becomes a record in the repository (records/): all of them take hours, more than one machine has in
# a day, and the page shows them together. Commit it with the page.

RUNC_TESTS_DIR ?= build/runc-tests
RUNC_TESTS = $(CARGO) run --locked --quiet --package runtime-tests --bin runc-tests --
export RUNC_TESTS_VM

.PHONY: runc-tests runc-tests-vm runc-tests-doc runc-tests-setup
runc-tests: build runc-tests-setup ## runc's own tests, on rcrun and on runc
	@rm -f $(RUNC_TESTS_DIR)/output
	$(RUNC_TESTS) $(RUNC_TESTS_DIR) $(addprefix --file ,$(FILES)) --record $(RUNC_TESTS_DIR)/output \
		rcrun=$(RCRUN) runc=$(RUNC_TESTS_DIR)/suite/runc
	$(if $(FILES),,runtime-tests/runc-tests/keep-record $(RUNC_TESTS_DIR)/output native)

runc-tests-vm: setup build runc-tests-setup ## the same in machines, with systemd and as a user
	$(CARGO) build --locked --quiet --package runtime-tests --bin runc-tests
	runtime-tests/runc-tests/in-machines $(RUNC_TESTS_DIR) $(DRIVERS)/runc-tests $(RUN_MACHINES)

runc-tests-doc:
	@mkdir -p $(RUNC_TESTS_DIR)
	$(RUNC_TESTS) --document runtime-tests/runc-tests/records >$(RUNC_TESTS_DIR)/runc-tests.md
	mv $(RUNC_TESTS_DIR)/runc-tests.md docs/runc-tests.md

runc-tests-setup:
	runtime-tests/runc-tests/setup $(RUNC_TESTS_DIR)
