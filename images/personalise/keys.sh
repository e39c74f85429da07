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

# Debian's OpenSSH server, started anew so that it waits for its configuration, which it reads before
# its keys: a clone's has only to go on. It takes no random numbers before that which it would use
# later: each connection is another process, and such a one asks the kernel again.
gate=
wait_at_gate() {
    [ -f /etc/default/ssh ] && [ -f /etc/ssh/sshd_config ] && [ -d /run/systemd/system ] || return 0
    systemctl is-active --quiet ssh.service || return 0
    gate=/run/sshd_config
    rm -f "$gate"
    mkfifo -m 600 "$gate"
    mkdir -p /run/systemd/system/ssh.service.d
    # Its ordinary start would first have the configuration checked by another process.
    cat >/run/systemd/system/ssh.service.d/gate.conf <<EOF
[Service]
ExecStartPre=
ExecStart=
ExecStart=/usr/sbin/sshd -D \$SSHD_OPTS -f $gate
EOF
    systemctl daemon-reload
    # The connections that are open stay so.
    systemctl restart --no-block ssh.service
}

# In the template: other keys than the one that each clone gets are nobody's.
for key in /etc/ssh/ssh_host_*; do
    case $key in
    */ssh_host_ed25519_key | */ssh_host_ed25519_key.pub) ;;
    *) rm -f "$key" ;;
    esac
done
rm -f /etc/dropbear/host-key
wait_at_gate

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
    if [ -n "$gate" ]; then
        put /etc/ssh/sshd_config "$gate"
        # What starts it from now on finds what it would.
        ln -sf /etc/ssh/sshd_config "$gate" >/dev/null 2>&1 &
    else
        # It reads its keys again, and is the same process.
        read -r pid </var/run/sshd.pid
        kill -HUP "$pid"
    fi
fi

read -r new <hostname
