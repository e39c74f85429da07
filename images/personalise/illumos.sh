#!/bin/sh
# Gives a clone of a template of illumos its own names, and then, with keys.sh behind it, its own keys.
# The working directory has them as files.
set -eu
umask 022

new=$(cat hostname)
old=$(uname -n)
uname -S "$new"
cp hostname /etc/nodename
# In place: /etc/hosts may be a link to inet/hosts.
sed "s/$old/$new/g" /etc/hosts >hosts
cat hosts >/etc/hosts
# Some programs that came from Linux read it.
if [ -f /etc/machine-id ]; then cp machine-id /etc/machine-id; fi
