#!/bin/sh
# Gives a clone of a template of Linux its own names, and then, with keys.sh behind it, its own keys.
# The working directory has them as files.
set -eu
umask 022

old=$(hostname)
new=$(cat hostname)
hostname "$new"
cp hostname /etc/hostname
if [ -f /etc/hosts ]; then
    # In place, because something may be mounted there.
    sed "s/$old/$new/g" /etc/hosts >hosts
    cat hosts >/etc/hosts
fi
cp machine-id /etc/machine-id
