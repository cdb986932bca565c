#!/usr/bin/env bash
# Builds `lichen` and `lichen-train` for 64-bit ARM boards, checks what they need, and with --test runs the kernels' tests in an
# emulator. README.md in this folder says how and why.
set -euo pipefail

# What the packages and checks below are of.
readonly TRIPLE=aarch64-unknown-linux-gnu

apt_is_fresh=no

usage() {
    cat <<'TEXT'
Usage: cross/build-aarch64.sh [--board NAME] [--test] [-- CARGO_BUILD_ARGUMENT...]

Builds lichen and lichen-train in target/aarch64-unknown-linux-gnu/release and checks that they start on the board's glibc
with no library but glibc's own and libgcc_s.

  --board   a board of device-configs, whose [build] names the glibc and the cargo features [default: jetson-nano-4gb]
  --test    then run the kernels' tests under qemu, once as a Cortex-A57 (neon) and once with every extension (neon-dot)
  --show    print what would be built, and end
  --help    this text

Example: cross/build-aarch64.sh --test
TEXT
}

main() {
    local test=no show=no board=jetson-nano-4gb
    while (($#)); do
        case $1 in
            --board)
                (($# > 1)) || { usage >&2; exit 2; }
                board=$2
                shift
                ;;
            --test) test=yes ;;
            --show) show=yes ;;
            --help | -h) usage; exit 0 ;;
            --) shift; break ;;
            *) usage >&2; exit 2 ;;
        esac
        shift
    done
    cd "$(dirname "$0")/.."
    need python3 "python3"
    read_board "$board"
    if [[ $show == yes ]]; then
        say "board $board: triple $TRIPLE, glibc $GLIBC_MAX, features $FEATURES"
        exit 0
    fi
    [[ $(uname -sm) == "Linux x86_64" ]] || fail "cross-compiles from x86_64 Linux; on an ARM board 'cargo build' will do"
    need cargo "the Rust toolchain"
    need cc "a C compiler, for build scripts"
    need readelf "binutils"
    cache=$PWD/target/cross
    [[ -z ${XDG_CACHE_HOME:-} ]] || cache=$XDG_CACHE_HOME/lichen-cross
    mkdir -p "$cache/bin"
    log=$cache/log
    : >"$log"
    provide_linker
    provide_compiler
    [[ $test == no ]] || provide_emulator

    say "building lichen and lichen-train"
    cargo-zigbuild zigbuild --quiet --locked --release --target "$TRIPLE.$GLIBC_MAX" \
        -p lichen-runtime -p lichen-trainer --bin lichen --bin lichen-train \
        --no-default-features --features "$FEATURES" "$@"
    check_binary "target/$TRIPLE/release/lichen"
    check_binary "target/$TRIPLE/release/lichen-train"
    [[ $test == no ]] || run_tests
}

# Sets GLIBC_MAX and FEATURES to what the board's file says.
read_board() {
    local said values
    said=$(python3 cross/board.py "device-configs/$1.toml" 2>&1) || fail "$said"
    mapfile -t values <<<"$said"
    readonly GLIBC_MAX=${values[1]} FEATURES=${values[2]:-}
    [[ ${values[0]} == "$TRIPLE" ]] || fail "board $1 is ${values[0]}; this builds for $TRIPLE"
}

say() { printf 'cross: %s\n' "$*"; }

fail() {
    printf 'cross: %s\n' "$*" >&2
    exit 1
}

need() { command -v "$1" >/dev/null || fail "$1 not found: install $2"; }

# Runs a download quietly: package tools name their mirrors, which belong in the log and nowhere else.
logged() { "$@" >>"$log" 2>&1; }

