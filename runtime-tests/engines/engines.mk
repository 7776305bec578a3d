# Real engines with rcrun in runc's place. Included by the top Makefile, which has the target `build`.
#
#   make engines                                all of it, on this machine, in namespaces of its own
#   make engines TESTS="docker:: podman::exec"  those whose names have one of these in them
#   make engines RUNTIME=/usr/sbin/runc         what another runtime makes of the same

.PHONY: engines
engines: setup build ## run Docker, podman, buildah, ctr and compose on rcrun
	@runtime-tests/install-packages runtime-tests/engines/packages
	ENGINES_IMAGE="$$(runtime-tests/engines/make-image)" RUNTIME="$(RUNTIME)" \
		cargo test --locked --package runtime-tests --test real_engines -- $(TESTS)
