"""Networks that lose, repeat and reorder: what is confirmed has arrived, and a handshake gets through soon.

LOSS_RUNS is how many runs each rate of loss is tried with (6), LOSS_SEED the first run's seed. A test that
fails shows the seeds, which repeat what the network did."""

import collections
import os
import statistics
import sys
import time
from pathlib import Path

import pytest

from client import SLOWNESS, assert_silent_success

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "net"))
from proxy import DOWN, UP, Proxy  # pylint: disable=wrong-import-position

RUNS = int(os.environ.get("LOSS_RUNS", "6"))
SEED = int(os.environ.get("LOSS_SEED", "1000"))
AT_ONCE = 10  # runs side by side, each with a proxy of its own

MEDIAN_RUNS = 20  # a median of fewer says little

HANDSHAKE = 22  # record type
FIRST_EPOCH = b"\x00\x00"


@pytest.fixture(name="proxied")
def fixture_proxied(peers):
    """A proxy before a server."""
    return lambda server, **faults: peers.enter_context(Proxy(server.host, server.port, **faults))


@pytest.fixture(name="lossy_runs")
def fixture_lossy_runs(begin, inboxd, proxied):
    """lossy_runs(loss, ...) makes RUNS runs with these options through networks that lose such a share each
    way, and repeat and reorder a tenth. Returns the server and for each run its seed, payload and result."""

    def lossy_runs(loss, *options, timeout):
        server = inboxd("--reply", "thanks")
        seeds = list(range(SEED, SEED + RUNS))
        print(f"{loss:.0%} lost each way; seeds {seeds}")
        runs = []
        for first in range(0, RUNS, AT_ONCE):
            clients = []
            for seed in seeds[first:first + AT_ONCE]:
                proxy = proxied(server, seed=seed, drop=loss, duplicate=0.1, reorder=0.1)
                payload = b"payload of run %d" % seed
                clients.append((seed, payload, begin(proxy, *options, payload, timeout=timeout)))
            runs += [(seed, payload, client.finish(limit=timeout + 10)) for seed, payload, client in clients]
        for seed, _, result in runs:
            print(f"seed {seed}: status {result.status} after {result.seconds:.2f} s {result.stderr}")
        server.settle()
        return server, runs

    return lossy_runs


def handshake_messages(proxy):
    """What the client sent of the handshake, each message or fragment as often as it was sent: (its type,
    number, offset), and "Finished" for the one that is encrypted."""
    messages = []
    for datagram in proxy.up:
        while len(datagram) >= 13:
            length = int.from_bytes(datagram[11:13], "big")
            record, datagram = datagram[:13 + length], datagram[13 + length:]
            if record[0] == HANDSHAKE and record[3:5] == FIRST_EPOCH:
                messages.append((record[13], int.from_bytes(record[17:19], "big"),
                                 int.from_bytes(record[19:22], "big")))
            elif record[0] == HANDSHAKE:
                messages.append("Finished")
    return messages


def arrived(proxy, way):
    """How many datagrams the proxy has taken in, be they lost, delayed or passed on."""
    return proxy.counters[way]["sent_datagrams"]


# Loss

@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_every_confirmed_run_ends_well_and_its_payload_has_arrived(lossy_runs, loss):
    server, runs = lossy_runs(loss, "--confirm", "--count", "1", timeout=60)
    received = server.received()
    assert [seed for seed, payload, result in runs if result.status == 0 and payload not in received] == []
    assert [(seed, result) for seed, _, result in runs if result.status != 0] == []
    for _, payload, result in runs:
        assert_silent_success(result, b"thanks\n")
        assert payload in received
    # Nothing else either: no payload was altered, cut or mixed with another.
    assert set(received) == {payload for _, payload, _ in runs}
    if loss < 0.2 and RUNS >= MEDIAN_RUNS:
        assert statistics.median(result.seconds for _, _, result in runs) < 0.5 * SLOWNESS


def test_a_plain_run_is_sent_once_and_says_only_what_it_knows(lossy_runs):
    server, runs = lossy_runs(0.3, timeout=10)
    received = collections.Counter(server.received())
    for _, payload, result in runs:
        assert result.status in (0, 75), result
        assert result.stdout in (b"", b"thanks\n"), result
        assert (result.stderr == "") == (result.status == 0), result
        # The network repeats datagrams; the record's number tells the server so.
        assert received[payload] <= 1
        assert result.stdout == b"" or received[payload] == 1


# The timer of the handshake

@pytest.mark.parametrize("answers", [1, 2], ids=["the_cookie", "the_certificates"])
def test_a_lost_flight_costs_a_quarter_of_a_second_once_the_round_trip_is_known(begin, inboxd, proxied,
                                                                                answers):
    server = inboxd("--reply", "thanks")
    proxy = proxied(server, seed=1, down_delay_ms=30)  # time for us to act between the answer and the flight
    client = begin(proxy, "--confirm", "--count", "1", "x")
    # The HelloVerifyRequest is one datagram, and the first of the next flight comes after it.
    proxy.wait_for(lambda: arrived(proxy, DOWN) >= answers, "answer")
    proxy.drop_next_up()
    result = client.finish()
    assert_silent_success(result, b"thanks\n")
    server.wait_for_payloads(b"x")
    assert proxy.counters[UP]["lost"] == 1
    repeated = [message for message, count in collections.Counter(handshake_messages(proxy)).items()
                if count > 1]
    assert repeated, "what was lost was not of the handshake"
    assert 0.25 <= result.seconds < 0.8 * SLOWNESS, result


def test_a_slow_network_is_given_the_time_that_it_needs(send, inboxd, proxied):
    server = inboxd("--reply", "thanks")
    proxy = proxied(server, seed=1, delay_ms=200)
    assert_silent_success(send(proxy, "--confirm", "--count", "1", "x"), b"thanks\n")
    server.wait_for_payloads(b"x")
    messages = handshake_messages(proxy)
    assert sorted(message[0] for message in messages if message != "Finished") == [1, 1, 11, 15, 16]
    assert len(set(messages)) == len(messages), messages


def test_a_first_hello_that_is_lost_costs_a_second_and_a_half(begin, inboxd, proxied):
    server = inboxd("--reply", "thanks")
    proxy = proxied(server, seed=1)
    proxy.drop_next_up()
    result = begin(proxy, "--confirm", "--count", "1", "x").finish()
    assert_silent_success(result, b"thanks\n")
    assert 1.5 <= result.seconds < 2 * SLOWNESS, result


# Fresh starts

def test_a_handshake_that_stalls_is_started_afresh_from_a_new_port(begin, inboxd, proxied):
    server = inboxd("--reply", "thanks")
    proxy = proxied(server, seed=1, delay_ms=30)
    client = begin(proxy, "--confirm", "--count", "1", "x", timeout=15)

    def ports():
        return list(dict.fromkeys(datagram.client for datagram in proxy.datagrams))

    proxy.wait_for(lambda: arrived(proxy, UP) >= 2, "second ClientHello")
    proxy.blackhole = True  # while that is under way
    light = proxy.datagrams[1].time + 5
    # All that the first port has sent is lost, and it sends nothing more.
    proxy.wait_for(lambda: len(ports()) == 2, "fresh start", patience=10 * SLOWNESS)
    time.sleep(max(0, light - time.monotonic()))
    proxy.blackhole = False
    result = client.finish()
    assert_silent_success(result, b"thanks\n")
    server.wait_for_payloads(b"x")
    assert 5 < result.seconds < 15 * SLOWNESS, result
    assert len(ports()) == 2
    assert len(server.events("handshake")) == 1
