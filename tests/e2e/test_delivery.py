"""Payloads arrive byte for byte, and downlinks are printed whole and in order."""

import os
import subprocess
import threading

import pytest

from client import SLOWNESS, assert_silent_success
from servers import Relay, wait_until

ALL_BYTES = bytes(range(256))


def pattern(size):
    """Bytes in which every shift, cut or repetition shows."""
    return bytes((i * 7 + i // 256) % 256 for i in range(size))


# Payload sources

@pytest.mark.smoke
def test_an_argument_arrives_on_every_kind_of_server(send, server):
    assert send(server, "--wait", "0", "temperature=21.5").status == 0
    server.wait_for_payloads(b"temperature=21.5")


def test_an_argument_may_begin_with_a_dash_after_two_dashes(send, openssl):
    server = openssl()
    assert_silent_success(send(server, "--wait", "0", "--", "-5.5"))
    server.wait_for_payloads(b"-5.5")


def test_an_argument_need_not_be_utf8(send, inboxd):
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0", b"\xff\xfe\x01"))
    server.wait_for_payloads(b"\xff\xfe\x01")


@pytest.mark.smoke
def test_a_file_arrives_byte_for_byte(send, server, tmp_path):
    payload = b"line\nline\r\n\x7f" if type(server).__name__ == "GnutlsServer" else ALL_BYTES
    (tmp_path / "payload").write_bytes(payload)
    assert send(server, "--wait", "0", "--file", "payload").status == 0
    server.wait_for_payloads(payload)


def test_standard_input_arrives_byte_for_byte(send, openssl):
    server = openssl()
    assert_silent_success(send(server, "--wait", "0", "--file", "-", stdin=ALL_BYTES + b"\n"))
    server.wait_for_payloads(ALL_BYTES + b"\n")


def test_standard_input_may_come_in_pieces(begin, inboxd):
    server = inboxd()
    client = begin(server, "--wait", "0", "--file", "-", stdin=subprocess.PIPE)
    client.process.stdin.write(b"first, ")
    client.process.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        client.process.wait(0.2)
    assert_silent_success(client.finish(b"second"))
    server.wait_for_payloads(b"first, second")


@pytest.mark.smoke
def test_each_line_is_a_payload_over_one_connection(send, inboxd):
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0", "--lines", stdin=b"one\ntwo\nthree\n"))
    server.wait_for_payloads(b"one", b"two", b"three")
    assert len(server.events("handshake")) == 1


def test_the_last_line_needs_no_newline_and_an_empty_line_is_an_empty_payload(send, inboxd):
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0", "--lines", stdin=b"one\n\nthree"))
    server.wait_for_payloads(b"one", b"", b"three")


def test_lines_may_hold_any_bytes_but_newline(send, inboxd):
    server = inboxd()
    line = bytes(byte for byte in ALL_BYTES if byte != 10)
    assert_silent_success(send(server, "--wait", "0", "--lines", stdin=line + b"\n" + b"x" * 16384 + b"\n"))
    server.wait_for_payloads(line, b"x" * 16384)


def test_two_hundred_lines_arrive_in_order(send, inboxd):
    server = inboxd()
    lines = [b"%d" % number for number in range(200)]
    assert_silent_success(send(server, "--wait", "0", "--lines", stdin=b"\n".join(lines)))
    server.wait_for_payloads(*lines)


def test_lines_on_openssl(send, openssl):
    server = openssl()
    assert_silent_success(send(server, "--wait", "0", "--lines", stdin=b"one\ntwo\nthree\n"))
    server.wait_for_payloads(b"one", b"two", b"three")


def test_a_line_is_sent_and_answered_before_the_next_one_is_there(begin, inboxd):
    """As in `sensor | dtls-send --lines`, where minutes may pass between lines: longer than --wait."""
    server = inboxd("--reply", "ack")
    client = begin(server, "--wait", "0.2", "--lines", stdin=subprocess.PIPE)
    for number in range(1, 4):
        client.process.stdin.write(b"line %d\n" % number)
        client.process.stdin.flush()
        assert client.process.stdout.readline() == b"ack\n"
        assert server.received() == [b"line %d" % line for line in range(1, number + 1)]
        with pytest.raises(subprocess.TimeoutExpired):
            client.process.wait(0.4)
    assert_silent_success(client.finish())


@pytest.mark.parametrize("text, payload", [
    (b"01a0ff", b"\x01\xa0\xff"), (b"01 A0\tfF\n", b"\x01\xa0\xff"), (b"0 1a0 ff", b"\x01\xa0\xff"),
    (b"", b""), (b" \n", b""), (ALL_BYTES.hex().encode(), ALL_BYTES)])
def test_hex_digits_are_decoded(send, inboxd, text, payload):
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0", "--hex", text))
    server.wait_for_payloads(payload)


def test_hex_digits_are_decoded_from_a_file_and_from_lines(send, inboxd, tmp_path):
    server = inboxd()
    (tmp_path / "digits").write_text("00 01\nff\n", encoding="ascii")
    assert_silent_success(send(server, "--wait", "0", "--hex", "--file", "digits"))
    assert_silent_success(send(server, "--wait", "0", "--hex", "--lines", stdin=b"00ff\n0a 0d\n"))
    server.wait_for_payloads(b"\0\1\xff", b"\0\xff", b"\n\r")


def test_a_hex_payload_of_the_largest_size(send, inboxd, tmp_path):
    server = inboxd()
    (tmp_path / "digits").write_text(pattern(16384).hex(" "), encoding="ascii")
    assert_silent_success(send(server, "--wait", "0", "--hex", "--file", "digits"))
    server.wait_for_payloads(pattern(16384))


# Sizes

def test_an_empty_payload_is_a_payload(send, inboxd):
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0", ""))
    assert_silent_success(send(server, "--wait", "0", "--hex", ""))
    assert_silent_success(send(server, "--wait", "0", "--lines", stdin=b"\n"))
    server.wait_for_payloads(b"", b"", b"")


@pytest.mark.parametrize("size", [1, 2000, 16383, 16384])
@pytest.mark.parametrize("kind", ["inboxd", "openssl"])
def test_every_size_arrives_byte_for_byte(send, request, kind, size, tmp_path):
    server = request.getfixturevalue(kind)()
    (tmp_path / "payload").write_bytes(pattern(size))
    assert_silent_success(send(server, "--wait", "0", "--file", "payload"))
    server.wait_for_payloads(pattern(size))


def test_the_largest_payload_may_be_an_argument(send, inboxd):
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0", "x" * 16384))
    server.wait_for_payloads(b"x" * 16384)


def test_a_plain_run_writes_the_payload_once(send, inboxd, peers):
    relay = peers.enter_context(Relay(inboxd()))
    assert send(relay, "--wait", "0.3", "x" * 1000).status == 0
    assert sum(len(datagram) > 1000 and datagram[0] == 23 for datagram in relay.up) == 1


def test_a_lost_payload_is_not_sent_again(send, inboxd):
    """That is for --confirm. Without it nobody is surprised by a duplicate."""
    server = inboxd("--drop-uplinks", "1")
    assert_silent_success(send(server, "--wait", "0.3", "lost"))
    server.assert_received_nothing()


# Downlinks

@pytest.mark.smoke
def test_a_queued_downlink_is_printed(send, inboxd):
    server = inboxd()
    server.queue(b"Hello there")
    assert_silent_success(send(server, "--wait", "8", "--count", "1", "Echo this"), b"Hello there\n")
    server.wait_for_payloads(b"Echo this")
    assert server.sent() == [b"Hello there"]
    assert server.pending() == []


@pytest.mark.smoke
def test_a_downlink_from_openssl_is_printed(send, openssl):
    server = openssl(reply=b"Hello there")
    assert_silent_success(send(server, "--wait", "8", "--count", "1", "Echo this"), b"Hello there\n")
    server.wait_for_payloads(b"Echo this")


def test_a_downlink_from_gnutls_is_printed(send, gnutls):
    server = gnutls()
    assert_silent_success(send(server, "--wait", "8", "--count", "1", "Echo this"), b"Echo this\n")
    server.wait_for_payloads(b"Echo this")


def test_three_downlinks_at_once_are_printed_in_order(send, inboxd):
    server = inboxd()
    server.queue(b"first", b"second", b"third")
    assert_silent_success(send(server, "--wait", "0.5", "x"), b"first\nsecond\nthird\n")
    assert server.pending() == []


def test_three_of_the_largest_downlinks_at_once_are_printed_in_order(send, inboxd):
    server = inboxd()
    downlinks = [bytes([65 + i]) + pattern(16383) for i in range(3)]
    server.queue(*downlinks)
    assert_silent_success(send(server, "--wait", "8", "--count", "3", "--output", "raw", "x"),
                          b"".join(downlinks))


@pytest.mark.parametrize("size", [1, 2000, 16384])
@pytest.mark.parametrize("kind", ["inboxd", "openssl"])
def test_a_downlink_of_every_size_arrives_whole(send, request, kind, size):
    if kind == "inboxd":
        server = request.getfixturevalue(kind)()
        server.queue(pattern(size))
    else:
        server = request.getfixturevalue(kind)(reply=pattern(size))
    result = send(server, "--wait", "8", "--count", "1", "--output", "raw", "x")
    assert_silent_success(result, pattern(size))


def test_an_empty_downlink_is_a_downlink(send, inboxd):
    """mbed TLS drops empty records without a word."""
    server = inboxd()
    server.queue(b"", b"after")
    assert_silent_success(send(server, "--wait", "0.5", "x"), b"\nafter\n")


def test_many_empty_downlinks_do_not_end_the_connection(send, inboxd):
    server = inboxd()
    server.queue(*[b""] * 6, b"after")
    assert_silent_success(send(server, "--wait", "0.5", "x"), b"\n" * 6 + b"after\n")


def test_an_empty_downlink_counts(send, inboxd):
    server = inboxd()
    server.queue(b"")
    result = send(server, "--wait", "8", "--count", "1", "x")
    assert_silent_success(result, b"\n")
    assert result.seconds < 4 * SLOWNESS


def test_each_line_is_answered_and_all_answers_are_printed(send, inboxd):
    server = inboxd("--reply", "ack")
    result = send(server, "--wait", "0.5", "--lines", stdin=b"".join(b"%d\n" % i for i in range(50)))
    assert_silent_success(result, b"ack\n" * 50)


def test_no_downlink_is_no_failure(send, inboxd):
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0.2", "x"))


# When a run ends

def test_wait_is_how_long_silence_is_listened_to(send, inboxd):
    server = inboxd()
    result = send(server, "--wait", "0.6", "x")
    assert_silent_success(result)
    assert 0.6 <= result.seconds < 1.1 * SLOWNESS


def test_the_default_wait_is_one_second(send, inboxd):
    server = inboxd()
    result = send(server, "x")
    assert_silent_success(result)
    assert 1 <= result.seconds < 1.5 * SLOWNESS


def test_wait_starts_anew_with_every_downlink(send, openssl):
    server = openssl(reply=b"at once")
    late = threading.Timer(0.9, lambda: server.send(b"later"))
    later_still = threading.Timer(1.8, lambda: server.send(b"later still"))
    wait = 1.3 * SLOWNESS
    late.start()
    later_still.start()
    result = send(server, "--wait", str(wait), "x")
    assert_silent_success(result, b"at once\nlater\nlater still\n")
    assert result.seconds > 1.8 + 1.2


def test_a_run_ends_at_once_with_the_last_counted_downlink(send, inboxd):
    server = inboxd()
    server.queue(b"first", b"second", b"third")
    result = send(server, "--wait", "8", "--count", "3", "x")
    assert_silent_success(result, b"first\nsecond\nthird\n")
    assert result.seconds < 2 * SLOWNESS


def test_no_more_than_count_downlinks_are_printed(send, inboxd):
    server = inboxd()
    server.queue(b"first", b"second", b"third")
    assert_silent_success(send(server, "--wait", "8", "--count", "2", "x"), b"first\nsecond\n")


def test_count_does_not_cut_the_payloads_short(send, inboxd):
    server = inboxd("--reply", "ack")
    result = send(server, "--wait", "8", "--count", "1", "--lines", stdin=b"one\ntwo\nthree\n")
    assert result.status == 0
    assert result.stdout.startswith(b"ack\n")
    assert result.seconds < 4 * SLOWNESS
    server.wait_for_payloads(b"one", b"two", b"three")


def test_fewer_downlinks_than_count_are_no_failure(send, inboxd):
    server = inboxd()
    server.queue(b"only one")
    assert_silent_success(send(server, "--wait", "0.3", "--count", "2", "x"), b"only one\n")


def test_a_run_ends_when_the_server_closes(send, inboxd):
    server = inboxd("--close")
    server.queue(b"goodbye")
    result = send(server, "--wait", "8", "x")
    assert_silent_success(result, b"goodbye\n")
    assert result.seconds < 2 * SLOWNESS


def test_a_line_that_comes_after_the_server_closed_goes_over_a_new_connection(begin, inboxd):
    server = inboxd("--close", "--reply", "goodbye")
    client = begin(server, "--wait", "0.5", "--lines", stdin=subprocess.PIPE)
    client.process.stdin.write(b"one\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"goodbye\n"
    server.wait_for_event("closed")
    assert_silent_success(client.finish(b"two\n"), b"goodbye\n")
    server.wait_for_payloads(b"one", b"two")
    assert len(server.events("handshake")) == 2


def test_the_server_is_told_goodbye(send, inboxd):
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0", "x"))
    assert server.wait_for_event("closed") == ["device"]


def test_two_runs_at_once_do_not_disturb_each_other(begin, inboxd):
    server = inboxd("--reply", "ack")
    clients = [begin(server, "--wait", "8", "--count", "1", f"from {i}") for i in range(4)]
    for client in clients:
        assert_silent_success(client.finish(), b"ack\n")
    wait_until(lambda: len(server.received()) == 4, "four payloads")
    assert sorted(server.received()) == [b"from 0", b"from 1", b"from 2", b"from 3"]


# What a connection costs

def test_a_first_run_is_cheap(send, inboxd, peers):
    """No datagram that some network would have to cut up, no root, no retransmission."""
    relay = peers.enter_context(Relay(inboxd("--reply", "0123456789")))
    assert send(relay, "--wait", "8", "--count", "1", "0123456789").status == 0
    handshake_and_payload = relay.up[:-1]  # without the close_notify
    assert len(handshake_and_payload) <= 5
    assert max(map(len, relay.up)) <= 1232
    assert sum(map(len, handshake_and_payload)) < 1550


@pytest.mark.parametrize("mtu", [400, 800])
def test_no_handshake_datagram_exceeds_the_mtu_but_payloads_may(send, inboxd, peers, mtu):
    server = inboxd()
    relay = peers.enter_context(Relay(server))
    assert_silent_success(send(relay, "--wait", "0", "--mtu", str(mtu), "x" * 3000))
    server.wait_for_payloads(b"x" * 3000)
    # Application data is of content type 23 (RFC 5246 section 6.2.1).
    assert max(len(datagram) for datagram in relay.up if datagram[0] != 23) <= mtu


def test_the_chain_is_sent_in_order_and_without_the_root(send, openssl, peers, pki, tmp_path, run):
    bundle = tmp_path / "any-order.crt"
    bundle.write_bytes(b"".join(pki.leaf(name).read_bytes() for name in ("root", "intermediate", "device")))
    server = openssl()
    relay = peers.enter_context(Relay(server))
    result = run("--server", relay.address, "--cert", bundle, "--key", pki.key("device"), "--mtu", "16384",
                 "--wait", "0", "x")
    assert_silent_success(result)
    sent = b"".join(relay.up)
    assert 0 < sent.find(pki.der("device")) < sent.find(pki.der("intermediate"))
    assert pki.der("root") not in sent


def test_the_devices_own_clock_and_locale_do_not_matter_to_lines(send, inboxd):
    server = inboxd()
    result = send(server, "--wait", "0", "--lines", stdin="å\n".encode(),
                  env={"LC_ALL": "C", "TZ": "Asia/Tokyo"})
    assert_silent_success(result)
    server.wait_for_payloads("å".encode())


def test_the_current_directory_supplies_the_default_credentials(run, inboxd, pki, tmp_path):
    os.symlink(pki.bundle("device"), tmp_path / "cert.crt")
    os.symlink(pki.key("device"), tmp_path / "key.pem")
    server = inboxd()
    assert_silent_success(run("--server", server.address, "--wait", "0", "x"))
    server.wait_for_payloads(b"x")
