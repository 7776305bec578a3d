# Real engines with rcrun in runc's place, and containerd with rcrun's shim for long. Included by the top Makefile, which has the target `build`.
#
#   make engines                                all: natively with Debian 12's engines and with trixie's, then in a machine
#   make engines-trixie TESTS="docker:: podman::exec"    those whose names have one of these in them
#   make engines-trixie SETUPS=cgroupfs-shim    Docker on containerd-shim-rcrun-v2; without it, on that and the stock shim
#   make engines-bookworm RUNTIME=/usr/sbin/runc    what another runtime makes of the same
#   make engines-vm                             limits, statistics, systemd's cgroups, ordinary users: in user-mode Linux
#   make engines-vm ENGINES_MACHINE=qemu SETUPS="systemd systemd-shim cgroupfs" TESTS="limits:: rootless::docker"
#   make engines-chosen                         some minutes of the two: trixie's Docker on rcrun's shim, its limits under systemd

ENGINES_MACHINE ?= uml
SETUPS ?=
REAL_ENGINES = cargo test --locked --package runtime-tests --test real_engines --
ENGINES_SETUPS = $(addprefix --setup ,$(or $(SETUPS),$(1)))

# By containerd-shim-rcrun-v2, which Docker 20.10 does not take; the rest of it is in engines-bookworm too.
CHOSEN_NATIVELY ?= docker:: build:: compose::
# What no engine of this machine can show: limits in force, a kill told from a scope that is gone, systemd reading its units anew.
CHOSEN_IN_MACHINE ?= limits::a_first limits::limits_are_those limits::statistics limits::systemd

.PHONY: engines engines-bookworm engines-trixie engines-vm engines-chosen
engines: engines-bookworm engines-trixie engines-vm ## run Docker, podman, buildah, ctr and compose on rcrun

engines-bookworm: setup build ## the same, with Debian 12's engines only
	@runtime-tests/install-packages runtime-tests/engines/packages
	image=$$(runtime-tests/engines/make-image) && \
		ENGINES_IMAGE=$$image RUNTIME="$(RUNTIME)" $(REAL_ENGINES) $(TESTS)

# RUNTIME is a path in the machine's disk then.
engines-trixie: setup build ## the same, with trixie's engines only, from a test machine's disk
	@runtime-tests/install-packages runtime-tests/engines/packages
	image=$$(runtime-tests/engines/make-image) && disk=$$(runtime-tests/machines/build engines) && \
		ENGINES_IMAGE=$$image ENGINES_DISK=$$disk RUNTIME="$(RUNTIME)" \
		$(REAL_ENGINES) $(call ENGINES_SETUPS,cgroupfs $(if $(RUNTIME),,cgroupfs-shim)) $(TESTS)

engines-vm: setup build ## run trixie's engines on rcrun in a machine with all of cgroup v2 and systemd
	disk=$$(runtime-tests/machines/build engines) && \
		$(CARGO) run --locked --quiet --package runtime-tests --bin machines -- $$disk $(RCRUN) $(ENGINES_MACHINE) \
		--minutes 90 --program real_engines --command 'tests/real_engines --machine $(call ENGINES_SETUPS,systemd systemd-shim) $(TESTS)'

engines-chosen: ## some minutes of engines-trixie and engines-vm
	$(MAKE) engines-trixie SETUPS=cgroupfs-shim TESTS="$(CHOSEN_NATIVELY)"
	$(MAKE) engines-vm SETUPS=systemd-shim TESTS="$(CHOSEN_IN_MACHINE)"

.PHONY: endurance endurance-vm
# Containers made, entered, killed and deleted under containerd, while the shim and containerd are killed at random.
#
#   make endurance MINUTES=60 SEED=7
#   make endurance-vm MINUTES=60 ENGINES_MACHINE=qemu    in a machine, with trixie's containerd
MINUTES ?= 3
SEED ?=
ENDURANCE = --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

endurance: setup build ## a random load on containerd through the shim, both killed at random; nothing may be left
	cargo test --locked --package runtime-tests --test endurance -- $(ENDURANCE)

# The machine has its time to boot, and to look for what is left, on top.
endurance-vm: setup build ## the same in a machine with all of cgroup v2 and systemd
	disk=$$(runtime-tests/machines/build) && \
		$(CARGO) run --locked --quiet --package runtime-tests --bin machines -- $$disk $(RCRUN) $(ENGINES_MACHINE) \
		--minutes $$(( $(MINUTES) + 20 )) --program endurance --command 'tests/endurance $(ENDURANCE)'
