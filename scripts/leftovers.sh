#!/usr/bin/env bash
# Fails if the tests left a process, a mount, a socket or an instance behind.
set -euo pipefail
directory=${SOLSTICE_TEST_DIR:?set by scripts/test.sh}
left=0
found() {
    echo "left behind: $*" >&2
    left=1
}
for process in /proc/[0-9]*; do
    if tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -qF "$directory" &&
        tr '\0' ' ' <"$process/cmdline" | grep -qE 'qemu-system|watch-instance|workflow-runner'; then
        found "process ${process#/proc/}: $(tr '\0' ' ' <"$process/cmdline" | cut -c 1-200)"
    fi
done
while read -r line; do
    found "mount: $line"
done < <(grep -F "$directory" /proc/mounts || true)
while read -r path; do
    found "file: $path"
done < <(find "$directory" -path "$directory/images" -prune -o \( -type s -o -name '*.qcow2' -o -name lock \) -print)
for path in /dev/shm/solstice-test-*; do
    if [ -e "$path" ]; then found "runtime directory: $path"; fi
done
exit $left
