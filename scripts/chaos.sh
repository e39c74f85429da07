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
scripts/setup.sh test
scripts/build.sh debug
"$target/debug/solstice" image build tiny
cargo build --locked --quiet -p vm-manager --bin scripted-guest
# The two suites beside each other: the service's waits more than it works.
service() {
    for round in $(seq 1 "$times"); do
        kill -0 $$ 2>/dev/null || return 1 # the guests' rounds have failed
        if ! cargo test --locked --quiet -p solstice --test service -- --test-threads 6 >"$target/chaos-service.log" 2>&1; then
            echo "service, round $round:" >&2
            cat "$target/chaos-service.log" >&2
            return 1
        fi
        echo "service, round $round: passed"
    done
}
service &
service=$!
for round in $(seq 1 "$times"); do
    stage "guests, round $round" cargo test --locked --quiet -p solstice --test guest -- --test-threads 2 faults machines service ctrl_c
done
stage "service" wait "$service"
stage leftovers scripts/leftovers.sh
