"""coaps through networks that lose and servers that forget: all is delivered, and acted on once.

LOSS_RUNS is how many runs each rate of loss is tried with (6), LOSS_SEED the first run's seed."""

import collections
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client import assert_silent_success
from raw_coap import requests, uri

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "net"))
from proxy import Proxy  # pylint: disable=wrong-import-position

RUNS = int(os.environ.get("LOSS_RUNS", "6"))
SEED = int(os.environ.get("LOSS_SEED", "1000"))
TWICE = "may arrive twice"  # what -v says where a payload goes over a new association


@pytest.fixture(name="proxied")
def fixture_proxied(peers):
    """A proxy before a server."""
    return lambda server, **faults: peers.enter_context(Proxy(server.host, server.port, **faults))


def assert_acted_on_once(server, payloads, results):
    """All arrived; none more often than new associations explain."""
    counts = collections.Counter(server.received())
    renewals = sum(result.stderr.count(TWICE) for result in results)
    print(f"acted on twice: {sum(counts.values()) - len(counts)}; new associations: {renewals}")
    assert set(counts) == set(payloads)
    assert sum(counts.values()) - len(counts) <= renewals


@pytest.mark.parametrize("options", [[], ["--separate"], ["--non"]], ids=["piggybacked", "separate", "non"])
@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_every_run_is_delivered_and_acted_on_once(begin, inboxd, proxied, loss, options):
    server = inboxd("--coap", *options)
    runs = []
    for seed in range(SEED, SEED + RUNS):
        proxy = proxied(server, seed=seed, drop=loss, duplicate=0.1, reorder=0.1)
        payload = b"payload of run %d" % seed
        runs.append((seed, payload, begin(uri(proxy, "x"), "-v", payload, timeout=60)))
    results = []
    for seed, payload, client in runs:
        results.append(client.finish(limit=70))
        print(f"seed {seed}: status {results[-1].status} after {results[-1].seconds:.2f} s")
    assert [result for result in results if result.status != 0] == []
    server.settle()
    assert_acted_on_once(server, [payload for _, payload, _ in runs], results)


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_lines_are_delivered_in_order_and_acted_on_once(send, coap_server, proxied, loss):
    lines = [b"line %d" % number for number in range(15)]
    proxy = proxied(coap_server, seed=SEED, drop=loss)
    result = send(uri(proxy, "x"), "-v", "--lines", stdin=b"\n".join(lines), timeout=120, limit=130)
    assert result.status == 0, result
    coap_server.settle()
    assert list(dict.fromkeys(coap_server.received())) == lines
    assert_acted_on_once(coap_server, lines, [result])


def test_a_large_payload_survives_loss_too(send, inboxd, proxied, tmp_path):
    server = inboxd("--coap", "--block", "512")
    server.queue(bytes(range(256)) * 20)
    (tmp_path / "payload").write_bytes(b"0123456789" * 500)
    proxy = proxied(server, seed=SEED, drop=0.1)
    result = send(uri(proxy, "x"), "-v", "--file", "payload", "-o", "raw", timeout=100, limit=110)
    assert (result.status, result.stdout) == (0, bytes(range(256)) * 20), result
    server.settle()
    assert_acted_on_once(server, [b"0123456789" * 500], [result])


@pytest.fixture(name="associated")
def fixture_associated(send, run_dir):
    """Makes an association through the proxy, so that what is lost next is of the next exchange. Returns a function
    that sends over it."""
    def associated(proxy):
        options = ["--session", run_dir / "session"]
        assert_silent_success(send(uri(proxy, "x"), *options, "first"))
        return lambda *more: send(uri(proxy, "x"), *options, *more, limit=30)
    return associated


@pytest.mark.parametrize("options", [[], ["--separate"], ["--non"]], ids=["piggybacked", "separate", "non"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_what_is_lost_once_is_made_good_over_the_same_association(inboxd, proxied, associated, options, way):
    server = inboxd("--coap", *options)
    proxy = proxied(server, seed=1)
    again = associated(proxy)
    server.settle()  # what the first run still had to say has arrived
    (proxy.drop_next_up if way == "up" else proxy.drop_next_down)(1)
    result = again("-v", "21.5")
    assert result.status == 0 and TWICE not in result.stderr, result
    server.wait_for_payloads(b"first", b"21.5")
    last = [tuple(words) for words in requests(server)][1:]
    assert len(set(last)) == 1  # resent unchanged


def test_a_server_that_forgets_costs_one_new_association(inboxd, proxied, associated):
    server = inboxd("--coap")
    again = associated(proxied(server, seed=1))
    server.process.send_signal(signal.SIGUSR1)
    result = again("-v", "21.5")
    assert result.status == 0, result
    server.wait_for_payloads(b"first", b"21.5")
    ids = [words[1:3] for words in requests(server)]
    assert ids[0] != ids[1]


def test_a_server_that_forgets_in_the_midst_of_a_run_gets_the_rest_too(begin, coap_server):
    client = begin(uri(coap_server, "x"), "--lines", stdin=subprocess.PIPE, timeout=60)
    client.process.stdin.write(b"a\n")
    client.process.stdin.flush()
    coap_server.wait_for_event("uplink")
    coap_server.process.send_signal(signal.SIGUSR1)
    assert_silent_success(client.finish(b"b\nc\n", limit=70))
    coap_server.wait_for_payloads(b"a", b"b", b"c")
