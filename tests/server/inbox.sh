#!/bin/sh
# What devices have sent, in inboxd's state directory.
#
#   inbox.sh STATE_DIR list    a line an uplink: DEVICE NUMBER TEXT
set -eu

if [ $# -ne 2 ] || [ "$2" != list ]; then
    echo "usage: inbox.sh STATE_DIR list" >&2
    exit 64
fi

for uplink in "$1"/inbox/*/*; do
    [ -e "$uplink" ] || continue
    inbox=${uplink%/*}
    printf '%s %s ' "${inbox##*/}" "${uplink##*/}"
    cat "$uplink"
    echo
done
