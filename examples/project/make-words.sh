#!/bin/sh
# Makes the list of the words that are not counted.
set -eu
cd "$(dirname "$0")"
mkdir -p cache
cat words/*.txt | LC_ALL=C sort -u >cache/words
echo "$(wc -l <cache/words) words"
