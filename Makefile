# rcrun's two commands: `make run` sets up, builds and shows a container; `make test` sets up and runs all tests.
# Everything made lies in target/, build/ and bundles/*/rootfs.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export CARGO_TERM_PROGRESS_WHEN ?= never
# What runs is what was built: with a folder that the caller's environment names the tests would take an older one from here.
export CARGO_TARGET_DIR := $(CURDIR)/target

# Static against musl where its target can be installed: it starts sooner. Else glibc, static too.
build/target.mk: runtime-tests/choose-target
	@mkdir -p build
	@runtime-tests/choose-target > $@.new && mv $@.new $@
ifneq ($(MAKECMDGOALS),clean)
include build/target.mk
endif

RCRUN := $(CURDIR)/target/$(TARGET)/release/rcrun
export RCRUN

.PHONY: help build run hello debian test unit-tests blackbox-tests lint setup clean man install uninstall deb

help: ## these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: ## install the Debian packages that building and testing need
	@runtime-tests/install-packages src/packages runtime-tests/packages

build: build/target.mk ## build the release binaries (target/*/release/rcrun and containerd-shim-rcrun-v2)
	@runtime-tests/install-packages src/packages
	$(BUILD_FLAGS) cargo build --locked --release --target $(TARGET) --package rcrun --package containerd-shim-rcrun-v2
	@ls -l $(RCRUN) $(dir $(RCRUN))containerd-shim-rcrun-v2

bundles/hello/rootfs: bundles/hello/recipe bundles/hello/hello
	bundles/hello/recipe

hello: setup bundles/hello/rootfs

run: hello build ## set up, build, and run the container of bundles/hello
	$(RCRUN) run bundles/hello

bundles/debian/rootfs: bundles/debian/recipe
	@runtime-tests/install-packages bundles/debian/packages
	bundles/debian/recipe

debian: bundles/debian/rootfs ## make the root of bundles/debian, for: rcrun run bundles/debian

man: ## man pages and shell completions, into build/manual, of the table that the parser is made from
	cargo run --locked --quiet --package rcrun --example manual -- build/manual

PREFIX ?= /usr/local

install: build man ## install rcrun, containerd's shim, man pages, completions: PREFIX=/usr/local DESTDIR=
	package/stage $(dir $(RCRUN)) build/manual '$(DESTDIR)' $(PREFIX)

uninstall: man ## remove what install placed
	package/unstage build/manual '$(DESTDIR)' $(PREFIX)

deb: build man ## a Debian package, into build
	package/deb $(dir $(RCRUN)) build/manual build

lint: setup ## formatting, lints, documentation; aarch64 must compile
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@runtime-tests/install-packages fuzz/packages
	cargo fmt --manifest-path fuzz/engine/Cargo.toml --check
	CARGO_TARGET_DIR=target/fuzz cargo clippy --locked --manifest-path fuzz/engine/Cargo.toml -- -D warnings
	cargo clippy --locked --package runtime-tests --test vm --test driver_cost --test real_engines --test endurance -- -D warnings
	cargo clippy --locked --release --package rcrun-init --features freestanding --target $(TARGET) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items
	$(if $(AARCH64),cargo check --locked --package rcrun-init --features freestanding --target $(AARCH64),@echo 'make lint: the aarch64 target cannot be installed here' && exit 1)

test: setup build hello unit-tests ## set up and run all tests but the conformance suite and the benchmark

unit-tests:
	cargo build --locked --workspace --example manual
	cargo test --locked --workspace --no-fail-fast

clean: ## remove what was built, not the cached test suites
	cargo clean
	rm -rf bundles/*/rootfs build/target.mk build/manual build/*.deb

include runtime-tests/conformance/conformance.mk
include runtime-tests/errors/errors.mk
include runtime-tests/runc-tests/runc-tests.mk
include runtime-tests/bench/bench.mk
include fuzz/fuzz.mk
include runtime-tests/machines/machines.mk
include runtime-tests/engines/engines.mk
