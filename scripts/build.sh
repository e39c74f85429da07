#!/usr/bin/env bash
# Builds both programs: scripts/build.sh [debug|release]
# The host program lands in target/{debug,release}, the guest program in target/guest.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-debug}" = release ]; then
    cargo build --locked --release -p solstice
else
    cargo build --locked -p solstice
fi
scripts/guest-program.sh
