# Shared by the recipes: a directory becomes the disk of a guest, with or without root's rights.
#
# Read with `.` by build.sh after debian.sh. Expects work, out and disk_bytes.

# build_disk ROOT LABEL [OWNERS] writes OUT/disk.qcow2: one ext4 file system without a partition
# table. Without root's rights all files are ours, and the file system is told afterwards whose
# they are inside: root's, except for the lines "uid gid path" (path from the root on) of the
# file OWNERS.
build_disk() {
    raw=$work/disk.raw
    truncate -s "$disk_bytes" "$raw"
    # No journal and no reserve: the disk is thrown away with the machine. The inode tables are
    # written now, as holes, so that the guest does not write them to its overlay.
    mke2fs -q -F -t ext4 -O ^has_journal -m 0 -E root_owner=0:0,lazy_itable_init=0 \
        -L "$2" -d "$1" "$raw"
    [ "$(id -u)" -eq 0 ] || give_to_root "$1" "${3:-/dev/null}"
    qemu-img convert -q -f raw -O qcow2 "$raw" "$out/disk.qcow2"
    rm "$raw"
}

give_to_root() {
    {
        (cd "$1" && find . -mindepth 1) | sed 's/^\./0 0 /'
        cat "$2"
    } | while read -r uid gid path; do
        [ -e "$1$path" ] || [ -L "$1$path" ] || continue
        printf 'set_inode_field "%s" uid %s\nset_inode_field "%s" gid %s\n' \
            "$path" "$uid" "$path" "$gid"
    done >"$work/owners.debugfs"
    debugfs -w -f "$work/owners.debugfs" "$raw" >/dev/null 2>"$work/debugfs.log" ||
        fail "debugfs could not set the owners of the files"
    # It says its version first, and then every file that it did not find.
    if grep -v '^debugfs [0-9]' "$work/debugfs.log" >&2; then
        fail "debugfs could not set the owners of the files"
    fi
}
