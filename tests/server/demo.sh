#!/bin/sh
# The whole story, offline: a message waits in a device's outbox; the device sends, and prints that message as
# its downlink; what it sent is in its inbox. Then the same by CoAP, confirmed, and once more in one datagram.
# `make demo` calls this.
set -eu
cd "$(dirname "$0")/../.."

build=${BUILD:-build}
demo=$build/demo
servers=
session_dir=

fail() {
    echo "demo: $*" >&2
    exit 1
}

leave() {
    # shellcheck disable=SC2086 # several numbers
    [ -z "$servers" ] || kill $servers 2>/dev/null || true
    rm -f "$demo/events"
    [ -z "$session_dir" ] || rm -rf "$session_dir"
}
trap leave EXIT
trap 'exit 1' HUP INT TERM

say() {
    printf '\n# %s\n' "$1"
}

# show COMMAND ARGUMENT...: prints the command as one would type it, and runs it. Descriptor 3 is the reader's,
# whatever becomes of the command's output.
exec 3>&1
show() {
    printf '$' >&3
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./:-]*) printf ' "%s"' "$word" >&3 ;;
            *) printf ' %s' "$word" >&3 ;;
        esac
    done
    echo >&3
    "$@"
}

# holds FILE TEXT: whether that is all it holds.
holds() {
    printf '%b' "$2" | cmp -s - "$1"
}

# start_server STATE_DIR [OPTION]...: sets $address and $port.
start_server() {
    state=$1
    shift
    rm -rf "$state" "$demo/events"
    # A pipe, to wait there for the event that names the port. It stays open, since more events follow.
    mkfifo "$demo/events"
    "$build/inboxd" --port 0 --cert "$demo/server.crt" --key "$demo/server.key" --ca "$demo/root.crt" "$@" \
        "$state" >"$demo/events" 3>&- 4<&- &
    servers="$servers $!"
    exec 4<"$demo/events"
    if ! read -r event address port <&4 || [ "$event" != listening ]; then
        fail "the server did not start"
    fi
}

# send SERVER ARGUMENT...: runs the client, and prints what it prints.
send() {
    status=0
    server=$1
    shift
    show "$build/dtls-send" --server "$server" --cert "$demo/cert.crt" --key "$demo/key.pem" "$@" \
        >"$demo/downlinks" 2>"$demo/steps" || status=$?
    cat "$demo/downlinks"
    [ "$status" -eq 0 ] || fail "the client ended with status $status: $(cat "$demo/steps")"
}

certs/demo-pki.sh "$demo"

start_server "$demo/state"
say "A server listens at $address, port $port. A message for the device goes into its outbox, and waits:"
show tests/server/outbox.sh "$state" add demo-device "Hello there"
show tests/server/outbox.sh "$state" list

say "The device sends, and prints what waited for it:"
send "$address:$port" "Echo this"

say "What the device sent is in its inbox; what waited for it was sent:"
show tests/server/inbox.sh "$state" list
show tests/server/outbox.sh "$state" list

holds "$demo/downlinks" 'Hello there\n' || fail 'the client printed something else than "Hello there"'
holds "$state/inbox/demo-device/000001" 'Echo this' || fail 'the inbox has no "Echo this"'

# An association is kept in memory alone: elsewhere the second run needs an abbreviated handshake.
keeps_association=no
for directory in "${XDG_RUNTIME_DIR:-}" /dev/shm /run; do
    if [ -d "$directory" ] && [ -w "$directory" ] && [ "$(stat -f -c %T "$directory")" = tmpfs ]; then
        keeps_association=yes
        break
    fi
    directory=$demo
done
session_dir=$(mktemp -d "$directory/dtls-send.XXXXXX")

start_server "$demo/coap" --coap
say "Another server speaks CoAP, which confirms every payload. A message waits there too:"
show tests/server/outbox.sh "$state" add demo-device "Measure every hour"

say "The device sends one confirmed message. The confirmation brings what waited:"
send "coaps://$address:$port/sensor" --session "$session_dir/session" -v "21.5"
grep -o '[0-9]* bytes in .* received' "$demo/steps"
show tests/server/inbox.sh "$state" list
show tests/server/outbox.sh "$state" list
holds "$demo/downlinks" 'Measure every hour\n' || fail 'the client printed something else than "Measure every hour"'
holds "$state/inbox/demo-device/000001" 21.5 || fail 'the inbox has no "21.5"'

if [ "$keeps_association" = yes ]; then
    say "The next run goes on with the association that the first one saved: one datagram, and its confirmation."
else
    say "The next run goes on with the saved session (no tmpfs was found here, where an association is kept too):"
fi
send "coaps://$address:$port/sensor" --session "$session_dir/session" -v "21.6"
grep -o '[0-9]* bytes in .* received' "$demo/steps"
show tests/server/inbox.sh "$state" list
holds "$state/inbox/demo-device/000002" 21.6 || fail 'the inbox has no "21.6"'
[ "$keeps_association" = no ] || grep -q ' in 1 datagrams\{0,1\} sent.* in 1 datagrams\{0,1\} received' "$demo/steps" ||
    fail "the second run took more than one datagram each way"
