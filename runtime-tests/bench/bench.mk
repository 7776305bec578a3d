# The benchmark. `make bench` sets up everything, times all runtimes and writes docs/benchmarks.md and its plot;
# `make bench-gate` checks only what rcrun promises, in a minute or two; `make bench-steps` shows where a run's time goes.
# `make bench-load` times verbs with hundreds of containers, thousands of cgroups and of mounts and writes
# docs/benchmarks-load.md (`make bench` does too); `make bench-load-gate` checks what is promised of that.
# `make bench-engines` times containers through containerd and Docker and writes docs/benchmarks-engines.md; `make
# bench-engines-gate` checks what is promised of that.
# `make layout` finds which functions a start executes, for the linker.
# `make bench-image` times how an image becomes a root file system and writes docs/benchmarks-image.md; `make
# bench-image-gate` checks what is promised of that.

RCRUN ?= target/release/rcrun
# More rounds make steadier medians.
BENCH_ROUNDS ?= 60
BENCH_GATE_ROUNDS ?= 40
# Under load: how often rounds alone and rounds under a load take turns.
BENCH_LOAD_BLOCKS ?= 8
BENCH_LOAD_GATE_BLOCKS ?= 6
# Through engines: a round is five containers through containerd, two rounds one of Docker's.
BENCH_ENGINES_ROUNDS ?= 40
BENCH_ENGINES_GATE_ROUNDS ?= 15
# The gate lets a promise be missed by this factor. 1 is the promise itself; CI, on shared cores, catches what grows.
BENCH_SLACK ?= 1
# Which runtimes stand beside the floor.
BENCH_RUNTIMES ?= rcrun runc crun youki bare
# Put before the benchmark; on a machine with other work, `chrt --fifo 10` keeps that out.
BENCH_PREFIX ?=
# Writes the floor's seccomp filter, as struct sock_filter, to $OUT from the config.json in $BUNDLE.
BENCH_SECCOMP_COMMAND ?= $(RCRUN) plan --seccomp-out "$$OUT" "$$BUNDLE"
# Docker's default profile in the form of config.json.
BENCH_PROFILE ?= runtime-tests/samples/seccomp/docker-default.json
# A round of images takes about a minute.
BENCH_IMAGE_ROUNDS ?= 7
BENCH_IMAGE_GATE_ROUNDS ?= 3
# A folder to unpack images in, new ones each time; without, each time a tmpfs of its own.
BENCH_IMAGE_DIR ?=

BENCH_BINARY := $(or $(CARGO_TARGET_DIR),target)/release/bench
BENCH = $(BENCH_PREFIX) $(BENCH_BINARY)
BENCH_LOAD = $(BENCH) load $(BENCH_OPTIONS) --blocks $(BENCH_LOAD_BLOCKS) --runtimes "$(BENCH_RUNTIMES)"
BENCH_OPTIONS = --rcrun $(RCRUN) --seccomp-command '$(BENCH_SECCOMP_COMMAND)' --profile $(BENCH_PROFILE)

.PHONY: bench bench-gate bench-steps bench-load bench-load-gate bench-image bench-image-gate bench-image-setup bench-engines bench-engines-gate bench-setup bench-setup-quick bench-binary layout

bench: build bench-setup bench-binary
	$(BENCH) table $(BENCH_OPTIONS) --rounds $(BENCH_ROUNDS) --runtimes "$(BENCH_RUNTIMES)"
	$(BENCH_LOAD)

bench-load: build bench-setup bench-binary
	$(BENCH_LOAD)

bench-load-gate: build bench-setup-quick bench-binary
	$(BENCH) load-gate $(BENCH_OPTIONS) --blocks $(BENCH_LOAD_GATE_BLOCKS) --slack $(BENCH_SLACK) --runtimes rcrun

bench-gate: build bench-setup-quick bench-binary
	$(BENCH) gate $(BENCH_OPTIONS) --rounds $(BENCH_GATE_ROUNDS) --slack $(BENCH_SLACK) --runtimes "rcrun crun runc"

bench-steps: build bench-setup-quick bench-binary
	$(BENCH) steps $(BENCH_OPTIONS) --runtimes "rcrun"

# Where the linker puts the functions of a start: src/cli/layout.ld, after changes that move much.
layout: bench-setup-quick bench-binary
	$(BUILD_FLAGS) cargo rustc --locked --release --target $(TARGET) --package rcrun --bin rcrun -- -C strip=none
	$(BENCH) layout $(BENCH_OPTIONS) --runtimes rcrun

bench-image: build bench-image-setup bench-binary ## time how an image is unpacked, here and by other tools
	$(BENCH) image --rcrun $(RCRUN) --rounds $(BENCH_IMAGE_ROUNDS) --unpack-in '$(BENCH_IMAGE_DIR)'

bench-image-gate: build bench-image-setup bench-binary
	$(BENCH) image-gate --rcrun $(RCRUN) --rounds $(BENCH_IMAGE_GATE_ROUNDS) --slack $(BENCH_SLACK) \
		--unpack-in '$(BENCH_IMAGE_DIR)'

bench-engines: build bench-setup-quick bench-binary ## time containers through containerd and Docker, by rcrun's shim and by runc's
	@runtime-tests/install-packages runtime-tests/packages runtime-tests/engines/packages
	$(BENCH) engines --rcrun $(RCRUN) --rounds $(BENCH_ENGINES_ROUNDS)

bench-engines-gate: build bench-setup-quick bench-binary
	@runtime-tests/install-packages runtime-tests/packages
	$(BENCH) engines-gate --rcrun $(RCRUN) --rounds $(BENCH_ENGINES_GATE_ROUNDS) --slack $(BENCH_SLACK)

bench-image-setup:
	runtime-tests/bench/image.sh

bench-setup:
	runtime-tests/bench/setup.sh

bench-setup-quick:
	runtime-tests/bench/setup.sh quick

bench-binary:
	CARGO_PROFILE_RELEASE_LTO=off cargo build --locked --release --quiet -p runtime-tests --bin bench
