#!/bin/sh
# Gives a clone of a template of NetBSD or OpenBSD its own names, and then, with keys.sh behind it, its own keys.
# The working directory has them as files.
set -eu
umask 022

new=$(cat hostname)
old=$(hostname)
hostname "$new"
cp hostname /etc/myname
sed "s/$old/$new/g" /etc/hosts >hosts
cat hosts >/etc/hosts
# Programs that came from Linux read it, if anything does.
if [ -f /etc/machine-id ]; then cp machine-id /etc/machine-id; fi
