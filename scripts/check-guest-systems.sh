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
check() {
    RUSTC=$pair RUSTC_BOOTSTRAP=1 RUSTFLAGS='-D warnings' \
        cargo check --locked --quiet -p workflow-runner -Zbuild-std=std,panic_abort \
        --config 'profile.dev.package."*".opt-level=0' --config 'profile.dev.incremental=false' \
        --target-dir "$target" "$@"
}
# All at once keeps every core busy and builds what runs on the host once.
started=$SECONDS
if check "${systems[@]/#/--target=x86_64-unknown-}"; then
    echo "check-guest-systems: ${systems[*]}: passed in $((SECONDS - started)) s" >&2
    exit 0
fi
# One by one, to name those that fail.
failed=()
for system in "${systems[@]}"; do
    check --target "x86_64-unknown-$system" || failed+=("$system")
done
echo "check-guest-systems: the guest program does not compile for: ${failed[*]}" >&2
exit 1
