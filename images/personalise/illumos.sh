
# The names of illumos.
old=$(uname -n)
uname -S "$new"
put hostname /etc/nodename
rename /etc/hosts
# Some programs that came from Linux read it.
if [ -f /etc/machine-id ]; then put machine-id /etc/machine-id; fi
