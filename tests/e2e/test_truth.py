"""What is told as confirmed or sent is true, however late answers and refusals come, and whoever forges them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from client import SLOWNESS, WRAPPER, assert_fails, assert_silent_success
from servers import Inboxd, Relay

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "net"))
# pylint: disable=wrong-import-position
from proxy import DOWN, UP, Proxy
from refusing import RefusingProxy, may_refuse

SEED = int(os.environ.get("LOSS_SEED", "1000"))
needs_icmp = pytest.mark.skipif(not may_refuse(), reason="a refusal is sent by a raw socket, which needs root")


@pytest.fixture(name="proxied")
def fixture_proxied(peers):
    """A proxy before a server."""
    return lambda server, **faults: peers.enter_context(Proxy(server.host, server.port, seed=SEED, **faults))


@pytest.fixture(name="refusing")
def fixture_refusing(peers):
    """The same, which can refuse."""
    return lambda server, **faults: peers.enter_context(
        RefusingProxy(server.host, server.port, seed=SEED, **faults))


@pytest.fixture(name="restarted")
def fixture_restarted(pki, tmp_path, peers):
    """restarted(server, ...) starts another inboxd on the port of one that has ended."""
    def restarted(server, *options):
        (tmp_path / "again").mkdir()
        return peers.enter_context(Inboxd(pki, tmp_path / "again", *options, port=server.port))
    return restarted


def count(proxy, way):
    """How many datagrams were sent that way so far."""
    return proxy.counters[way]["sent_datagrams"]


def hellos(datagrams):
    """The ClientHellos among them."""
    return [datagram for datagram in datagrams if datagram[0] == 22 and datagram[13] == 1]


def handshakes(result):
    """The kinds of handshakes that it tells of, in order."""
    return re.findall(r": (full|resumed) handshake", result.stderr)


# --- No answer confirms a payload that it does not belong to ---

def test_no_late_answer_confirms_another_line(begin, inboxd, proxied, tmp_path):
    """Several runs side by side, since each waits for each answer."""
    server = inboxd("--reply", "thanks", "--delay", "400")
    runs = []
    for run in range(4):
        lines = [b"line %d of run %d" % (number, run) for number in range(10)]
        proxy = proxied(server, drop=0.05 + 0.03 * run)
        client = begin(proxy, "--confirm", "--lines", "--wait", "0", "--queue", f"queue{run}", timeout=60,
                       stdin=subprocess.PIPE)
        client.process.stdin.write(b"\n".join(lines))
        client.process.stdin.close()
        client.process.stdin = None
        runs.append((lines, client))
    results = [client.finish(limit=70) for _, client in runs]
    server.settle()
    received = server.received()
    for run, ((lines, _), result) in enumerate(zip(runs, results)):
        waiting = {path.read_bytes() for path in (tmp_path / f"queue{run}").glob("[0-9]*")}
        assert [line for line in lines if line not in waiting and line not in received] == [], result
        assert (result.status == 0) == (not waiting), result


def test_no_late_answer_confirms_the_payload_of_a_later_run(send, inboxd, proxied, run_dir):
    server = inboxd("--reply", "thanks", "--delay", "400")
    proxy = proxied(server, drop=0.12)
    arguments = ["--confirm", "--wait", "0", "--session", str(run_dir / "session")]
    confirmed = [payload for payload in (b"payload %d" % number for number in range(12))
                 if send(proxy, *arguments, payload).status == 0]
    server.settle()
    assert set(confirmed) <= set(server.received())


def test_an_answer_to_an_earlier_transmission_does_not_confirm_the_next_line(begin, inboxd, proxied):
    """The first answer measures 0.1 s; those after it are so late that what they answer is sent again."""
    server = inboxd("--reply", "thanks")
    proxy = proxied(server, delay_ms=50)
    client = begin(proxy, "--confirm", "--lines", "--wait", "0", "-v", stdin=subprocess.PIPE)
    client.process.stdin.write(b"one\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"thanks\n"
    proxy.drop_next_down()
    client.process.stdin.write(b"two\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"thanks\n"
    result = client.finish(b"three\n")
    assert result.status == 0, result
    server.wait_for_payloads(b"one", b"two", b"two", b"three")
    # Its other answer may be lost or late: nobody knows, so that line three has an association of its own.
    assert handshakes(result) == ["full", "resumed"], result


def test_an_association_whose_payload_was_sent_again_is_not_kept(send, inboxd, proxied, run_dir):
    server = inboxd("--reply", "thanks", "--drop-uplinks", "1")
    proxy = proxied(server)
    arguments = ["--confirm", "--wait", "0", "--session", str(run_dir / "session"), "-v"]
    assert handshakes(send(proxy, *arguments, "one")) == ["full"]
    assert handshakes(send(proxy, *arguments, "two")) == ["resumed"]
    assert handshakes(send(proxy, *arguments, "three")) == []
    server.wait_for_payloads(b"one", b"two", b"three")


def test_the_answer_to_an_unconfirmed_payload_confirms_none_that_waits_behind_it(send, inboxd, proxied,
                                                                                 refused):
    """One was accepted without --confirm, and is answered late; the next was accepted with it."""
    server = inboxd("--reply", "thanks", "--delay", "300")
    proxy = proxied(server)
    assert send(refused, "--queue", "queue", "one").status == 69
    assert send(refused, "--queue", "queue", "--confirm", "two", timeout=1).status == 69
    result = send(proxy, "--queue", "queue", "--flush", "--wait", "0", "-v")
    assert result.status == 0, result
    server.wait_for_payloads(b"one", b"two")
    assert handshakes(result) == ["full", "resumed"], result


def test_a_payload_whose_part_of_the_time_is_over_leaves_no_answer_to_the_next(send, inboxd, peers, pki,
                                                                               tmp_path):
    (tmp_path / "late").mkdir()
    server = peers.enter_context(Inboxd(pki, tmp_path / "late", "--reply", "thanks", "--delay", "1500"))
    assert send(inboxd(), "--queue", "queue", "--confirm", "one", timeout=1).status == 75
    result = send(server, "--queue", "queue", "--confirm", "two", "--wait", "0", "-v", timeout=5)
    assert result.status == 75, result
    assert handshakes(result) == ["full", "resumed"], result
    assert [path.read_bytes() for path in (tmp_path / "queue").glob("[0-9]*")] == [b"one"]
    server.settle()
    assert server.received()[-1] == b"two"


# --- Times are measured from the first transmission ---

@pytest.mark.parametrize("form", ["dtls", "coaps"])
def test_on_a_slow_path_nothing_is_sent_twice_and_a_repeat_run_is_one_datagram(send, inboxd, proxied, run_dir,
                                                                               form):
    """A round trip of 1.2 s. The server's own timer is faster, so that it repeats itself."""
    server = inboxd("--reply", "thanks", *(["--coap"] if form == "coaps" else []))
    counts = {}
    for name, delay_ms in (("fast", 0), ("slow", 600)):
        proxy = proxied(server, delay_ms=delay_ms)
        arguments = ["--wait", "0", "--session", str(run_dir / name),
                     *(["--confirm"] if form == "dtls" else [])]
        assert send(f"{form}://{proxy.address}", *arguments, "first", timeout=20).status == 0
        counts[name] = [(count(proxy, UP), count(proxy, DOWN))]
        for _ in range(2):
            before = count(proxy, UP), count(proxy, DOWN)
            assert send(f"{form}://{proxy.address}", *arguments, "again", timeout=20).status == 0
            counts[name].append((count(proxy, UP) - before[0], count(proxy, DOWN) - before[1]))
    assert counts["slow"][0][0] == counts["fast"][0][0] == 4
    assert counts["slow"][1:] == [(1, 1), (1, 1)]


