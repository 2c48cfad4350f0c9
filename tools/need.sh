#!/bin/sh
# need.sh COMMAND=PACKAGE...
# Makes sure that every command is there. As root, installs the Debian packages of those that are not; otherwise names them
# and fails.
set -eu

commands=
packages=
for pair in "$@"; do
    if ! command -v "${pair%%=*}" >/dev/null 2>&1; then
        commands="$commands ${pair%%=*}"
        packages="$packages ${pair#*=}"
    fi
done
[ -n "$packages" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed:$commands. On Debian or Ubuntu: sudo apt-get install$packages" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
# shellcheck disable=SC2086  # a word for each package
apt-get install --quiet --yes --no-install-recommends $packages
