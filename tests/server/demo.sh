#!/bin/sh
# The whole story, offline: a message waits in a device's outbox; the device sends, and prints that message as
# its downlink; what it sent is in its inbox. `make demo` calls this.
set -eu
cd "$(dirname "$0")/../.."

build=${BUILD:-build}
demo=$build/demo
state=$demo/state
inboxd=

fail() {
    echo "demo: $*" >&2
    exit 1
}

leave() {
    [ -z "$inboxd" ] || kill "$inboxd" 2>/dev/null || true
    rm -f "$demo/events"
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

certs/demo-pki.sh "$demo"
rm -rf "$state" "$demo/events"

# A pipe, to wait there for the event that names the port. It stays open: the server goes on to tell of events.
mkfifo "$demo/events"
"$build/inboxd" --port 0 --cert "$demo/server.crt" --key "$demo/server.key" --ca "$demo/root.crt" \
    "$state" >"$demo/events" 3>&- &
inboxd=$!
exec 4<"$demo/events"
if ! read -r event address port <&4 || [ "$event" != listening ]; then
    fail "the server did not start"
fi

say "A server listens at $address, port $port. A message for the device goes into its outbox, and waits:"
show tests/server/outbox.sh "$state" add demo-device "Hello there"
show tests/server/outbox.sh "$state" list

say "The device sends, and prints what waited for it:"
status=0
show "$build/dtls-send" --server "$address:$port" --cert "$demo/cert.crt" --key "$demo/key.pem" \
    "Echo this" >"$demo/downlinks" || status=$?
cat "$demo/downlinks"
[ "$status" -eq 0 ] || fail "the client ended with status $status"

say "What the device sent is in its inbox; what waited for it was sent:"
show tests/server/inbox.sh "$state" list
show tests/server/outbox.sh "$state" list

holds "$demo/downlinks" 'Hello there\n' || fail 'the client printed something else than "Hello there"'
holds "$state/inbox/demo-device/000001" 'Echo this' || fail 'the inbox has no "Echo this"'
