"""CoAP messages (RFC 7252), written here anew, and devices of others that send them over DTLS."""

import os
import re
import shutil
import subprocess

import pytest

from servers import OpensslServer, Process

CON, NON, ACK, RST = range(4)
GET, POST, PUT = 1, 2, 3
URI_PATH, CONTENT_FORMAT, MAX_AGE, BLOCK2, BLOCK1, SIZE2, SIZE1, ECHO = 11, 12, 14, 23, 27, 28, 60, 252


def code(text):
    """Of "4.04"."""
    return int(text[0]) << 5 | int(text[2:])


def uint(number):
    """An option's value, in as few bytes as it needs."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def block(number, more, size):
    """The value of a block option."""
    return uint(number << 4 | more << 3 | (size.bit_length() - 5))


def path(text):
    """The options of a path without its leading slash."""
    return [(URI_PATH, part.encode()) for part in text.split("/")]


def _extended(value):
    """The nibble, and the bytes behind it."""
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes([value - 13])
    return 14, (value - 269).to_bytes(2, "big")


def message(kind, method, number, token=b"", options=(), payload=b""):
    """Bytes from fields. Options must be in order."""
    written = bytes([0x40 | kind << 4 | len(token), method]) + number.to_bytes(2, "big") + token
    last = 0
    for option, value in options:
        delta, delta_bytes = _extended(option - last)
        length, length_bytes = _extended(len(value))
        written += bytes([delta << 4 | length]) + delta_bytes + length_bytes + value
        last = option
    return written + (b"\xff" + payload if payload else b"")


def options_of(request):
    """Number and value of each option of a request."""
    at, number, found = 4 + (request[0] & 15), 0, []
    while at < len(request) and request[at] != 0xff:
        parts = [request[at] >> 4, request[at] & 15]
        at += 1
        for index, nibble in enumerate(parts):
            if nibble == 13:
                parts[index], at = request[at] + 13, at + 1
            elif nibble == 14:
                parts[index], at = int.from_bytes(request[at:at + 2], "big") + 269, at + 2
        number += parts[0]
        found.append((number, request[at:at + parts[1]]))
        at += parts[1]
    return found


def piggybacked(text, options=(), payload=b""):
    """For ScriptedServer: that response to every request."""
    def answer(request):
        return message(ACK, code(text), int.from_bytes(request[2:4], "big"), request[4:6],
                            options, payload)
    return answer


class RawDevice(Process):
    """`openssl s_client` with a pre-shared key: each message that is sent goes out as one record, and what comes
    is collected."""

    def __init__(self, server, directory, identity, key):
        super().__init__(["openssl", "s_client", "-dtls1_2", "-connect", server.address, "-psk_identity",
                          identity, "-psk", key, "-cipher", "PSK", "-quiet"],
                         errors=directory / "s_client.err")
        self._taken = 0

    def send(self, *messages):
        """Sends a message in a record of its own, as long as the one before was answered."""
        for one in messages:
            os.write(self.process.stdin.fileno(), one)

    def expect(self, pattern):
        """Waits for bytes, or for what matches a pattern, and returns the match. They must be next."""
        if isinstance(pattern, bytes):
            pattern = re.compile(re.escape(pattern), re.DOTALL)
        found = self.wait_for_output(lambda output: pattern.match(output, self._taken), pattern.pattern)
        self._taken = found.end()
        return found

    def left(self):
        """What came and was not expected."""
        return self.output[self._taken:]


def skip_without(program):
    """Skips the test where this program of libcoap's is not installed."""
    if not shutil.which(program):
        pytest.skip(f"no {program} (libcoap3-bin)")


def run_coap_client(server, resource, *options, identity, key, library="openssl", limit=20):
    """libcoap's own client, once; returns what it printed on stdout. The key is text."""
    skip_without(f"coap-client-{library}")
    done = subprocess.run([f"coap-client-{library}", "-u", identity, "-k", key, "-B", "5", "-o", "-", *options,
                           f"coaps://{server.address}/{resource}"],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=True)
    return done.stdout, done.stderr.decode()


class ScriptedServer(OpensslServer):
    """Answers each message of the client with whatever `answer(message)` returns; nothing where that is empty."""

    def __init__(self, pki, directory, answer):
        self._answer = answer
        self.messages = []
        super().__init__(pki, directory)

    def collected(self, chunk):
        self.messages.append(chunk)
        if answer := self._answer(chunk):
            self.send(answer)


def uri(server, resource=""):
    """For --server."""
    return f"coaps://{server.address}/{resource}"


def requests(server):
    """The requests that it received so far: method, id, token and path of each."""
    server.settle()  # what it has received it may not have told yet
    return [words[2:] for words in server.events("coap")]
