#!/bin/sh
# Builds the program: one file of its sources, with its version and the list of words.
set -eu
cd "$(dirname "$0")"
mkdir -p build
{
    echo '#!/bin/sh'
    echo "version=$(cat VERSION)"
    echo "common='$(tr '\n' ' ' <cache/words)'"
    cat src/options.sh src/count.sh
} >build/tally
chmod 755 build/tally
(cd build && sha256sum tally >sums)
echo "built tally $(cat VERSION)"
