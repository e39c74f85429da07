#!/usr/bin/env bash
# Fuzzing: scripts/fuzz.sh [SECONDS [CASES]]
#
# Runs every entry point of workflow_runner::fuzz under libFuzzer for SECONDS (default 60), beginning
# with fuzz/corpus, and then every property test with CASES cases (default 20000; 0 runs none).
# What is found is written to target/fuzz/found-*; add it to fuzz/corpus with the repair.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/stage.sh
seconds=${1:-60}
cases=${2:-20000}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

# libFuzzer steers by the edges that it sees taken; these flags of the compiler count them. They are
# for the fuzzer's target alone, so that build scripts need no fuzzer behind them.
host=$(rustc -vV | sed -n 's/^host: //p')
build() {
    RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
        cargo build --locked --quiet --release --manifest-path fuzz/Cargo.toml \
        --target "$host" --target-dir "$target/fuzz"
}

# One entry: a copy of the corpus grows while it runs.
fuzz() {
    local entry=$1 work=$target/fuzz/corpus/$1 log=$target/fuzz/$1.log code=0
    mkdir -p "$work"
    cp -r "fuzz/corpus/$entry/." "$work"
    SOLSTICE_FUZZ=$entry "$target/fuzz/$host/release/solstice-fuzz" "$work" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=16384 \
        -print_final_stats=1 -artifact_prefix="$target/fuzz/found-$entry-" >"$log" 2>&1 || code=$?
    if [ "$code" -ne 0 ]; then
        tail -n 40 "$log" >&2
        return "$code"
    fi
    grep -E 'number_of_executed_units|new_units_added' "$log"
}

stage "build fuzzer" build
for entry in expression workflow command kdl; do
    stage "fuzz $entry" fuzz "$entry"
done
if [ "$cases" -gt 0 ]; then
    export PROPTEST_CASES=$cases
    stage properties cargo test --locked -p common -p queue -p workflow-runner -p orchestrator -p forgejo-runner \
        -p vm-manager -p solstice --lib --bins
fi
stages