def test_the_downlink_of_a_plain_run_over_a_slow_path_is_printed(send, inboxd, proxied):
    server = inboxd("--reply", "thanks")
    proxy = proxied(server, delay_ms=600)
    assert_silent_success(send(proxy, "x", timeout=20), b"thanks\n")
    server.wait_for_payloads(b"x")


def test_a_server_that_answers_late_gets_every_payload_once(send, inboxd, proxied, run_dir):
    server = inboxd("--reply", "thanks", "--delay", "500")
    proxy = proxied(server)
    arguments = ["--confirm", "--wait", "0", "--session", str(run_dir / "session")]
    for number in range(4):
        before = count(proxy, UP)
        assert_silent_success(send(proxy, *arguments, f"{number}"), b"thanks\n")
        assert number == 0 or count(proxy, UP) - before == 1
    server.wait_for_payloads(b"0", b"1", b"2", b"3")


# --- Datagrams of every size ---

@pytest.mark.parametrize("host, option", [("127.0.0.1", r"SOL_IP, IP_MTU_DISCOVER, \[0\]"),
                                          ("::1", r"SOL_IPV6, IPV6_MTU, \[1280\]")], ids=["IPv4", "IPv6"])
def test_no_datagram_forbids_fragments(inboxd, credentials, start, tmp_path, request, host, option):
    if ":" in host:
        request.getfixturevalue("needs_ipv6")
    strace = shutil.which("strace")
    if strace is None or WRAPPER:
        pytest.skip("needs strace, and no wrapper")
    server = inboxd("--reply", "thanks", host=host)
    trace = tmp_path / "trace"
    result = start("-f", "-o", trace, "-e", "trace=setsockopt,sendto", os.environ.get("BUILD", "build") +
                   "/dtls-send", "--server", server.address, *credentials, "--count", "1", "x" * 1400,
                   program=strace, timeout=None,
                   env={"ASAN_OPTIONS": "detect_leaks=0"}).finish()  # there is but one tracer
    assert_silent_success(result, b"thanks\n")
    calls = trace.read_text(encoding="utf-8", errors="replace")
    set_at = re.search(option, calls)
    assert set_at and set_at.start() < calls.index("sendto("), calls


