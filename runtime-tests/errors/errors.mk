# What goes wrong, and what is said. Included by the top Makefile, which has the target `build`.
#
#   make errors     meet all cases with rcrun, runc and crun, and write docs/errors.md
#
# The test `errors`, which `make test` runs, holds rcrun to its cases and to the document.

.PHONY: errors
errors: build bench-setup-quick ## what rcrun, runc and crun say to what is broken, into docs/errors.md
	ERRORS_WRITE=1 RUNC=$$(command -v runc) CRUN=$(CURDIR)/build/bench/crun/crun \
		$(CARGO) test --locked --quiet --package runtime-tests --test errors the_document_shows_what_rcrun_says
