#!/bin/sh
# Gives a clone of a template its own keys, and then, with its system's script behind this one, its
# own names. A process costs an emulated guest some hundredths of a second, so the shell does what it
# can by itself, and the SSH server starts anew while the rest is done.
set -eu
umask 022

# A copy of a file, in its place: something may be mounted there.
put() {
    while IFS= read -r line || [ -n "$line" ]; do
        printf '%s\n' "$line"
    done <"$1" >"$2"
}

# In a file, the new name instead of the old one.
rename() {
    [ -n "$old" ] && [ -f "$1" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        before=
        while
            case $line in
            *"$old"*) true ;;
            *) false ;;
            esac
        do
            before=$before${line%%"$old"*}$new
            line=${line#*"$old"}
        done
        printf '%s\n' "$before$line"
    done <"$1" >renamed
    put renamed "$1"
}

# In the template: other keys than the one that each clone gets are nobody's.
for key in /etc/ssh/ssh_host_*; do
    case $key in
    */ssh_host_ed25519_key | */ssh_host_ed25519_key.pub) ;;
    *) rm -f "$key" ;;
    esac
done
rm -f /etc/dropbear/host-key

# From here on in each clone. The working directory has its names and keys as files.
echo ready
read -r go

# Nobody else's key stays. Images with a user of their own let root in by the same key.
read -r login <user
while IFS=: read -r name _ _ _ _ home _; do
    case $name in
    "$login" | root)
        if [ -n "$home" ] && [ -d "$home/.ssh" ]; then
            put authorized-key "$home/.ssh/authorized_keys"
        fi
        ;;
    esac
done </etc/passwd

if [ -d /etc/dropbear ]; then
    read -r pid </run/dropbear.pid
    dropbearconvert openssh dropbear host-key /etc/dropbear/host-key 2>/dev/null
    # It listens until it is gone, and may miss a signal that comes just before it waits for the next
    # connection.
    while kill "$pid" 2>/dev/null; do :; done
    dropbear -s -j -k -r /etc/dropbear/host-key -p 22 -P /run/dropbear.pid
else
    umask 077
    put host-key /etc/ssh/ssh_host_ed25519_key
    umask 022
    put host-key.pub /etc/ssh/ssh_host_ed25519_key.pub
    # It reads its keys again, and is the same process.
    read -r pid </var/run/sshd.pid
    kill -HUP "$pid"
fi

read -r new <hostname