# --- Refusals that come late ---

@needs_icmp
@pytest.mark.parametrize("queue", [["--queue", "queue"], []], ids=["queue", "no_queue"])
def test_of_unconfirmed_lines_none_is_lost_to_a_refusal_that_comes_late(begin, inboxd, refusing, tmp_path,
                                                                        queue):
    """A round trip of 40 ms, and a server that is down for 60."""
    server = inboxd()
    proxy = refusing(server, delay_ms=20)
    lines = [b"line %d" % number for number in range(200)]
    client = begin(proxy, "--lines", "--wait", "0.2", *queue, stdin=subprocess.PIPE, timeout=15)
    client.process.stdin.write(b"\n".join(lines))
    client.process.stdin.close()
    client.process.stdin = None
    server.wait_for_event("uplink", 20)
    proxy.refusing = True
    proxy.wait_for(lambda: proxy.refused, "refused datagram")
    threading.Timer(0.06, setattr, (proxy, "refusing", False)).start()
    result = client.finish()
    server.settle()
    waiting = [path.read_bytes() for path in (tmp_path / "queue").glob("[0-9]*")]
    received = server.received()
    missing = [line for line in lines if line not in received and line not in waiting]
    assert proxy.refused
    assert missing == [] or (not queue and result.status != 0), result
    assert (result.status == 0) == (not waiting and not missing), result


def test_more_lines_than_can_be_unsettled_at_once_are_all_settled(send, inboxd, proxied):
    server = inboxd()
    proxy = proxied(server, delay_ms=20)
    lines = [b"line %d" % number for number in range(300)]
    assert_silent_success(send(proxy, "--lines", "--wait", "0", "--queue", "queue", stdin=b"\n".join(lines)))
    server.wait_for_payloads(*lines)


# --- A server that restarts ---

