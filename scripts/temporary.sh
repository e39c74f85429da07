# Sourced: a directory for what tests make for themselves, all of it gone when they end. Below
# SOLSTICE_TEST_DIR, and not a part of the repository around that; in /tmp where a database's socket
# in it would have too long a path.
TMPDIR=${SOLSTICE_TEST_DIR:?}/tmp
if [ ${#TMPDIR} -gt 51 ]; then TMPDIR=/tmp/solstice-test-${SOLSTICE_TEST_RUN:?}; fi
rm -rf "$TMPDIR"
mkdir -p "$TMPDIR"
export TMPDIR GIT_CEILING_DIRECTORIES="$TMPDIR"
