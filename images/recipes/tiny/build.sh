#!/bin/sh
# Builds the tiny guest: busybox, dropbear and an SFTP server on a Debian cloud kernel.
#
#   build.sh OUT WORK DISK_BYTES
#
# Writes OUT/disk.qcow2, OUT/vmlinuz and OUT/initrd. Needs no root and no name spaces: the
# packages are downloaded and unpacked, never installed. WORK is an empty directory.
set -eu

out=$1 work=$2 disk_bytes=$3
recipe=tiny suite=bookworm
here=$(dirname "$0")
. "$here/debian.sh"
. "$here/initrd.sh"
. "$here/disk.sh"

need_commands apt-get apt-config dpkg-deb mke2fs debugfs qemu-img gzip

# In the order of loading, after those of the initial RAM disk.
root_modules='failover net_failover virtio_net virtio-rng cdrom isofs button evdev pvpanic pvpanic-pci'
packages='busybox-static dropbear-bin libtomcrypt1 libtommath1 libgmp10 zlib1g libcrypt1 libc6
    openssh-sftp-server'

download_packages() {
    find_mirrors
    mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/apt/parts" "$work/debs"
    : >"$work/apt/status"
    write_sources "$work/apt/sources.list"
    write_apt_settings "$work/apt/apt.conf"
    # An apt of our own: it reads nothing of the host's and writes below WORK only.
    cat >>"$work/apt/apt.conf" <<END
Dir::State "$work/apt";
Dir::State::status "$work/apt/status";
Dir::State::lists "$work/apt/lists";
Dir::Cache "$work/apt";
Dir::Cache::archives "$work/apt/archives";
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "$work/apt/parts";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "$work/apt/parts";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$work/apt/parts";
APT::Sandbox::User "$(id -un)";
END
    APT_CONFIG=$work/apt/apt.conf
    export APT_CONFIG
    say "reading the package lists of $suite"
    retry apt-get -q -o APT::Update::Error-Mode=any update >&2
    # The meta package names the kernel package of the day.
    kernel=$(apt-cache show --no-all-versions linux-image-cloud-amd64 |
        sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p')
    [ -n "$kernel" ] || fail "linux-image-cloud-amd64 names no kernel package"
    say "downloading $kernel and the programs"
    # shellcheck disable=SC2086 # a list of words
    (cd "$work/debs" && retry apt-get -q download "$kernel" $packages >&2)
    for deb in "$work"/debs/*.deb; do
        case $deb in
        */linux-image-*) dpkg-deb -x "$deb" "$work/kernel" ;;
        *) dpkg-deb -x "$deb" "$work/packages" ;;
        esac
    done
}

build_root() {
    root=$work/root
    for directory in bin sbin etc/dropbear etc/acpi/PWRF proc sys dev run mnt root tmp lib/m \
        lib64 usr/bin usr/sbin usr/lib/openssh usr/local/bin usr/local/sbin var/tmp var/log \
        home opt srv; do
        mkdir -p "$root/$directory"
    done
    chmod 700 "$root/root"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    ln -s ../run "$root/var/run"
    cp "$busybox" "$root/bin/busybox"
    link_applets "$root"
    # shellcheck disable=SC2086 # a list of words
    copy_modules "$root/lib/m" $root_modules

    cp "$work"/packages/usr/sbin/dropbear "$root/usr/sbin/"
    cp "$work"/packages/usr/bin/dropbearkey "$work"/packages/usr/bin/dbclient "$root/usr/bin/"
    cp "$work"/packages/usr/lib/dropbear/dropbearconvert "$root/usr/bin/"
    cp "$work"/packages/usr/lib/openssh/sftp-server "$root/usr/lib/openssh/"
    ln -s openssh/sftp-server "$root/usr/lib/sftp-server"
    # The libraries that dropbear names, and the loader, at the places where the loader looks.
    libraries=usr/lib/x86_64-linux-gnu
    mkdir -p "$root/$libraries"
    for name in libtomcrypt.so.1 libtommath.so.1 libgmp.so.10 libz.so.1 libcrypt.so.1 libc.so.6 \
        libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
        file=$(find "$work/packages" -name "$name" | head -n 1)
        [ -n "$file" ] || fail "no package has the library $name"
        cp -L "$file" "$root/$libraries/$name"
    done
    cp -L "$(find "$work/packages" -name 'ld-linux-x86-64.so.2' | head -n 1)" "$root/lib64/"
    ln -s "../$libraries" "$root/lib/x86_64-linux-gnu"

    install -m 755 "$here/init" "$root/sbin/init"
    install -m 755 "$here/dhcp" "$root/etc/udhcpc.sh"
    printf '#!/bin/sh\nsync\npoweroff -f\n' >"$root/etc/acpi/PWRF/00000080"
    chmod 755 "$root/etc/acpi/PWRF/00000080"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n' \
        >"$root/etc/passwd"
    printf 'root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n' >"$root/etc/shadow"
    chmod 600 "$root/etc/shadow"
    printf 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n' >"$root/etc/group"
    printf '/bin/sh\n' >"$root/etc/shells"
    printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
    printf 'NAME="Solstice tiny guest"\nID=solstice-tiny\nVERSION_ID=1\n' >"$root/etc/os-release"
}

download_packages
busybox=$work/packages/bin/busybox
[ -x "$busybox" ] || busybox=$work/packages/usr/bin/busybox
[ -x "$busybox" ] || fail "the package busybox-static has no busybox"
modules=$(find "$work/kernel" -path '*lib/modules/*' -prune | head -n 1)
[ -d "$modules/kernel" ] || fail "the kernel package has no modules"
cp "$work"/kernel/boot/vmlinuz-* "$out/vmlinuz"
say "packing the initial RAM disk"
build_initrd
say "making the disk"
build_root
build_disk "$root" solstice-tiny
say "done"
