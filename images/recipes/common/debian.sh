# Shared by the recipes: Debian packages of one suite, whatever release the host runs.
#
# Read with `.` by build.sh. The mirrors come from the host's own package sources, so that a
# host behind a local mirror needs no further setting; SOLSTICE_DEBIAN_MIRROR and
# SOLSTICE_DEBIAN_SECURITY_MIRROR override them. The suite is the recipe's, never the host's.

say() {
    echo "$recipe: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

need_commands() {
    for command in "$@"; do
        command -v "$command" >/dev/null || fail "the command $command is missing; install it with scripts/setup.sh"
    done
}

# A mirror can drop a connection: three attempts with a pause, besides apt's own retries.
retry() {
    attempt=1
    until "$@"; do
        [ "$attempt" -lt 3 ] || return 1
        say "$1 failed, attempt $attempt of 3"
        sleep $((attempt * 5))
        attempt=$((attempt + 1))
    done
}

# Prints "suite uri" for each of the host's package sources. apt itself reads them, so both
# formats and their options are understood; the package lists need not be there.
host_sources() {
    # shellcheck disable=SC2016 # apt replaces these
    apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI) $(COMPONENT)' \
        'Created-By: Packages' | sed -n 's/ main$//p' | sort -u
}

# Sets mirror and security_mirror.
find_mirrors() {
    mirror=${SOLSTICE_DEBIAN_MIRROR:-}
    security_mirror=${SOLSTICE_DEBIAN_SECURITY_MIRROR:-}
    host_id=$(sed -n 's/^ID=//p' /etc/os-release | tr -d '"')
    host_suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release | tr -d '"')
    if [ "$host_id" = debian ]; then
        sources=$(host_sources)
        for name in "$suite" "$host_suite" stable testing unstable sid; do
            [ -n "$mirror" ] || mirror=$(printf '%s\n' "$sources" | sed -n "s|^$name ||p" | head -n 1)
            [ -n "$security_mirror" ] ||
                security_mirror=$(printf '%s\n' "$sources" | sed -n "s|^$name-security ||p" | head -n 1)
        done
    fi
    [ -n "$mirror" ] || fail "no Debian mirror in this host's package sources; set SOLSTICE_DEBIAN_MIRROR to one"
    [ -n "$security_mirror" ] ||
        say "no security mirror in this host's package sources: building without security updates"
}

# Writes apt's sources for the suite to the file $1.
write_sources() {
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] || fail "$keyring is missing; install the package debian-archive-keyring"
    {
        echo "deb [signed-by=$keyring] $mirror $suite main"
        echo "deb [signed-by=$keyring] $mirror $suite-updates main"
        [ -z "$security_mirror" ] || echo "deb [signed-by=$keyring] $security_mirror $suite-security main"
    } >"$1"
}

# Writes the host's settings for reaching the mirror (proxies), and ours, to the file $1.
write_apt_settings() {
    {
        apt-config dump | grep -iE '^Acquire::(https?::)?(Proxy|Verify|Ca)[^ ]* ' || true
        echo 'Acquire::Retries "3";'
        echo 'Acquire::Languages "none";'
        echo 'Acquire::http::Timeout "30";'
        echo 'APT::Architecture "amd64";'
        echo 'APT::Architectures "amd64";'
        echo 'APT::Install-Recommends "false";'
    } >"$1"
}
