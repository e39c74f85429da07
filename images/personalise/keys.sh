
# Nobody else's key stays. Images with a user of their own let root in by the same key.
for user in "$(cat user)" root; do
    home=$(sed -n "s|^$user:[^:]*:[^:]*:[^:]*:[^:]*:\([^:]*\):.*|\1|p" /etc/passwd)
    [ -n "$home" ] && [ -d "$home/.ssh" ] || continue
    cat authorized-key >"$home/.ssh/authorized_keys"
done

if [ -d /etc/dropbear ]; then
    pid=$(cat /run/dropbear.pid)
    rm -f /etc/dropbear/host-key
    dropbearconvert openssh dropbear host-key /etc/dropbear/host-key 2>/dev/null
    kill "$pid"
    # It listens until it is gone.
    while kill -0 "$pid" 2>/dev/null; do :; done
    exec dropbear -s -j -k -r /etc/dropbear/host-key -p 22 -P /run/dropbear.pid
fi
rm -f /etc/ssh/ssh_host_*
umask 077
cp host-key /etc/ssh/ssh_host_ed25519_key
umask 022
cp host-key.pub /etc/ssh/ssh_host_ed25519_key.pub
# It reads its keys again, and is the same process.
kill -HUP "$(cat /var/run/sshd.pid)"
