#!/usr/bin/env bash
# Collects a release build's programs, CUDA test binaries and fixtures into FOLDER, and into FOLDER.tar.xz under 64 MB, to
# be run on a machine without cargo: tests/gpu-check/package.sh FOLDER
set -euo pipefail
folder=$(realpath -m "${1:?a folder for the package}")
cd "$(dirname "$0")/../.."
readonly BYTES_MAX=64000000

main() {
    rm -rf "$folder" "$folder.tar.xz"
    mkdir -p "$folder"/{bin,tests}
    # No silent build without kernels: there would be nothing to check.
    cargo build --release -p lichen-runtime -p lichen-trainer -p lichen-tests --bin lichen --bin lichen-train \
        --bin lichen-gpu-check
    cp target/release/lichen target/release/lichen-train target/release/lichen-gpu-check "$folder/bin"
    # The build's own list of test binaries: names of files say neither package nor age.
    {
        cargo test --release -p lichen-cuda-emulator --tests --no-run --message-format=json
        cargo test --release -p lichen-tests --test 'cuda_*' --no-run --message-format=json
    } >target/gpu-check-tests.json
    python3 - target/gpu-check-tests.json "$folder/tests" <<'PYTHON'
import json, shutil, sys
for line in open(sys.argv[1]):
    message = json.loads(line)
    target = message.get("target", {})
    if not message.get("executable") or target.get("kind") != ["test"]:
        continue
    # What tests the emulator, or what the tests share, says nothing of a driver.
    is_op = "/cuda-emulator/" in target["src_path"] and not target["name"].startswith(("emulator", "common"))
    if is_op or target["name"].startswith("cuda_"):
        shutil.copy(message["executable"], f"{sys.argv[2]}/{target['name']}")
PYTHON
    [[ -n $(ls "$folder/tests") ]] || { echo "gpu-package: no CUDA tests were built" >&2; exit 1; }
    strip "$folder"/bin/* "$folder"/tests/*
    cp tests/gpu-check/run.sh "$folder"
    mkdir "$folder/fixtures"
    cp -r tests/fixtures/tiny-* tests/fixtures/training "$folder/fixtures"
    git rev-parse HEAD >"$folder/commit" 2>/dev/null || true
    # Every program holds the same kernels: a dictionary longer than all of them keeps one copy (90 MB with gzip, 20 so).
    tar -C "$(dirname "$folder")" -cf - "$(basename "$folder")" | xz --lzma2=preset=5,dict=384MiB >"$folder.tar.xz"
    local bytes glibc
    bytes=$(stat -c %s "$folder.tar.xz")
    glibc=$(readelf --version-info --wide "$folder"/bin/* "$folder"/tests/* | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)
    echo "gpu-package: $folder.tar.xz, $bytes bytes, needs $glibc; unpack it there and start run.sh"
    ((bytes <= BYTES_MAX)) || { echo "gpu-package: more than $BYTES_MAX bytes" >&2; exit 1; }
}

main
