
# The names of NetBSD and OpenBSD.
old=$(hostname)
hostname "$new"
put hostname /etc/myname
rename /etc/hosts
# Programs that came from Linux read it, if anything does.
if [ -f /etc/machine-id ]; then put machine-id /etc/machine-id; fi
