# The words that a text on standard input has most often, without those that every text has.
set -eu
export LC_ALL=C

case ${1-} in
--version)
    echo "tally $version"
    exit 0
    ;;
'' | *[!0-9]*)
    echo 'usage: tally NUMBER <TEXT' >&2
    exit 64
    ;;
esac
