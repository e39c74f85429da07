#!/usr/bin/env bash
# Fails if the tests left a process, a mount, a socket, an instance, a temporary file, or a throw-away
# broker or database behind.
set -euo pipefail
directory=${SOLSTICE_TEST_DIR:?set by scripts/test.sh}
run=${SOLSTICE_TEST_RUN:?set by scripts/test.sh}
temporary=${TMPDIR:?set by scripts/temporary.sh}
# Where the tests of this run keep what belongs on tmpfs.
runtime=/dev/shm/solstice-test-$run-
# How long the watchdog of a server may take to clear it away after its test program has ended.
patience=15
# The directories of this run's brokers and databases, wherever their account can go.
servers() {
    find -H "$temporary" /tmp -maxdepth 1 -name "solstice-*-$run-*" -print | sort -u
}
# Processes that work in such a directory, epmd among them, and the watchdogs of the directories.
server_processes() {
    local process cwd command
    for process in /proc/[0-9]*; do
        cwd=$(readlink "$process/cwd" 2>/dev/null) || continue # it has ended
        command=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline") || continue
        case "$cwd/" in */solstice-*-"$run"-*) ;; *)
            case $command in *watch-server\ */solstice-*-"$run"-*) ;; *) continue ;; esac ;;
        esac
        printf '%s: %s\n' "${process#/proc/}" "${command:0:200}"
    done
}
end=$((SECONDS + patience))
while [ -n "$(servers)$(server_processes)" ] && [ $SECONDS -lt $end ]; do sleep 0.5; done
left=0
found() {
    echo "left behind: $*" >&2
    left=1
}
for process in /proc/[0-9]*; do
    command=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline") || continue # it has ended
    # A service, or a command of the program, says where it lives only in its environment.
    environment=$(tr '\0' ' ' 2>/dev/null <"$process/environ") || continue
    case $command in
        *"$directory"/* | *"$runtime"*) ;;
        *) case $environment in *"SOLSTICE_STATE_DIR=$directory/"*) ;; *) continue ;; esac ;;
    esac
    case $command in
        *qemu-system* | *watch-instance* | *workflow-runner* | *solstice*)
            found "process ${process#/proc/}: ${command:0:200}" ;;
    esac
done
while read -r line; do
    found "mount: $line"
done < <(grep -F -e "$directory/" -e "$runtime" /proc/mounts || true)
while read -r path; do
    found "file: $path"
done < <(find "$directory" \( -path "$directory/images" -o -path "$directory/templates/ready" \) -prune -o \( -type s -o -name '*.qcow2' -o -name lock \) -print)
for path in "$runtime"*; do
    if [ -e "$path" ]; then found "runtime directory: $path"; fi
done
while read -r path; do
    found "directory of a server: $path"
done < <(servers)
while read -r path; do
    found "temporary file: $path"
done < <(find "$temporary" -mindepth 1 -maxdepth 1 ! -name "solstice-*-$run-*")
while read -r process; do
    found "process of a server: $process"
done < <(server_processes)
rmdir --ignore-fail-on-non-empty "$temporary"
exit $left
