#!/usr/bin/env bash
# Every property test with many more cases: scripts/fuzz.sh [CASES]
set -euo pipefail
cd "$(dirname "$0")/.."
export PROPTEST_CASES=${1:-20000}
cargo test --locked -p common -p queue -p workflow-runner -p orchestrator -p vm-manager -p solstice \
    --lib --bins
