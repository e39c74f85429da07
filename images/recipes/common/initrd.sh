# Shared by the recipes: an initial RAM disk that loads what the disk needs and goes there.
#
# Read with `.` by build.sh after debian.sh. Expects here, work, out, busybox (a static one) and
# modules (the kernel's module directory).

# The order is that of loading: each module needs those before it.
boot_modules='virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk'

# copy_modules DIRECTORY NAME... copies the modules and writes the load order to
# DIRECTORY/order. One that this kernel has built in is left out.
copy_modules() {
    directory=$1
    shift
    mkdir -p "$directory"
    : >"$directory/order"
    for name in "$@"; do
        file=$(find "$modules" -name "$name.ko" | head -n 1)
        if [ -n "$file" ]; then
            cp "$file" "$directory/"
            echo "$name" >>"$directory/order"
        elif ! grep -q "/$name\.ko$" "$modules/modules.builtin"; then
            fail "the kernel has no module $name"
        fi
    done
}

# link_applets ROOT makes a link for each command of ROOT/bin/busybox.
link_applets() {
    "$1/bin/busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || [ -e "$1/bin/$applet" ] || ln -s busybox "$1/bin/$applet"
    done
}

# Writes OUT/initrd.
build_initrd() {
    initrd=$work/initrd
    mkdir -p "$initrd/bin" "$initrd/proc" "$initrd/sys" "$initrd/dev" "$initrd/newroot"
    cp "$busybox" "$initrd/bin/busybox"
    link_applets "$initrd"
    # shellcheck disable=SC2086 # a list of words
    copy_modules "$initrd/lib/m" $boot_modules
    install -m 755 "$here/initrd-init" "$initrd/init"
    (cd "$initrd" && find . | LC_ALL=C sort | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null) |
        gzip -9n >"$out/initrd"
}
