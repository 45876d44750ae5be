#!/bin/sh
# What waits for devices in inboxd's state directory, and what was sent to them.
#
#   outbox.sh STATE_DIR add DEVICE TEXT    queues a message
#   outbox.sh STATE_DIR list               a line a message: DEVICE NUMBER pending|sent|refused TEXT
set -eu

usage() {
    echo "usage: outbox.sh STATE_DIR add DEVICE TEXT | outbox.sh STATE_DIR list" >&2
    exit 64
}

# Numbers go on from the last one, whatever became of that. Written under another name first, so that inboxd
# never sees half a message.
add() {
    outbox=$state_dir/outbox/$1
    mkdir -p "$outbox"
    last=0
    for message in "$outbox"/*.*; do
        name=${message##*/}
        number=$(echo "${name%%.*}" | sed 's/^0*//')
        case $number in
            '' | *[!0-9]*) continue ;;
        esac
        [ "$number" -le "$last" ] || last=$number
    done
    name=$(printf '%06d' $((last + 1)))
    printf '%s' "$2" >"$outbox/.$name"
    mv "$outbox/.$name" "$outbox/$name.pending"
}

list() {
    for message in "$state_dir"/outbox/*/*.*; do
        [ -e "$message" ] || continue
        outbox=${message%/*}
        name=${message##*/}
        printf '%s %s %s ' "${outbox##*/}" "${name%%.*}" "${name##*.}"
        cat "$message"
        echo
    done
}

[ $# -ge 2 ] || usage
state_dir=$1
case $2:$# in
    add:4) add "$3" "$4" ;;
    list:2) list ;;
    *) usage ;;
esac
