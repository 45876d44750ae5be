"""With --confirm a payload counts as delivered when a downlink answers it, and is sent again until then."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client import SLOWNESS, assert_fails, assert_one_line, assert_silent_success

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "net"))
from proxy import UP, Proxy  # pylint: disable=wrong-import-position

UNKNOWN_WAIT = 2            # seconds, at least, before a payload is sent again to a server that never answered
LEAST_WAIT = 0.25           # and to one that answers at once
AT_ONCE = 1 * SLOWNESS      # seconds
LARGE = b"x" * 100          # so that its datagrams are larger than any other of application data
APPLICATION_DATA = (23, 25)  # record types, the latter with a connection id


@pytest.fixture(name="proxied")
def fixture_proxied(peers):
    """A proxy that does no harm by itself, before a server."""
    return lambda server, **faults: peers.enter_context(Proxy(server.host, server.port, seed=1, **faults))


def uplinks(proxy):
    """The datagrams that carried a payload of 100 bytes or more, as the client sent them."""
    return [datagram for datagram in proxy.datagrams if datagram.direction == UP and
            datagram.payload[0] in APPLICATION_DATA and len(datagram.payload) >= len(LARGE)]


def pauses(datagrams):
    """The seconds between each and the next."""
    times = [datagram.time for datagram in datagrams]
    return [later - earlier for earlier, later in zip(times, times[1:])]


# Answered

@pytest.mark.smoke
def test_the_confirming_downlink_is_printed_and_the_payload_arrives_once(send, inboxd):
    server = inboxd("--reply", "thanks")
    assert_silent_success(send(server, "--confirm", "--wait", "0.5", "x"), b"thanks\n")
    server.wait_for_payloads(b"x")


def test_the_downlinks_behind_the_confirming_one_are_printed_too(send, inboxd):
    server = inboxd()
    server.queue(b"one", b"two", b"three")
    assert_silent_success(send(server, "--confirm", "--wait", "0.3", "x"), b"one\ntwo\nthree\n")
    server.wait_for_payloads(b"x")


def test_a_confirmed_payload_on_openssl(send, openssl):
    server = openssl(reply=b"thanks")
    assert_silent_success(send(server, "--confirm", "--count", "1", "x"), b"thanks\n")
    server.wait_for_payloads(b"x")


def test_a_confirmed_payload_on_gnutls(send, gnutls):
    server = gnutls()
    assert_silent_success(send(server, "--confirm", "--count", "1", "an echo"), b"an echo\n")
    server.wait_for_payloads(b"an echo")


def test_a_run_that_is_confirmed_and_wants_no_more_ends_at_once(send, inboxd):
    server = inboxd("--reply", "thanks")
    result = send(server, "--confirm", "--wait", "8", "--count", "1", "x")
    assert_silent_success(result, b"thanks\n")
    assert result.seconds < AT_ONCE, result


def test_an_empty_payload_is_confirmed(send, inboxd):
    server = inboxd("--reply", "thanks")
    assert_silent_success(send(server, "--confirm", "--count", "1", ""), b"thanks\n")
    server.wait_for_payloads(b"")


def test_an_empty_downlink_confirms(send, inboxd):
    server = inboxd("--reply", "")
    assert_silent_success(send(server, "--confirm", "--count", "1", "x"), b"\n")
    server.wait_for_payloads(b"x")


# Sent again

@pytest.mark.parametrize("ignored", [1, 2])
def test_a_payload_that_was_ignored_is_sent_again_until_it_is_answered(send, inboxd, proxied, ignored):
    server = inboxd("--reply", "thanks", "--drop-uplinks", ignored)
    proxy = proxied(server)
    assert_silent_success(send(proxy, "--confirm", "--count", "1", LARGE), b"thanks\n")
    server.wait_for_payloads(LARGE)
    assert len(server.events("dropped")) == ignored
    assert len(uplinks(proxy)) == ignored + 1


@pytest.fixture(name="answered_once")
def fixture_answered_once(begin, inboxd, proxied):
    """answered_once(...) has a run's first line answered through a proxy with these faults: the answers' time
    is known. Returns the server, the proxy and the run, which waits for more lines."""

    def answered_once(*options, timeout=10, **faults):
        server = inboxd("--reply", "thanks")
        proxy = proxied(server, **faults)
        client = begin(proxy, "--confirm", "--lines", "--wait", "0", *options, stdin=subprocess.PIPE,
                       timeout=timeout)
        client.process.stdin.write(b"first\n")
        client.process.stdin.flush()
        assert client.process.stdout.readline() == b"thanks\n"
        return server, proxy, client

    return answered_once


def test_the_first_pause_is_two_seconds_while_nobody_knows_how_long_an_answer_takes(send, inboxd, proxied):
    server = inboxd("--reply", "thanks", "--drop-uplinks", "1")
    proxy = proxied(server)
    assert_silent_success(send(proxy, "--confirm", "--count", "1", LARGE), b"thanks\n")
    pause, = pauses(uplinks(proxy))
    # It is stretched by up to a half.
    assert UNKNOWN_WAIT - 0.01 <= pause <= UNKNOWN_WAIT * 1.5 + 0.2 * SLOWNESS


def test_the_pauses_between_transmissions_double(answered_once):
    _, proxy, client = answered_once()
    proxy.drop_next_up(3)
    assert_silent_success(client.finish(LARGE + b"\n"), b"thanks\n")
    first, second, third = pauses(uplinks(proxy))
    assert LEAST_WAIT - 0.01 <= first <= LEAST_WAIT * 1.5 + 0.2 * SLOWNESS, (first, second, third)
    assert second == pytest.approx(2 * first, abs=0.15 * SLOWNESS)
    assert third == pytest.approx(2 * second, abs=0.15 * SLOWNESS)


def test_the_first_pause_leaves_three_answer_times_for_the_answer(answered_once):
    _, proxy, client = answered_once(delay_ms=100)
    proxy.drop_next_up()
    assert_silent_success(client.finish(LARGE + b"\n"), b"thanks\n")
    pause, = pauses(uplinks(proxy))
    assert 0.59 <= pause <= 0.9 + 0.3 * SLOWNESS


def test_the_first_pause_is_random(begin, inboxd, proxied):
    """Or all that lost an answer at the same moment would come back at the same moment."""
    server = inboxd()
    proxies = [proxied(server) for _ in range(8)]
    for client in [begin(proxy, "--confirm", LARGE, timeout=3.5) for proxy in proxies]:
        assert client.finish().status == 75
    first = [pauses(uplinks(proxy))[0] for proxy in proxies]
    assert max(first) - min(first) > 0.1, first


def test_a_lost_downlink_has_the_payload_sent_again_so_the_server_sees_it_twice(begin, inboxd, proxied):
    server = inboxd("--reply", "thanks")
    proxy = proxied(server)
    client = begin(proxy, "--confirm", "--lines", "--wait", "0", stdin=subprocess.PIPE)
    client.process.stdin.write(b"one\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"thanks\n"
    proxy.drop_next_down()
    assert_silent_success(client.finish(b"two\n"), b"thanks\n")
    server.wait_for_payloads(b"one", b"two", b"two")
    assert proxy.counters["down"]["lost"] == 1


def test_every_transmission_is_a_record_of_its_own(send, inboxd, proxied):
    server = inboxd("--reply", "thanks", "--drop-uplinks", "2")
    proxy = proxied(server)
    assert_silent_success(send(proxy, "--confirm", "--count", "1", LARGE), b"thanks\n")
    numbers = [datagram.payload[3:11] for datagram in uplinks(proxy)]
    assert len(set(numbers)) == 3
    assert numbers == sorted(numbers)


# Never answered

def test_a_payload_that_is_never_answered_is_75_at_the_timeout(send, inboxd):
    server = inboxd()
    result = send(server, "--confirm", "x", timeout=5)
    assert_fails(result, 75, "not confirmed", "--timeout", "leave --confirm out", "coaps")
    assert 5 * SLOWNESS <= result.seconds < 5.5 * SLOWNESS, result
    server.settle()
    assert len(server.received()) == 2
    assert set(server.received()) == {b"x"}


def test_a_large_payload_that_is_never_answered_is_told_that_its_size_may_be_why(send, inboxd, tmp_path):
    (tmp_path / "payload").write_bytes(b"x" * 8156)
    result = send(inboxd(), "--confirm", "--file", "payload", timeout=1)
    assert_fails(result, 75, "not confirmed", "too large", "8155")


def test_an_unanswered_payload_of_a_server_that_answers_is_not_told_to_leave_confirm_out(answered_once):
    _, proxy, client = answered_once(timeout=1)
    proxy.drop_next_up(100)
    result = client.finish(b"second\n")
    assert result.status == 75, result
    assert "not confirmed" in result.stderr and "leave --confirm out" not in result.stderr, result


def test_a_server_that_closes_instead_of_answering_is_no_success(send, inboxd):
    server = inboxd("--close")
    result = send(server, "--confirm", "x", timeout=5)
    assert_fails(result, 75, ("close", "not confirmed"))
    assert server.received()[:1] == [b"x"]


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_wait_for_the_confirmation_and_the_server_is_told(begin, inboxd, number, status):
    server = inboxd()
    client = begin(server, "--confirm", "x")
    server.wait_for_event("uplink", 2)
    client.send_signal(number)
    result = client.finish()
    assert result.status == status, result
    assert result.stdout == b"", result
    assert result.stderr.count("\n") <= 1, result
    assert result.seconds < 0.5 * SLOWNESS, result
    assert server.wait_for_event("closed") == ["device"]


def test_a_payload_that_is_too_large_is_refused_and_not_sent(send, inboxd, tmp_path):
    server = inboxd("--reply", "thanks")
    (tmp_path / "payload").write_bytes(b"x" * 16385)
    result = send(server, "--confirm", "--wait", "0", "--file", "payload")
    assert_fails(result, 65, "16384")
    assert result.seconds < AT_ONCE, result
    server.assert_received_nothing()


def test_the_largest_payload_is_confirmed(send, inboxd, tmp_path):
    server = inboxd("--reply", "thanks")
    (tmp_path / "payload").write_bytes(b"x" * 16384)
    assert_silent_success(send(server, "--confirm", "--count", "1", "--file", "payload"), b"thanks\n")
    server.wait_for_payloads(b"x" * 16384)


# Lines

LINES = [b"1" * 100, b"2" * 200, b"3" * 300]


def test_each_line_is_confirmed_and_they_arrive_in_order(send, inboxd):
    server = inboxd("--reply", "thanks")
    lines = [b"%d" % number for number in range(20)]
    result = send(server, "--confirm", "--wait", "0", "--lines", stdin=b"\n".join(lines))
    assert_silent_success(result, b"thanks\n" * 20)
    server.wait_for_payloads(*lines)
    assert len(server.events("handshake")) == 1


def test_no_line_is_sent_before_the_last_one_is_confirmed(send, inboxd, proxied):
    server = inboxd("--reply", "thanks", "--drop-uplinks", "2")
    proxy = proxied(server)
    result = send(proxy, "--confirm", "--wait", "0", "--lines", stdin=b"\n".join(LINES))
    assert_silent_success(result, b"thanks\n" * 3)
    server.wait_for_payloads(*LINES)
    # By their sizes: the first line three times, then its answer, and so on.
    story = [len(datagram.payload) // 100 if datagram.direction == UP else "answer"
             for datagram in proxy.datagrams if datagram.payload[0] in APPLICATION_DATA]
    assert story[:8] == [1, 1, 1, "answer", 2, "answer", 3, "answer"]


def test_a_line_that_is_not_confirmed_ends_the_run_and_later_ones_are_not_sent(send, inboxd):
    server = inboxd()
    server.queue(b"for the first")
    result = send(server, "--confirm", "--lines", stdin=b"one\ntwo\nthree\nfour", timeout=2)
    assert result.status == 75, result
    assert result.stdout == b"for the first\n", result
    assert_one_line(result, "not confirmed")
    server.settle()
    received = server.received()
    assert received[0] == b"one"
    assert len(received) >= 3
    assert set(received[1:]) == {b"two"}


def test_a_line_that_is_too_large_does_not_hold_up_the_next(send, inboxd):
    server = inboxd("--reply", "thanks")
    result = send(server, "--confirm", "--wait", "0", "--lines", stdin=b"one\n" + b"x" * 16385 + b"\nthree\n")
    assert result.status == 65, result
    assert result.stdout == b"thanks\n" * 2, result
    assert_one_line(result, "16384")
    server.wait_for_payloads(b"one", b"three")
