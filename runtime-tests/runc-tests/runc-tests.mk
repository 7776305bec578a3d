# runc's own integration tests. Included by the top Makefile, which has the target `build`.
#
#   make runc-tests                            set up and run all on rcrun, and beside it on runc
#   make runc-tests FILES="exec.bats tty.bats" only these files
#   make runc-tests-vm                         in machines what a machine adds (hours: an emulated machine forks slowly)
#   make runc-tests-vm RUNC_TESTS_VM="uml root+systemd"    only this one, and others that begin so
#   make runc-tests-doc                        docs/runc-tests.md, of the records that these runs have left

RUNC_TESTS_DIR ?= build/runc-tests
RUNC_TESTS_RECORDS = $(RUNC_TESTS_DIR)/records
RUNC_TESTS = $(CARGO) run --locked --quiet --package runtime-tests --bin runc-tests --
export RUNC_TESTS_VM

.PHONY: runc-tests runc-tests-vm runc-tests-doc runc-tests-setup
runc-tests: build runc-tests-setup ## runc's own tests, on rcrun and on runc
	@mkdir -p $(RUNC_TESTS_RECORDS)
	@rm -f $(RUNC_TESTS_RECORDS)/native.new
	$(RUNC_TESTS) $(RUNC_TESTS_DIR) $(addprefix --file ,$(FILES)) --record $(RUNC_TESTS_RECORDS)/native.new \
		rcrun=$(RCRUN) runc=$(RUNC_TESTS_DIR)/suite/runc
	$(if $(FILES),,mv $(RUNC_TESTS_RECORDS)/native.new $(RUNC_TESTS_RECORDS)/native)

$(RUNC_TESTS_RECORDS)/native:
	$(MAKE) runc-tests

runc-tests-vm: setup build runc-tests-setup $(RUNC_TESTS_RECORDS)/native ## the same in machines, with systemd and as a user
	$(CARGO) build --locked --quiet --package runtime-tests --bin runc-tests
	runtime-tests/runc-tests/in-machines $(RUNC_TESTS_DIR) $(DRIVERS)/runc-tests $(RUN_MACHINES)

runc-tests-doc:
	$(RUNC_TESTS) --document $(RUNC_TESTS_RECORDS)/native $(filter-out %/native %.new,$(wildcard $(RUNC_TESTS_RECORDS)/*)) \
		>$(RUNC_TESTS_DIR)/runc-tests.md
	mv $(RUNC_TESTS_DIR)/runc-tests.md docs/runc-tests.md

runc-tests-setup:
	runtime-tests/runc-tests/setup $(RUNC_TESTS_DIR)
