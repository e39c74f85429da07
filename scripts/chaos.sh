#!/usr/bin/env bash
# The guest tests of faults, over and over: scripts/chaos.sh [TIMES]
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
for round in $(seq 1 "$times"); do
    stage "round $round" cargo test --locked --quiet -p solstice --test guest -- --test-threads 3 faults machines ctrl_c
done
stage leftovers scripts/leftovers.sh
