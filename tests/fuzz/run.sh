#!/usr/bin/env bash
# tests/fuzz/run.sh SECONDS [TARGET..]: fuzzes each target that long, from small files that are made and found, and says how
# many inputs it tried. What it finds lies in tests/fuzz/artifacts/TARGET: `cargo fuzz run TARGET FILE` replays it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: tests/fuzz/run.sh SECONDS [TARGET..]}
shift
# cargo-fuzz asks for the nightly toolchain's flags; the stable one knows them too.
export RUSTC_BOOTSTRAP=1
# Every input that makes a parser slower than this, or larger, is a finding.
readonly TIMEOUT_S=5 RSS_LIMIT_MIB=1024 INPUT_MAX_KIB=128

main() {
    local target failed=()
    local targets=("$@")
    ((${#targets[@]})) || mapfile -t targets < <(cargo fuzz list)
    cargo run --quiet -p lichen-tests --example fuzz_seeds -- fuzz/corpus
    for target in "${targets[@]}"; do
        seeds "$target"
        cargo fuzz build "$target" 2>&1 | grep -E '^(error|warning)' || true
        local log=fuzz/artifacts/$target.log
        mkdir -p fuzz/artifacts
        if cargo fuzz run "$target" "fuzz/corpus/$target" "fuzz/corpus/$target.seeds" -- \
            -max_total_time="$seconds" -timeout="$TIMEOUT_S" -rss_limit_mb="$RSS_LIMIT_MIB" -max_len=$((INPUT_MAX_KIB * 1024)) \
            -print_final_stats=1 >"$log" 2>&1; then
            printf '%-16s %12d inputs, no finding\n' "$target" "$(executed "$log")"
        else
            printf '%-16s %12d inputs, FOUND: tests/%s\n' "$target" "$(executed "$log")" "$log"
            failed+=("$target")
        fi
    done
    ((${#failed[@]} == 0))
}

# What the mutation tests feed the readers, and sound files of the ecosystem's own writers, as far as they are small.
seeds() {
    local into=fuzz/corpus/$1.seeds file pattern=
    mkdir -p "$into" "fuzz/corpus/$1"
    case $1 in
        hf_config) pattern='config*.json' ;;
        adapter_config) pattern='adapter_config.json' ;;
        tokenizer_json) pattern='tokenizer.json' ;;
        chat_template) pattern='*.jinja' ;;
        *) return 0 ;;
    esac
    while IFS= read -r file; do
        cp "$file" "$into/${file//\//-}"
    done < <(find fixtures -name "$pattern" -type f -size "-${INPUT_MAX_KIB}k" | sort)
}

executed() { sed -nE 's/^stat::number_of_executed_units: *([0-9]+).*/\1/p' "$1" | tail -n 1 | grep . || echo 0; }

main "$@"
