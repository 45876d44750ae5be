"""Whatever a peer sends: no crash, no hang, no word of the payload, and a status that tells the truth."""

import itertools
import os
import random
import struct
import subprocess
import threading

import pytest

from client import SLOWNESS, WRAPPER, assert_one_line, assert_silent_success
from servers import Impostor, Relay

SEED = int(os.environ.get("TEST_SEED", "20261122"))
TIMEOUT = 0.6  # seconds, times SLOWNESS
DTLS_1_0, DTLS_1_2 = 0xFEFF, 0xFEFD
ALERT, HANDSHAKE = 21, 22
SERVER_HELLO, HELLO_VERIFY_REQUEST, SERVER_HELLO_DONE = 2, 3, 14

sequence_numbers = itertools.count()


def record(kind, body, version=DTLS_1_2, epoch=0, length=None):
    """A record (RFC 6347 section 4.1), by default with the length that is true."""
    length = len(body) if length is None else length
    return (struct.pack("!BHH", kind, version, epoch) + next(sequence_numbers).to_bytes(6, "big") +
            struct.pack("!H", length) + body)


def message(kind, body, number=0, length=None, offset=0, part=None):
    """A handshake message (RFC 6347 section 4.2.2), by default whole."""
    length = len(body) if length is None else length
    part = len(body) if part is None else part
    return (bytes([kind]) + length.to_bytes(3, "big") + struct.pack("!H", number) +
            offset.to_bytes(3, "big") + part.to_bytes(3, "big") + body)


def verify_request(cookie, **options):
    """A HelloVerifyRequest, which asks for another ClientHello with this cookie in it."""
    return record(HANDSHAKE, message(HELLO_VERIFY_REQUEST, struct.pack("!HB", DTLS_1_0, len(cookie)) + cookie,
                                     **options), version=DTLS_1_0)


def server_hello(version=DTLS_1_2, suite=0xC02B, session=b"", extensions=b""):
    """A ServerHello's body."""
    return (struct.pack("!H", version) + bytes(32) + bytes([len(session)]) + session +
            struct.pack("!HB", suite, 0) + extensions)


def after_cookie(*datagrams):
    """Answers a ClientHello without a cookie with one, and all else with these."""

    def answer(datagram):
        is_first_hello = datagram[0] == HANDSHAKE and datagram[13] == 1 and datagram[60] == 0
        return [verify_request(b"cookie")] if is_first_hello else datagrams

    return answer


def randomly(make):
    """Twenty datagrams for each, of a seeded generator that the test's name and TEST_SEED determine."""
    generator = random.Random(f"{SEED} {make.__name__}")
    return lambda datagram: [make(generator, datagram) for _ in range(20)]


def noise(generator, _datagram):
    """Anything."""
    return generator.randbytes(generator.randrange(0, 1500))


def noise_in_records(generator, _datagram):
    """Records of the right shape with anything in them."""
    return record(generator.choice([20, 21, 22, 22, 22, 23, 24, 25]),
                  generator.randbytes(generator.randrange(0, 200)),
                  generator.choice([DTLS_1_0, DTLS_1_2, 0x0303]), generator.choice([0, 0, 0, 1, 65535]))


def noise_in_messages(generator, _datagram):
    """Handshake messages of the right shape with anything in them, in fragments that overlap."""
    length = generator.randrange(0, 3000)
    offset = generator.randrange(0, length + 1)
    body = generator.randbytes(generator.randrange(0, min(length - offset, 1200) + 1))
    return record(HANDSHAKE, message(generator.choice([0, 1, 2, 2, 3, 11, 12, 13, 14, 16, 20]), body,
                                     generator.randrange(0, 8), length, offset))


def echoes_that_are_damaged(generator, datagram):
    """The client's own words, with a few bits turned."""
    damaged = bytearray(datagram)
    for _ in range(generator.randrange(0, 6)):
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
    return bytes(damaged)