def test_a_server_that_restarts_in_the_midst_of_a_confirmed_run_gets_the_payload(begin, inboxd, restarted):
    server = inboxd("--reply", "thanks")
    client = begin(server, "--confirm", "--lines", "--wait", "0", stdin=subprocess.PIPE, timeout=20)
    client.process.stdin.write(b"one\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"thanks\n"
    server.stop()
    client.process.stdin.write(b"two\n")
    client.process.stdin.close()
    client.process.stdin = None
    with pytest.raises(subprocess.TimeoutExpired):
        client.process.wait(1)
    again = restarted(server, "--reply", "thanks")
    assert_silent_success(client.finish(), b"thanks\n")
    again.wait_for_payloads(b"two")


def test_a_server_that_forgets_in_the_midst_of_a_confirmed_run_gets_the_payload(begin, inboxd):
    """After four transmissions and 8 s of silence."""
    server = inboxd("--reply", "thanks")
    client = begin(server, "--confirm", "--lines", "--wait", "0", stdin=subprocess.PIPE, timeout=20)
    client.process.stdin.write(b"one\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"thanks\n"
    server.process.send_signal(signal.SIGUSR1)
    time.sleep(0.3)  # nothing tells that it has
    result = client.finish(b"two\n")
    assert_silent_success(result, b"thanks\n")
    server.wait_for_payloads(b"one", b"two")
    assert len(server.events("handshake")) == 2
    assert 8 <= result.seconds < 15 * SLOWNESS, result


def test_a_server_that_is_not_there_yet_is_waited_for_with_confirm(begin, inboxd, restarted):
    server = inboxd()
    server.stop()
    client = begin(server, "--confirm", "--count", "1", "x", timeout=15)
    with pytest.raises(subprocess.TimeoutExpired):
        client.process.wait(1)
    again = restarted(server, "--reply", "thanks")
    assert_silent_success(client.finish(), b"thanks\n")
    again.wait_for_payloads(b"x")


def test_without_confirm_two_refusals_are_the_answer(send, refused):
    result = send(refused, "x")
    assert_fails(result, 69, refused.address)
    assert result.seconds < 1 * SLOWNESS, result


@needs_icmp
def test_without_confirm_two_hellos_are_all_that_a_refusal_costs(send, inboxd, refusing):
    proxy = refusing(inboxd(), refusing=True)
    result = send(proxy, "x")
    assert_fails(result, 69)
    assert len(proxy.refused) == len(hellos(proxy.refused)) == 2
    assert result.seconds < 1 * SLOWNESS, result


# --- Nobody without keys decides a run ---

@needs_icmp
def test_a_refusal_that_anyone_can_send_does_not_end_a_run(send, inboxd, refusing):
    server = inboxd("--reply", "thanks")
    proxy = refusing(server, refusing="first")
    assert_silent_success(send(proxy, "--count", "1", "x"), b"thanks\n")
    server.wait_for_payloads(b"x")
    assert proxy.refused


class Alarmist(Relay):
    """A relay beside which somebody answers the first client's ClientHello with a fatal alert."""

    ALERT = b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28"  # handshake_failure

    def __init__(self, server):
        self.first = None
        super().__init__(server)
        self._far = _Far(self, self._far)


class _Far:
    """The relay's socket towards the server, to which the first client's datagrams do not come through."""

    def __init__(self, relay, far):
        self._relay, self._socket = relay, far

    def send(self, datagram):
        """Passes it on, or forges an answer."""
        relay = self._relay
        relay.first = relay.first or relay._client  # pylint: disable=protected-access
        if relay._client != relay.first:  # pylint: disable=protected-access
            self._socket.send(datagram)
            return
        relay._near.sendto(relay.ALERT, relay._client)  # pylint: disable=protected-access

    def __getattr__(self, name):
        return getattr(self._socket, name)


def test_an_alert_that_anyone_can_send_does_not_end_a_run(send, inboxd, peers):
    server = inboxd("--reply", "thanks")
    relay = peers.enter_context(Alarmist(server))
    assert_silent_success(send(relay, "--count", "1", "x"), b"thanks\n")
    server.wait_for_payloads(b"x")
    assert relay.first
