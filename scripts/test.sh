#!/usr/bin/env bash
# Every test, from nothing: packages, programs, images, then the suites.
# Prints the time of each stage. Nothing is skipped; what is missing fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/stage.sh

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# The images are shared by all tests; each test process has a state directory of its own.
export SOLSTICE_TEST_DIR="$target/test"
# Part of the names of runtime directories, so that those of another run are not ours.
SOLSTICE_TEST_RUN=$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n')
export SOLSTICE_TEST_RUN
# The choices of the tests that kill at random.
SOLSTICE_CHAOS_SEED=${SOLSTICE_CHAOS_SEED:-$(od -An -N8 -tu8 /dev/urandom | tr -d ' \n')}
export SOLSTICE_CHAOS_SEED
echo "SOLSTICE_CHAOS_SEED=$SOLSTICE_CHAOS_SEED"
export SOLSTICE_IMAGE_DIR="$target/test/images"
mkdir -p "$SOLSTICE_TEST_DIR"
# What failed tests of an earlier run left to be looked at.
rm -rf "$SOLSTICE_TEST_DIR"/t?????

stage packages scripts/setup.sh test
# Every suite but that of the service.
suites() {
    local suite
    for suite in */tests/*.rs */tests/*/main.rs; do
        suite=${suite#*/tests/}
        suite=${suite%/main.rs}
        if [ "$suite" != service ]; then echo --test "${suite%.rs}"; fi
    done
}

# Builds the host program as well, which the tests run.
stage "build tests" cargo test --locked --workspace --no-run --quiet
images=(tiny debian-12 debian-12-node debian-12-podman)
# At the same time: the one is work for one core, the other waits for mirrors and disks too.
programs_and_images() {
    local program failed=0
    scripts/guest-program.sh &
    program=$!
    "$target/debug/solstice" image build "${images[@]}" || failed=1
    wait "$program" || failed=1
    return "$failed"
}
stage "program, images" programs_and_images
# Whatever the tests do to machines, they do it to clones of these.
templates() {
    SOLSTICE_STATE_DIR=$SOLSTICE_TEST_DIR/warm SOLSTICE_TEMPLATE_DIR=$SOLSTICE_TEST_DIR/templates \
        SOLSTICE_ACCELERATION=tcg "$target/debug/solstice" image warm "${images[@]}"
}
stage templates templates
. scripts/temporary.sh
# Guests are emulated: a second one on the other core is all that two cores carry. Always the whole
# workspace, or cargo would build parts of it again with other features.
threads=${TEST_THREADS:-3}
# shellcheck disable=SC2046 # words on purpose
stage tests cargo test --locked --workspace --lib --bins $(suites) -- --test-threads "$threads"
stage documents cargo test --locked --workspace --doc --quiet
# The service's stories wait more than they work.
stage service cargo test --locked --workspace --test service -- --test-threads $((2 * threads))
stage fuzz scripts/fuzz.sh 10 0
stage leftovers scripts/leftovers.sh
