#!/usr/bin/env bash
# Type-checks the guest program for the systems that are not at hand: illumos and the BSDs. Uses
# Debian's compiler pair (see docs/development.md), which has the sources of the standard library.
set -euo pipefail
cd "$(dirname "$0")/.."

systems=(illumos freebsd netbsd openbsd)
pair=/usr/bin/rustc
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/guest-build

if ! [ -x $pair ] || ! [ -d "$($pair --print sysroot)/lib/rustlib/src/rust/library/std" ]; then
    echo "check-guest-systems: the packages rustc-web and rust-web-src are missing;" >&2
    echo "check-guest-systems: run scripts/setup.sh test" >&2
    exit 2
fi
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
mkdir -p "$target"
failed=()
for system in "${systems[@]}"; do
    started=$SECONDS
    if RUSTC=$pair RUSTC_BOOTSTRAP=1 RUSTFLAGS='-D warnings' \
        cargo check --locked --quiet -p workflow-runner -Zbuild-std=std,panic_abort \
        --target "x86_64-unknown-$system" --target-dir "$target"; then
        echo "check-guest-systems: $system: passed in $((SECONDS - started)) s" >&2
    else
        echo "check-guest-systems: $system: FAILED after $((SECONDS - started)) s" >&2
        failed+=("$system")
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "check-guest-systems: the guest program does not compile for: ${failed[*]}" >&2
    exit 1
fi
