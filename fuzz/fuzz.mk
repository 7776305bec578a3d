# Looks for inputs that break a target of fuzz/lib.rs, guided by the branches that they meet.

FUZZ_SECONDS ?= 60
# What libFuzzer's dice begin with; 0 is another beginning each time.
FUZZ_SEED ?= 0
FUZZ := target/fuzz/$(shell uname -m)-unknown-linux-gnu/release/fuzz

# What cargo-fuzz would say, without AddressSanitizer: that needs a nightly compiler, and the only code it would watch is
# zstd's C, which it does not see. sancov is a pass of the stable one.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
  -Ccodegen-units=1 --cfg fuzzing

.PHONY: fuzz fuzz-build fuzz-seeds fuzz-try

fuzz: fuzz-build fuzz-seeds ## look for inputs that break a parser: FUZZ_SECONDS=60 each, FUZZ_TARGETS="layer name" for some, FUZZ_SEED=1 for dice that begin the same
	FUZZ_SEED=$(FUZZ_SEED) fuzz/run $(CURDIR)/$(FUZZ) $(FUZZ_SECONDS) $(FUZZ_TARGETS)

# With --target the flags are not those of build scripts.
fuzz-build:
	@runtime-tests/install-packages src/packages fuzz/packages
	RUSTFLAGS='$(FUZZ_FLAGS)' CARGO_TARGET_DIR=$(CURDIR)/target/fuzz cargo build --locked --release \
	  --manifest-path fuzz/engine/Cargo.toml --target $(shell uname -m)-unknown-linux-gnu

# What the tests of images unpack and open is what fuzzing begins with.
fuzz-seeds: setup
	rm -rf build/fuzz/seeds
	RCRUN_SEEDS=$(CURDIR)/build/fuzz/seeds cargo test --locked --package rcrun-image --lib -- layer::tests::
	RCRUN_SEEDS=$(CURDIR)/build/fuzz/seeds cargo test --locked --package rcrun-image --test sources
	cargo run --locked --package rcrun-fuzz --bin seeds -- build/fuzz/seeds

fuzz-try: fuzz-build ## try one input: FUZZ_TARGET=layer INPUT=build/fuzz/crashes/layer/crash-...
	FUZZ_TARGET=$(FUZZ_TARGET) $(FUZZ) $(INPUT)
