# Every target is one or a few commands that also work by hand.
.PHONY: check test fmt lint docs deny oracle soak soak-files soak-runs fuzz peers cuda-report kernel gpu-package gpu-check

# What a change must pass before it is sent; .ci/run adds the aarch64 build.
check: fmt lint test docs oracle deny

test:
	cargo test --workspace

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Reads every GGUF file of the repository with our reader and with gguf-rs.
oracle:
	cargo run --manifest-path tests/gguf-oracle/Cargo.toml

# Licences, doubles, origins, advisories. Needs `cargo install cargo-deny --locked`, and the network for advisories.
deny:
	@if command -v cargo-deny >/dev/null; then cargo deny check; \
	else echo "deny: skipped, cargo-deny is not installed (cargo install cargo-deny --locked)"; fi

# The mutation tests, SCALE times as long and from another seed: about an hour on two cores. Then training and its
# checkpoints with RUNS times as many kills, signals, failing calls and power cuts. LICHEN_SEED replays a failure.
SCALE ?= 50
RUNS ?= 10
SEED ?= $(shell date +%s)
soak: soak-files soak-runs

soak-files:
	LICHEN_FUZZ_SCALE=$(SCALE) LICHEN_SEED=$(SEED) cargo test --release -p lichen-tests -- --nocapture mutation mutated

soak-runs:
	LICHEN_FUZZ_SCALE=$(RUNS) LICHEN_SEED=$(SEED) cargo test --release -p lichen-tests --test checkpoints \
		--test train_program -- --nocapture

# Coverage-guided, SECONDS for each parser. Needs `cargo install cargo-fuzz --locked` and a C++ compiler; the stable
# toolchain will do.
FUZZ_SECONDS ?= 300
FUZZ_TARGETS ?=
fuzz:
	tests/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

# What we write opens in llama.cpp and in transformers with bitsandbytes. Needs PyPI packages: tests/peers/README.md.
PYTHON ?= python3
peers:
	cargo build --release
	$(PYTHON) tests/peers/check_llama_cpp.py --model runtime/demo/lichen-demo-q8_0.gguf --lichen target/release/lichen
	rm -rf target/peers && mkdir -p target/peers
	target/release/lichen-host quantize --model tests/fixtures/tiny-gemma3 --format nf4 --out target/peers/nf4
	$(PYTHON) tests/peers/check_transformers.py --model target/peers/nf4 --lichen target/release/lichen

# Registers, shared memory, spills and slots per weight of every CUDA kernel, without a GPU. Needs clang 19; downloads ptxas
# and nvdisasm. Writes tests/cuda-report/kernels.md; .ci/run compares.
CUDA_TOOLS ?= target/cuda-tools
cuda-report:
	tests/cuda-report/fetch_tools.sh $(CUDA_TOOLS)
	LICHEN_PTXAS=$(CUDA_TOOLS)/ptxas LICHEN_NVDISASM=$(CUDA_TOOLS)/nvdisasm $(PYTHON) tests/cuda-report/report.py

# What the kernels of one file take, and their innermost loops: `make kernel K=matmul/decode/decode_nf4 ARCH=53`.
K ?=
ARCH ?= 53
kernel:
	@tests/cuda-report/fetch_tools.sh $(CUDA_TOOLS)
	@LICHEN_PTXAS=$(CUDA_TOOLS)/ptxas LICHEN_NVDISASM=$(CUDA_TOOLS)/nvdisasm \
		$(PYTHON) tests/cuda-report/kernel.py "$(K)" --arch "$(ARCH)"

# The CUDA kernels on a real GPU: parity tests, benchmarks, one JSON under tests/benchmarks/results (or in OUT). The package
# runs by itself on a machine without cargo: copy target/gpu-check.tar.xz there, unpack it, start run.sh.
gpu-package:
	tests/gpu-check/package.sh target/gpu-check

gpu-check: gpu-package
	OUT=$(or $(OUT),tests/benchmarks/results) target/gpu-check/run.sh
