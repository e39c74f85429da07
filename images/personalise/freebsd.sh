
# The names of FreeBSD.
old=$(hostname)
hostname "$new"
sysrc -q hostname="$new" >/dev/null
rename /etc/hosts
put machine-id /etc/machine-id
# The host's uuid, of the same digits.
uuid=$(sed 's/^\(........\)\(....\)\(....\)\(....\)\(............\)$/\1-\2-\3-\4-\5/' machine-id)
echo "$uuid" >/etc/hostid
sysctl -q kern.hostuuid="$uuid"
