
# The names of Linux.
read -r old </proc/sys/kernel/hostname
echo "$new" >/proc/sys/kernel/hostname
put hostname /etc/hostname
rename /etc/hosts
put machine-id /etc/machine-id
