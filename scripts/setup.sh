#!/usr/bin/env bash
# Installs the host packages that Solstice needs: QEMU, the tools that build guest
# images, and the compiler pair that builds the guest program.
#
#   scripts/setup.sh [run|test]     default: run
#
# Does nothing (and needs no root) when everything is there. On Debian 12 the QEMU
# comes from backports, all of it: its parts must not be mixed with 7.2. The mirror
# is taken from the host's own package sources.
set -euo pipefail

# Debian leaves these out of an ordinary user's, who is not missing what is there.
PATH=$PATH:/usr/sbin:/sbin
purpose=${1:-run}
need_commands=(qemu-system-x86_64 qemu-img mmdebstrap mke2fs debugfs git zstd xz busybox newuidmap)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
packages=(mmdebstrap e2fsprogs zstd xz-utils busybox-static ca-certificates git uidmap debian-archive-keyring
    gcc libc6-dev)
qemu_packages=(qemu-system-x86 qemu-utils)
# The pair that builds the static guest program and type-checks it for other systems,
# where rustup's own musl target is not installed.
pair_packages=(musl-tools rustc-web rust-web-src)
if [ "$purpose" = test ]; then
    packages+=(dash g++ iproute2 procps)
fi

qemu_major() {
    qemu-system-x86_64 --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\..*/\1/p'
}

has_musl_target() {
    [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/x86_64-unknown-linux-musl" ]
}

has_pair() {
    [ -x /usr/bin/rustc ] && command -v musl-gcc >/dev/null &&
        [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]
}

# What the tests start as throw-away servers of their own, and the packages' units that
# would run the host's. A unit that was here before stays as its owner has it.
declare -A services=(
    [openssh-server]="ssh.service ssh.socket"
    [rabbitmq-server]="rabbitmq-server.service epmd.service epmd.socket"
    [postgresql]="postgresql.service"
)

has_service() {
    case $1 in
    openssh-server) [ -x /usr/sbin/sshd ] ;;
    rabbitmq-server) [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && [ -x /usr/lib/rabbitmq/bin/rabbitmqctl ] ;;
    postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ;;
    esac
}

missing=()
for command in "${need_commands[@]}"; do
    command -v "$command" >/dev/null || missing+=("$command")
done
[ -r "$keyring" ] || missing+=("$keyring")
[ "$(qemu_major || true)" -ge 10 ] 2>/dev/null || missing+=("QEMU 10")
has_pair || { [ "$purpose" = run ] && has_musl_target; } || missing+=("guest compiler")
if [ "$purpose" = test ]; then
    command -v ss >/dev/null || missing+=(ss)
    command -v dash >/dev/null || missing+=(dash)
    command -v g++ >/dev/null || missing+=(g++)
    for service in "${!services[@]}"; do
        has_service "$service" || missing+=("$service")
    done
fi
[ ${#missing[@]} -gt 0 ] || exit 0

echo "setup: missing: ${missing[*]}" >&2
if [ "$(id -u)" -ne 0 ]; then
    echo "setup: installing packages needs root; run this line once:" >&2
    echo "    sudo $(command -v bash) $(realpath "$0") $purpose" >&2
    exit 2
fi
if ! command -v apt-get >/dev/null; then
    echo "setup: this is not a Debian system; install QEMU 10 or later with qemu-img, mmdebstrap," >&2
    echo "       mke2fs, zstd, xz, a static busybox and a musl C compiler, then try again" >&2
    exit 2
fi

export DEBIAN_FRONTEND=noninteractive
. /etc/os-release

# The first mirror that serves the running release, from either format of apt's sources.
host_mirror() {
    {
        cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
            awk -v suite="$VERSION_CODENAME" '
                tolower($1) == "uris:" { uri = $2 }
                tolower($1) == "suites:" { for (i = 2; i <= NF; i++) if ($i == suite) print uri }'
        cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
            awk -v suite="$VERSION_CODENAME" '$1 == "deb" { sub(/\[[^]]*\] */, ""); if ($3 == suite) print $2 }'
    } | head -n 1 || true # a host has one format of sources and not the other
}

target=()
if [ "${ID:-}" = debian ] && [ "$VERSION_CODENAME" = bookworm ]; then
    target=(-t bookworm-backports)
    if ! apt-get indextargets --format '$(RELEASE)' | grep -qx bookworm-backports; then
        mirror=$(host_mirror)
        [ -n "$mirror" ] || { echo "setup: no mirror for $VERSION_CODENAME in apt's sources" >&2; exit 2; }
        printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\nSigned-By: %s\n' \
            "$mirror" "$keyring" \
            >/etc/apt/sources.list.d/solstice-backports.sources
    fi
fi

# A mirror can drop a connection: three attempts, and apt's own retries within each.
apt() {
    local attempt
    for attempt in 1 2 3; do
        apt-get -q -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" >&2 && return 0
        echo "setup: apt-get $1 failed (attempt $attempt of 3)" >&2
    done
    return 1
}

# Installs a service's package without starting the service, now or at the next boot, and
# without making a database cluster: the tests want the programs only.
install_stopped() {
    local policy=/usr/sbin/policy-rc.d clusters=/etc/postgresql-common/createcluster.d/solstice.conf
    local unit units=() made=()
    for unit in ${services[$1]}; do
        [ -e "/lib/systemd/system/$unit" ] || units+=("$unit")
    done
    [ -e $policy ] || made+=($policy)
    [ "$1" != postgresql ] || made+=($clusters)
    # What this function makes goes again, also when the installation fails.
    trap "rm -f ${made[*]}" EXIT
    if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy; fi
    if [ "$1" = postgresql ]; then
        mkdir -p "${clusters%/*}"
        echo 'create_main_cluster = false' >$clusters
    fi
    apt install --no-install-recommends "$1"
    if command -v systemctl >/dev/null; then
        # One by one: a unit that this release's package does not have is not an error.
        for unit in "${units[@]}"; do systemctl disable "$unit" >&2 || true; done
    fi
    rm -f "${made[@]}"
    trap - EXIT
}

apt update
apt install --no-install-recommends "${packages[@]}"
apt install --no-install-recommends "${target[@]}" "${qemu_packages[@]}"
if [ "$purpose" = test ]; then
    for service in "${!services[@]}"; do
        if ! has_service "$service"; then install_stopped "$service"; fi
    done
fi
if ! has_pair && { [ "$purpose" = test ] || ! has_musl_target; }; then
    apt install --no-install-recommends "${pair_packages[@]}"
fi
