#!/usr/bin/env bash
# From nothing to a workflow that ran in a virtual machine.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh run
scripts/build.sh release
exec "${CARGO_TARGET_DIR:-target}/release/solstice" run examples/hello.yml --job hello
