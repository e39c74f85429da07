#!/usr/bin/env bash
# Measures a release build: scripts/bench.sh [NAME]
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
scripts/setup.sh test
scripts/build.sh release
cargo build --locked --release --quiet -p vm-manager --bin scripted-guest
SOLSTICE_IMAGE_DIR="$target/test/images" "$target/release/solstice" image build tiny debian-12
exec cargo bench --locked -p solstice --bench report -- "$@"
