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
# The program's suites but for that of the service.
suites() {
    local suite
    for suite in solstice/tests/*.rs solstice/tests/*/main.rs; do
        suite=${suite#solstice/tests/}
        suite=${suite%/main.rs}
        if [ "$suite" != service ]; then echo --test "${suite%.rs}"; fi
    done
}

# Builds the host program as well, which the tests run.
stage "build tests" cargo test --locked --workspace --no-run --quiet
stage "guest program" scripts/guest-program.sh
stage images "$target/debug/solstice" image build tiny debian-12
# Guests are emulated: a second one on the other core is all that two cores carry.
threads=${TEST_THREADS:-3}
stage parts cargo test --locked --workspace --exclude solstice -- --test-threads "$threads"
stage program cargo test --locked -p solstice --lib --bins $(suites) -- --test-threads "$threads"
# The service's stories wait more than they work.
stage service cargo test --locked -p solstice --test service -- --test-threads $((2 * threads))
stage leftovers scripts/leftovers.sh
