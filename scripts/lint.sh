#!/usr/bin/env bash
# What a change must pass before it is pushed, apart from the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/stage.sh
stage format cargo fmt --all --check
stage clippy cargo clippy --locked --workspace --all-targets -- -D warnings
stage documents env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --workspace --no-deps --document-private-items
command -v cargo-deny >/dev/null ||
    stage "cargo-deny" cargo install --locked --quiet cargo-deny --version 0.20.2
# The fuzzer is a workspace of its own, whose lock file nothing else would compare.
stage "fuzzer's lock" sh -c 'cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null'
stage licences cargo deny --log-level error check bans licenses sources
stage "other systems" scripts/check-guest-systems.sh
