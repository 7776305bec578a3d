# Tests in machines of our own. Included by the top Makefile, which has the target `build`.
#
#   make test-vm                                    all of them: user-mode Linux, then QEMU
#   make test-vm MACHINES=uml TESTS="vm::limits"    one machine, tests whose names begin so
#   make in-vm MACHINES=uml COMMAND="systemctl status"    any command in a machine; $RCRUN is there

MACHINES ?= uml qemu
COMMAND ?= systemctl --no-pager status
export COMMAND
RUN_MACHINES = $(CARGO) run --locked --quiet --package runtime-tests --bin machines -- \
	"$$(runtime-tests/machines/build)" $(RCRUN)

.PHONY: test-vm in-vm machines-disks
test-vm: setup build ## run tests in machines with all of cgroup v2 (made at first use)
	$(RUN_MACHINES) $(MACHINES) $(addprefix --test ,$(TESTS))

in-vm: setup build
	$(RUN_MACHINES) $(firstword $(MACHINES)) --command "$$COMMAND"

machines-disks: ## make what the machines of test-vm and of engines-vm boot from, which else their first use makes
	runtime-tests/machines/build
	runtime-tests/machines/build engines
