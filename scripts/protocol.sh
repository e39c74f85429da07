#!/usr/bin/env bash
# Writes forgejo-proto/src/generated from the .proto files. Run it when one of them was changed.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
rm -rf forgejo-proto/src/generated
mkdir forgejo-proto/src/generated
cargo run --locked --quiet --manifest-path forgejo-proto/generate/Cargo.toml \
    --target-dir "$target/generate" >/dev/null