# zig carries the symbol lists of every glibc, so it links against 2.27 on any machine; cargo-zigbuild drives it.
provide_linker() {
    local tools=$cache/pypi
    if ! is_complete "$tools" pypi.txt; then
        say "downloading the linker"
        mkdir -p "$tools/wheels"
        local pip=(python3 -m pip)
        if ! logged "${pip[@]}" --version; then
            # Debian ships pip as a wheel that runs by itself, apart from the package that installs it.
            fetch_debs "$tools/pip" python3-pip-whl
            pip=(python3 "$(echo "$tools"/pip/usr/share/python-wheels/pip-*.whl)/pip")
        fi
        logged "${pip[@]}" download --no-deps --only-binary :all: --require-hashes -d "$tools/wheels" -r cross/pypi.txt ||
            fail "the linker could not be downloaded from the Python package index: see $(shown "$log")"
        local wheel
        for wheel in "$tools"/wheels/*.whl; do
            python3 -m zipfile -e "$wheel" "$tools"
        done
        chmod +x "$tools/ziglang/zig" "$tools"/cargo_zigbuild-*.data/scripts/cargo-zigbuild
        complete "$tools" pypi.txt
    fi
    ln -sf "$tools"/cargo_zigbuild-*.data/scripts/cargo-zigbuild "$cache/bin/cargo-zigbuild"
    export CARGO_ZIGBUILD_ZIG_PATH=$tools/ziglang/zig CARGO_ZIGBUILD_CACHE_DIR=$cache/zigbuild
    export ZIG_GLOBAL_CACHE_DIR=$cache/zig ZIG_LOCAL_CACHE_DIR=$cache/zig
    export PATH=$cache/bin:$PATH
}

# rustup's target where it is installed; else Debian's compiler, whose standard library for arm64 is a package.
provide_compiler() {
    local sysroot
    sysroot=$(rustc --print sysroot)
    if [[ -d $sysroot/lib/rustlib/$TRIPLE/lib ]]; then
        say "compiler: $(rustc --version)"
        return
    fi
    local root=$cache/debian
    if ! is_complete "$root" build-aarch64.sh; then
        say "downloading a compiler with the target's standard library"
        refresh_apt
        # What the compiler runs on, but not the C library: that is this machine's own.
        local libs std
        libs=$(logged_output apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
            --no-replaces --no-enhances libstd-rust-web-dev | grep -E '^[a-z]' | grep -vE '^(libc6|libcrypt1|.*:.*)$')
        std=$(grep -E '^libstd-rust-web-[0-9.]+$' <<<"$libs") || fail "no package holds the compiler: see $(shown "$log")"
        # shellcheck disable=SC2086
        fetch_debs "$root" rustc-web rust-web-llvm $libs libstd-rust-web-dev:arm64 "$std:arm64"
        complete "$root" build-aarch64.sh
    fi
    cat >"$cache/bin/rustc-aarch64" <<SCRIPT
#!/bin/sh
LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu" exec "$root/usr/bin/rustc" --sysroot "$root/usr" "\$@"
SCRIPT
    chmod +x "$cache/bin/rustc-aarch64"
    export RUSTC=$cache/bin/rustc-aarch64
    say "compiler: $("$RUSTC" --version)"
}

# qemu's user mode, and the C library the tests load under it.
provide_emulator() {
    local root=$cache/emulator
    if ! is_complete "$root" build-aarch64.sh; then
        say "downloading the C library of the target"
        refresh_apt
        local emulator=()
        command -v qemu-aarch64-static >/dev/null || emulator=(qemu-user-static)
        fetch_debs "$root" libc6:arm64 libgcc-s1:arm64 "${emulator[@]}"
        complete "$root" build-aarch64.sh
    fi
    [[ ! -x $root/usr/bin/qemu-aarch64-static ]] || PATH=$root/usr/bin:$PATH
    export QEMU_LD_PREFIX=$root CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
}

check_binary() {
    local binary=$1 glibc libs
    glibc=$(readelf --version-info --wide "$binary" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)
    libs=$(readelf --dynamic --wide "$binary" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' | sort | xargs)
    say "$binary: $(stat -c %s "$binary") bytes, needs $glibc and $libs"
    [[ $(printf '%s\n' "${glibc#GLIBC_}" "$GLIBC_MAX" | sort -V | tail -n 1) == "$GLIBC_MAX" ]] ||
        fail "$binary needs $glibc, boards have GLIBC_$GLIBC_MAX"
    local lib
    for lib in $libs; do
        case $lib in
            libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | libgcc_s.so.1 | ld-linux-aarch64.so.1) ;;
            *) fail "$binary needs $lib, which boards may not have" ;;
        esac
    done
}

run_tests() {
    local run
    for run in cortex-a57=neon max=neon-dot; do
        say "kernel tests, qemu -cpu ${run%=*}: expecting ${run#*=}"
        QEMU_CPU=${run%=*} LICHEN_EXPECT_ISA=${run#*=} LICHEN_ISA=${run#*=} cargo-zigbuild test --quiet --locked \
            --target "$TRIPLE.$GLIBC_MAX" -p lichen-kernels --lib
    done
}

# apt with its own lists: neither root nor a foreign architecture in the machine's own package database.
refresh_apt() {
    [[ $apt_is_fresh == no ]] || return 0
    need apt-get "rustup's target (rustup target add $TRIPLE), or build on Debian"
    mkdir -p "$cache"/apt/{lists,archives}/partial
    : >"$cache/apt/status"
    cat >"$cache/apt/apt.conf" <<CONF
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
Dir::State::lists "$cache/apt/lists";
Dir::State::status "$cache/apt/status";
Dir::Cache::archives "$cache/apt/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
CONF
    export APT_CONFIG=$cache/apt/apt.conf
    # A third-party source that fails is no reason to stop: what is missing shows when it is fetched.
    logged apt-get update || true
    apt_is_fresh=yes
}

# fetch_debs ROOT PACKAGE...: downloads packages and unpacks them below ROOT. Not installed: they clash with rustup's.
fetch_debs() {
    local root=$1 debs=$1/debs
    shift
    refresh_apt
    mkdir -p "$debs"
    (cd "$debs" && logged apt-get download "$@") || fail "packages could not be downloaded: see $(shown "$log")"
    local deb
    for deb in "$debs"/*.deb; do
        dpkg -x "$deb" "$root"
    done
    rm -r "$debs"
}

logged_output() { "$@" 2>>"$log"; }

shown() { [[ $1 == "$PWD"/* ]] && echo "${1#"$PWD"/}" || echo "${1/#"$HOME"/\~}"; }

# A download counts only when it was unpacked to its end, and by this version of the file that names it.
is_complete() { [[ -e $1/complete ]] && cmp -s "$1/complete" "cross/$2"; }

complete() { cp "cross/$2" "$1/complete"; }

main "$@"
