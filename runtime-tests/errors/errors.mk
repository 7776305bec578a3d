# What goes wrong, and what is said. Included by the top Makefile, which has the target `build`.
#
#   make errors     meet all cases with rcrun, runc and crun, and write docs/errors.md
#   make errors-vm  the same, once the cases that want controllers have been met in user-mode Linux
#
# The test `errors`, which `make test` runs, holds rcrun to its cases and to the document.

ERRORS_OF_MACHINE = $(CURDIR)/build/errors-of-machine

.PHONY: errors errors-vm
errors-vm: setup build ## what they say where controllers are, too
	mkdir -p build
	$(RUN_MACHINES) uml --program vm --command "ERRORS_ROWS=1 tests/vm errors::" </dev/null >$(ERRORS_OF_MACHINE).new || \
		{ cat $(ERRORS_OF_MACHINE).new; exit 1; }
	mv $(ERRORS_OF_MACHINE).new $(ERRORS_OF_MACHINE)
	$(MAKE) errors

errors: build bench-setup-quick ## what rcrun, runc and crun say to what is broken, into docs/errors.md
	$(if $(wildcard $(ERRORS_OF_MACHINE)),ERRORS_OF_MACHINE=$(ERRORS_OF_MACHINE)) ERRORS_WRITE=1 RUNC=$$(command -v runc) CRUN=$(CURDIR)/build/bench/crun/crun \
		$(CARGO) test --locked --quiet --package runtime-tests --test errors the_document_shows_what_rcrun_says
