#!/usr/bin/env bash
# The tests of faults, over and over, with real guests and with the service on scripted ones:
# scripts/chaos.sh [TIMES]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/stage.sh
times=${1:-20}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export SOLSTICE_TEST_DIR="$target/test" SOLSTICE_IMAGE_DIR="$target/test/images"
SOLSTICE_TEST_RUN=$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n')
export SOLSTICE_TEST_RUN
mkdir -p "$SOLSTICE_TEST_DIR"
# What failed tests of an earlier run left to be looked at.
rm -rf "$SOLSTICE_TEST_DIR"/t?????
scripts/setup.sh test
scripts/build.sh debug
"$target/debug/solstice" image build tiny
# Whatever the tests do to machines, they do it to clones of this.
SOLSTICE_STATE_DIR=$SOLSTICE_TEST_DIR/warm SOLSTICE_TEMPLATE_DIR=$SOLSTICE_TEST_DIR/templates \
    SOLSTICE_ACCELERATION=tcg "$target/debug/solstice" image warm tiny
. scripts/temporary.sh
cargo build --locked --quiet -p vm-manager --bin scripted-guest
cargo test --locked --quiet -p solstice -p forgejo-runner -p vm-manager --no-run

# There when the guests' rounds have failed, or the whole was ended.
failed=$SOLSTICE_TEST_DIR/failed
rm -f "$failed"

# The rounds of the service, beside those of the guests: they wait more than they work.
service() {
    local round
    for round in $(seq 1 "$times"); do
        if [ -e "$failed" ]; then return 1; fi
        SOLSTICE_CHAOS_SEED=$(od -An -N8 -tu8 /dev/urandom | tr -d ' \n')
        export SOLSTICE_CHAOS_SEED
        if ! { cargo test --locked --quiet -p solstice --test service -- --test-threads 6 &&
            cargo test --locked --quiet -p forgejo-runner --test forgejo -- --test-threads 6; } \
            >"$target/chaos-service.log" 2>&1; then
            cat "$target/chaos-service.log" >&2
            echo "service, round $round, SOLSTICE_CHAOS_SEED=$SOLSTICE_CHAOS_SEED: FAILED" >&2
            return 1
        fi
        echo "service, round $round, SOLSTICE_CHAOS_SEED=$SOLSTICE_CHAOS_SEED: passed"
    done
}
service &
service=$!
# Whatever ends this, nothing goes on behind it.
finish() {
    local code=$?
    set +e
    touch "$failed"
    wait
    (exit "$code")
    stages
}
trap finish EXIT
for round in $(seq 1 "$times"); do
    stage "guests, round $round" cargo test --locked --quiet -p solstice --test guest -- --test-threads 2 faults forgejo machines service templates ctrl_c
    # That of the service may have ended well before.
    if ! kill -0 "$service" 2>/dev/null; then wait "$service"; fi
done
stage "service" wait "$service"
# A hundred clones of one template, half of them in a row, the others ten at a time.
stage "a hundred clones" env SOLSTICE_CLONES=100 cargo test --locked --quiet -p vm-manager --test guest templates
stage leftovers scripts/leftovers.sh
