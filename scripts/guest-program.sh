#!/usr/bin/env bash
# Builds the program that runs inside Linux guests, as a static program for x86-64:
#
#   ${CARGO_TARGET_DIR:-target}/guest/workflow-runner-linux-x64
#
# Does nothing when that file was made from these sources. Three ways, the first that works here:
# rustup's musl target; the compiler pair of Debian (see docs/development.md) with musl-tools; and as
# the last resort a static program with the GNU C library. Everything is built below a target
# directory of its own, so that it neither waits for nor disturbs other builds.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
build=$target/guest-build
program=$target/guest/workflow-runner-linux-x64
mkdir -p "$target/guest" "$build"

# Two callers build once: the second finds the program of the first.
exec 9>"$target/guest/lock"
if command -v flock >/dev/null; then flock 9; fi

musl=x86_64-unknown-linux-musl
gnu=x86_64-unknown-linux-gnu
pair=/usr/bin/rustc

has_rustup_musl() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$musl" ]
}
has_pair() {
    [ -x $pair ] && command -v musl-gcc >/dev/null &&
        [ -d "$($pair --print sysroot)/lib/rustlib/src/rust/library/std" ]
}
if has_rustup_musl; then way=rustup; elif has_pair; then way=pair; else way=glibc; fi
if [ $way = pair ]; then compiler=$($pair -vV); else compiler=$(rustc -vV); fi

# The build's id: a hash of every input.
id=$(
    {
        printf '%s\n' "$way" "$compiler"
        find common/src workflow-runner/src common/Cargo.toml workflow-runner/Cargo.toml Cargo.toml \
            Cargo.lock scripts/guest-program.sh -type f -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c 1-16
)
if [ -x "$program" ] && [ "$("$program" version 2>/dev/null | cut -d ' ' -f 3)" = "$id" ]; then
    exit 0
fi

cargo_arguments=(build --locked --profile guest -p workflow-runner --bin workflow-runner
    --target-dir "$build")
export SOLSTICE_BUILD_ID=$id
# Flags for the host's own builds must not reach a program for another system.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
started=$SECONDS
case $way in
rustup)
    triple=$musl
    RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
        cargo "${cargo_arguments[@]}" --target $triple
    ;;
pair)
    triple=$musl
    # The standard library asks for libunwind. libgcc_eh is one, but for a function that only the
    # GNU C library has; its stand-in finds nothing, which makes libgcc_eh search by itself.
    unwind=$build/unwind
    mkdir -p "$unwind"
    cp "$(gcc -print-file-name=libgcc_eh.a)" "$unwind/libunwind.a"
    printf 'int _dl_find_object(void *pc, void *result) { (void)pc; (void)result; return -1; }\n' \
        >"$unwind/stub.c"
    musl-gcc -O2 -c "$unwind/stub.c" -o "$unwind/stub.o"
    ar rs "$unwind/libunwind.a" "$unwind/stub.o" 2>/dev/null
    # Without a static relocation model musl-gcc makes a program that needs musl's loader.
    RUSTC=$pair RUSTC_BOOTSTRAP=1 CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=musl-gcc \
        RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static \
-C link-self-contained=no -L native=$unwind" \
        cargo "${cargo_arguments[@]}" -Zbuild-std=std,panic_abort --target $triple
    ;;
glibc)
    triple=$gnu
    echo "guest-program: neither rustup's target $musl nor Debian's compiler pair is installed;" >&2
    echo "guest-program: building with the GNU C library, which makes a larger program" >&2
    RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
        cargo "${cargo_arguments[@]}" --target $triple
    ;;
esac
built=$build/$triple/guest/workflow-runner

# A program that needs a loader would start here and fail in a guest.
if readelf -l "$built" | grep -q INTERP || readelf -d "$built" | grep -q NEEDED; then
    echo "guest-program: $built is not static" >&2
    exit 1
fi
[ "$("$built" version | cut -d ' ' -f 3)" = "$id" ] || {
    echo "guest-program: $built does not run, or is not the build that was asked for" >&2
    exit 1
}
cp "$built" "$program.new"
mv "$program.new" "$program"
echo "guest-program: $(stat -c %s "$program") bytes in $((SECONDS - started)) s ($way): $program" >&2
