#!/bin/sh
# Gives a clone of a template of FreeBSD its own names, and then, with keys.sh behind it, its own keys.
# The working directory has them as files.
set -eu
umask 022

new=$(cat hostname)
old=$(hostname)
hostname "$new"
sysrc -q hostname="$new" >/dev/null
sed "s/$old/$new/g" /etc/hosts >hosts
cat hosts >/etc/hosts
cp machine-id /etc/machine-id
# The host's uuid, of the same digits.
uuid=$(sed 's/^\(........\)\(....\)\(....\)\(....\)\(............\)$/\1-\2-\3-\4-\5/' machine-id)
echo "$uuid" >/etc/hostid
sysctl -q kern.hostuuid="$uuid"
