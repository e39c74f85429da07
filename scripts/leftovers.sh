#!/usr/bin/env bash
# Fails if the tests left a process, a mount, a socket or an instance behind.
set -euo pipefail
directory=${SOLSTICE_TEST_DIR:?set by scripts/test.sh}
# Where the tests of this run keep what belongs on tmpfs.
runtime=/dev/shm/solstice-test-${SOLSTICE_TEST_RUN:?set by scripts/test.sh}-
left=0
found() {
    echo "left behind: $*" >&2
    left=1
}
for process in /proc/[0-9]*; do
    command=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline") || continue # it has ended
    case $command in *"$directory"/* | *"$runtime"*) ;; *) continue ;; esac
    case $command in
        *qemu-system* | *watch-instance* | *workflow-runner*)
            found "process ${process#/proc/}: ${command:0:200}" ;;
    esac
done
while read -r line; do
    found "mount: $line"
done < <(grep -F -e "$directory/" -e "$runtime" /proc/mounts || true)
while read -r path; do
    found "file: $path"
done < <(find "$directory" -path "$directory/images" -prune -o \( -type s -o -name '*.qcow2' -o -name lock \) -print)
for path in "$runtime"*; do
    if [ -e "$path" ]; then found "runtime directory: $path"; fi
done
exit $left
