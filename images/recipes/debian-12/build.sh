#!/bin/sh
# Builds the Debian 12 guest: cloud kernel, systemd, cloud-init, OpenSSH, git, python3.
#
#   build.sh OUT WORK DISK_BYTES
#
# Writes OUT/disk.qcow2, OUT/vmlinuz and OUT/initrd. WORK is an empty directory. Runs as root, or
# as an ordinary user where the kernel lets one make user name spaces: mmdebstrap finds out.
#
# What a boot would do only to make a lasting machine is left out: under emulation each program
# costs a tenth of a second, and python a second.
#
# A recipe for an image that has more brings a file more.sh, which sets its name, names further
# packages, and says what is to be done with them.
set -eu

out=$1 work=$2 disk_bytes=$3
recipe=debian-12 suite=bookworm
here=$(dirname "$0")
. "$here/debian.sh"
. "$here/initrd.sh"
. "$here/disk.sh"

more_packages=
configure_more() { :; }
if [ -e "$here/more.sh" ]; then
    . "$here/more.sh"
fi

need_commands apt-get apt-config mmdebstrap mke2fs debugfs qemu-img gzip tar

packages=linux-image-cloud-amd64,systemd,systemd-sysv,udev,dbus,kmod,busybox-static,\
cloud-init,openssh-server,openssh-client,sudo,git,ca-certificates,curl,python3,\
procps,iproute2,netbase,xz-utils,unzip$more_packages

# Fills the directory $root.
install_packages() {
    problem="mmdebstrap could not install the packages"
    apart=
    if [ "$(id -u)" -eq 0 ]; then
        # What it mounts must go with it, also when it is killed.
        if unshare --mount true 2>/dev/null; then
            apart="unshare --mount"
        fi
        retry bootstrap directory "$root" || fail "$problem"
        find "$root/dev" -xdev -mindepth 1 -delete
        : >"$work/owners"
    else
        # The files of a directory would be another user's.
        retry bootstrap tar "$work/root.tar" || fail "$problem"
        unpack
    fi
}

# bootstrap FORMAT TARGET
bootstrap() {
    rm -rf --one-file-system "$2"
    # INITRD=No: the kernel package would make an initial RAM disk for any machine; ours is made
    # for this one, and is ready ten times sooner.
    # shellcheck disable=SC2086 # a list of words
    INITRD=No $apart mmdebstrap --mode=auto --variant=minbase --format="$1" \
        --aptopt="$work/apt.conf" \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --include="$packages" "$suite" "$2" "$work/sources.list" >&2
}

unpack() {
    mkdir "$root"
    tar -C "$root" --numeric-owner -xpf "$work/root.tar" --exclude='./dev/*'
    # For a builder without root's rights: whose the files are that are not root's.
    tar --numeric-owner -tvf "$work/root.tar" --exclude='./dev/*' |
        sed -n 's|^[^lh][^ ]* *\([0-9]*\)/\([0-9]*\) .*[0-9][0-9]:[0-9][0-9] \./\(.*[^/]\)/*$|\1 \2 /\3|p' |
        grep -v '^0 0 ' >"$work/owners" || true
    rm "$work/root.tar"
}

# Units that serve a lasting machine, a person at its screen, or hardware that is not there.
useless_units='apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
    e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer getty@tty1.service
    serial-getty@ttyS0.service systemd-random-seed.service systemd-pstore.service
    systemd-update-utmp.service systemd-update-utmp-runlevel.service
    systemd-journal-flush.service systemd-journal-catalog-update.service
    systemd-update-done.service systemd-ask-password-wall.path
    systemd-ask-password-console.path systemd-machine-id-commit.service
    systemd-firstboot.service systemd-sysusers.service systemd-boot-system-token.service
    systemd-network-generator.service systemd-networkd-wait-online.service ldconfig.service
    modprobe@drm.service modprobe@fuse.service modprobe@efi_pstore.service
    systemd-repart.service systemd-hwdb-update.service systemd-remount-fs.service
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount
    sys-fs-fuse-connections.mount sys-kernel-config.mount proc-sys-fs-binfmt_misc.automount
    networking.service cloud-init-local.service cloud-config.service cloud-final.service
    cloud-init-hotplugd.socket'

configure() {
    units=$root/etc/systemd/system
    for unit in $useless_units; do
        ln -sf /dev/null "$units/$unit"
    done
    # One run of cloud-init instead of four: it finds the seed, and sets host name and keys.
    # The generator that decides whether to run it at all takes longer than the answer is worth.
    mkdir -p "$root/etc/systemd/system-generators" "$units/multi-user.target.wants" \
        "$units/cloud-init.service.d" "$units/ssh.service.d" \
        "$units/sysinit.target.wants" "$root/etc/systemd/journald.conf.d" \
        "$root/etc/systemd/network"
    ln -sf /dev/null "$root/etc/systemd/system-generators/cloud-init-generator"
    ln -sf /lib/systemd/system/cloud-init.service "$units/multi-user.target.wants/cloud-init.service"
    ln -sf /lib/systemd/system/systemd-networkd.service \
        "$units/multi-user.target.wants/systemd-networkd.service"
    cp "$here/cloud-init.conf" "$units/cloud-init.service.d/solstice.conf"
    cp "$here/cloud.cfg" "$root/etc/cloud/cloud.cfg"
    rm -rf "$root"/etc/cloud/cloud.cfg.d/*
    cp "$here/dhcp.network" "$root/etc/systemd/network/80-dhcp.network"
    # QEMU's user network answers for the host's resolver at this address.
    echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
    printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n' \
        >"$root/etc/systemd/journald.conf.d/solstice.conf"
    # The driver that tells the host of a panic.
    printf 'pvpanic-pci\n' >"$root/etc/modules-load.d/solstice.conf"
    cp "$here/sshd_config" "$root/etc/ssh/sshd_config"
    # No program is started anew for each connection: that takes an emulated machine a while.
    echo 'SSHD_OPTS=-r' >"$root/etc/default/ssh"
    cp "$here/pam-sshd" "$root/etc/pam.d/sshd"
    rm -f "$root"/etc/ssh/ssh_host_*
    echo 'LANG=C.UTF-8' >"$root/etc/default/locale"
    echo localhost >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
    : >"$root/etc/fstab"
    # Each machine makes its own at its first boot.
    : >"$root/etc/machine-id"
    find "$root/var/lib/apt/lists" "$root/var/cache/apt" "$root/var/log/apt" -type f -delete
    rm -rf "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/var/lib/systemd/random-seed" \
        "$root"/var/log/*.log "$root"/boot/initrd.img-*
}

# Without root's rights mmdebstrap works as another user, who has no way into a home directory:
# it then needs the host's directory for temporary files, which it also tidies.
if [ "$(id -u)" -eq 0 ]; then
    mkdir "$work/tmp"
    export TMPDIR="$work/tmp"
fi
find_mirrors
write_sources "$work/sources.list"
write_apt_settings "$work/apt.conf"
say "installing the packages of $suite"
root=$work/root
install_packages
busybox=$root/bin/busybox
modules=$(find "$root/lib/modules" -mindepth 1 -maxdepth 1 | head -n 1)
[ -d "$modules/kernel" ] || fail "the kernel package has no modules"
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
say "packing the initial RAM disk"
build_initrd
configure
configure_more
say "making the disk"
build_disk "$root" solstice-debian "$work/owners"
say "done"