NONSENSE = {
    "noise": randomly(noise),
    "noise in records": randomly(noise_in_records),
    "noise in messages": randomly(noise_in_messages),
    "damaged echoes": randomly(echoes_that_are_damaged),
    "its own words": lambda datagram: [datagram],
    "empty datagrams": lambda _: [b""] * 5,
    "one byte": lambda _: [b"\x16"],
    "half a header": lambda datagram: [datagram[:12]],
    "the largest datagram": lambda _: [bytes(65507), record(HANDSHAKE, bytes(65000))],
    "a record longer than its datagram": lambda _: [record(HANDSHAKE, b"abc", length=16384)],
    "a record of no length": lambda _: [record(HANDSHAKE, b""), record(ALERT, b"")],
    "a message without body": lambda _: [record(HANDSHAKE, message(SERVER_HELLO, b""))],
    "a message that claims 16 MB": lambda _: [
        record(HANDSHAKE, message(SERVER_HELLO, b"x" * 100, 0, 0xFFFFFF))],
    "a fragment beyond its message": lambda _: [
        record(HANDSHAKE, message(SERVER_HELLO, b"x" * 100, 1, 50, 0xFFFF00))],
    "a cookie longer than its message": lambda _: [
        record(HANDSHAKE, message(HELLO_VERIFY_REQUEST, struct.pack("!HB", DTLS_1_0, 255) + b"short"))],
    "a flood of cookies": lambda _: [verify_request(os.urandom(32)) for _ in range(50)],
    "the longest cookie": lambda _: [verify_request(b"c" * 255)],
    "an empty cookie": lambda _: [verify_request(b"")],
    "an endless chain of cookies": lambda datagram: [verify_request(datagram[-8:] + os.urandom(8))],
    "a hello of the wrong version": after_cookie(
        record(HANDSHAKE, message(SERVER_HELLO, server_hello(DTLS_1_0), 1))),
    "a suite that was not offered": after_cookie(
        record(HANDSHAKE, message(SERVER_HELLO, server_hello(suite=0x002F), 1))),
    "a session that was not offered": after_cookie(
        record(HANDSHAKE, message(SERVER_HELLO, server_hello(session=b"s" * 32), 1))),
    "extensions that end early": after_cookie(
        record(HANDSHAKE, message(SERVER_HELLO, server_hello(extensions=b"\xff\xff\x00"), 1))),
    "a hello and nothing more": after_cookie(record(HANDSHAKE, message(SERVER_HELLO, server_hello(), 1))),
    "done before it began": after_cookie(
        record(HANDSHAKE, message(SERVER_HELLO, server_hello(), 1)),
        record(HANDSHAKE, message(SERVER_HELLO_DONE, b"", 2))),
    "a goodbye at once": lambda _: [record(ALERT, b"\x01\x00")],
    "a goodbye after the cookie": after_cookie(record(ALERT, b"\x01\x00")),
    "warnings": lambda _: [record(ALERT, b"\x01\x5a")] * 10,
    "data before the handshake": lambda _: [record(23, b"downlink"), record(23, b"downlink", epoch=1)],
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_ends_in_a_failure_that_is_told(send, peers, nonsense):
    peer = peers.enter_context(Impostor(NONSENSE[nonsense]))
    result = send(peer, "x", timeout=TIMEOUT)
    assert result.status in (75, 76), result
    assert result.stdout == b""
    assert_one_line(result, peer.address)
    assert result.seconds < TIMEOUT * SLOWNESS + (3 if WRAPPER else 0.4)
    assert peer.answered > 0


def test_a_server_that_answers_in_an_older_version_is_called_too_old(send, peers):
    """Instead of by whatever else is wrong with its answer."""
    hello = record(HANDSHAKE, message(SERVER_HELLO, server_hello(DTLS_1_0), 1), version=DTLS_1_0)
    peer = peers.enter_context(Impostor(after_cookie(hello)))
    result = send(peer, "x")
    assert result.status == 76, result
    assert_one_line(result, "version 1.2")


def test_a_flood_that_never_ends_does_not_outlast_the_timeout(send, peers):
    """What has already arrived is read on after the deadline, but not for ever."""
    ended = threading.Event()

    def flood(_datagram):
        while not ended.is_set():
            yield record(HANDSHAKE, message(SERVER_HELLO, b"x" * 50, 1, 5000))

    peer = peers.enter_context(Impostor(flood))
    peers.callback(ended.set)
    result = send(peer, "x", timeout=TIMEOUT)
    assert result.status in (75, 76), result
    assert result.seconds < TIMEOUT * SLOWNESS + (3 if WRAPPER else 0.4)


@pytest.mark.parametrize("number, name", [(40, "handshake_failure"), (70, "protocol_version"),
                                          (80, "internal_error"), (112, "unrecognized_name"), (231, "231")])
def test_a_fatal_alert_is_named(send, peers, number, name):
    peer = peers.enter_context(Impostor(after_cookie(record(ALERT, bytes([2, number])))))
    result = send(peer, "x")
    assert result.status == 76, result
    assert_one_line(result, "alert", (name, name.replace("_", " ")))
    assert result.seconds < 1 * SLOWNESS


@pytest.mark.parametrize("number", [42, 43, 44, 45, 46, 48, 49])
def test_an_alert_about_our_certificate_is_a_matter_of_trust(send, peers, number):
    peer = peers.enter_context(Impostor(after_cookie(record(ALERT, bytes([2, number])))))
    result = send(peer, "x")
    assert result.status == 77, result
    assert_one_line(result, "certificate")


class Meddler(Relay):
    """A relay that lets somebody else's datagrams in, who knows addresses and ports but no keys."""

    def inject(self, *datagrams):
        """Sends these to the client."""
        for datagram in datagrams:
            self._near.sendto(datagram, self._client)


def test_strangers_cannot_disturb_a_connection(begin, inboxd, peers):
    """Forged alerts, data, hellos and noise between the payload and its answer are dropped."""
    server = inboxd("--reply", "ack")
    relay = peers.enter_context(Meddler(server))
    client = begin(relay, "--wait", "8", "--count", "2", "--lines", stdin=subprocess.PIPE)
    client.process.stdin.write(b"one\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"ack\n"
    generator = random.Random(SEED)
    relay.inject(record(ALERT, b"\x02\x28"), record(ALERT, b"\x01\x00"), record(23, b"forged"),
                 record(23, b"f" * 40, epoch=1), record(ALERT, b"\x02\x28" + bytes(24), epoch=1),
                 record(HANDSHAKE, message(0, b"")),
                 record(HANDSHAKE, message(SERVER_HELLO, server_hello(), 0)), b"",
                 *[noise(generator, b"") for _ in range(20)], *relay.down)
    assert_silent_success(client.finish(b"two\n"), b"ack\n")
    server.wait_for_payloads(b"one", b"two")


def test_a_downlink_that_the_network_doubles_is_printed_once(begin, inboxd, peers):
    """RFC 6347 section 4.1.2.6."""
    server = inboxd("--reply", "ack")
    relay = peers.enter_context(Meddler(server))
    client = begin(relay, "--wait", "0.7", "x")
    assert client.process.stdout.readline() == b"ack\n"
    relay.inject(relay.down[-1], relay.down[-1])
    assert_silent_success(client.finish())


def test_a_downlink_that_was_tampered_with_is_not_printed(begin, inboxd, peers):
    server = inboxd("--reply", "ack")
    relay = peers.enter_context(Meddler(server))
    client = begin(relay, "--wait", "0.7", "x")
    assert client.process.stdout.readline() == b"ack\n"
    genuine = relay.down[-1]
    # A record number that is new, so that it is the tag which has to tell.
    relay.inject(genuine[:10] + bytes([genuine[10] ^ 64]) + genuine[11:])
    assert_silent_success(client.finish())
