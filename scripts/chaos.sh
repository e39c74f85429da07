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
for round in $(seq 1 "$times"); do
    stage "service $round" cargo test --locked --quiet -p solstice --test service -- --test-threads 3
    stage "round $round" cargo test --locked --quiet -p solstice --test guest -- --test-threads 3 faults machines ctrl_c
done
stage leftovers scripts/leftovers.sh
