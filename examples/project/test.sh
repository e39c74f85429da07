#!/bin/sh
# Runs the program on each text in tests, and compares what it prints.
set -eu
cd "$(dirname "$0")"
failed=0
for text in tests/*.txt; do
    name=$(basename "$text" .txt)
    if sh build/tally 3 <"$text" | diff "tests/$name.expected" -; then
        echo "ok $name"
    else
        echo "not ok $name"
        failed=1
    fi
done
exit $failed
