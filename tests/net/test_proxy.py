"""The lossy proxy keeps its promises, so that a test which leans on it means something."""

import contextlib
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import proxy as proxy_module
from proxy import Proxy

PATIENCE = 10  # seconds: how long an event may take on a busy machine
FATES_OF_THE_LOST = ("waiting", "dropped", "lost", "blackholed", "stale", "failed")


class Socket:
    """A UDP socket with patience, on loopback."""

    def __init__(self, host="127.0.0.1"):
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind((host, 0))
        self.address = self.socket.getsockname()
        self.host, self.port = self.address[:2]

    def send(self, payload, to):
        """To anything that has a host and a port."""
        self.socket.sendto(payload, (to.host, to.port))

    def receive(self):
        """The next datagram, and its sender's port."""
        assert select.select([self.socket], [], [], PATIENCE)[0], "no datagram came"
        payload, sender = self.socket.recvfrom(65536)
        return payload, sender[1]

    def answer(self, payload, port):
        """To the port that a datagram came from."""
        self.socket.sendto(payload, (self.host, port))

    def received(self):
        """The payloads of all that has come, without waiting."""
        payloads = []
        while select.select([self.socket], [], [], 0)[0]:
            payloads.append(self.socket.recv(65536))
        return payloads


@pytest.fixture(name="stack")
def fixture_stack():
    """Ends what a test has started."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(name="udp")
def fixture_udp(stack):
    """Makes sockets."""
    def udp(host="127.0.0.1"):
        made = Socket(host)
        stack.callback(made.socket.close)
        return made
    return udp


@pytest.fixture(name="client")
def fixture_client(udp):
    """The device."""
    return udp()


@pytest.fixture(name="server")
def fixture_server(udp):
    """The server."""
    return udp()


@pytest.fixture(name="relay")
def fixture_relay(stack, server):
    """Starts a proxy before the server. Its seed is fixed, so that no test passes or fails by chance."""
    return lambda **options: stack.enter_context(Proxy(server.host, server.port, **{"seed": 7, **options}))


def numbered(count, start=0):
    """Payloads that differ, in contents and size."""
    return [b"%d " % number + b"x" * (number % 50) for number in range(start, start + count)]


def send_all(sender, payloads, relay, arrived="sent_datagrams"):
    """From the client; in portions, so that no kernel's buffer overflows."""
    for first in range(0, len(payloads), 50):
        goal = relay.counters["up"][arrived] + len(payloads[first:first + 50])
        for payload in payloads[first:first + 50]:
            sender.send(payload, relay)
        relay.wait_for(lambda goal=goal: relay.counters["up"][arrived] >= goal, "portion")


def wait_until_quiet(relay):
    """Until nothing is held back or delayed."""
    relay.wait_for(lambda: not relay.counters["up"]["waiting"] + relay.counters["down"]["waiting"], "quiet")


def history(relay, way):
    """What was decided about each datagram, and what became of it."""
    return [(datagram.payload, datagram.decision, datagram.fate) for datagram in relay.datagrams
            if datagram.direction == way]


def answering_time(client, server, port):
    """How long an answer is on its way."""
    started = time.monotonic()
    server.answer(b"down", port)
    assert client.receive()[0] == b"down"
    return time.monotonic() - started


def assert_sums_agree(counters):
    """Every datagram is accounted for."""
    for way in ("up", "down"):
        counted = counters[way]
        lost = sum(counted[fate] for fate in FATES_OF_THE_LOST)
        assert counted["sent_datagrams"] == counted["delivered_datagrams"] - counted["duplicated"] + lost


# A relay without faults

def test_without_faults_everything_arrives_once_unchanged_and_in_order(relay, client, server):
    way, payloads = relay(), numbered(200) + [b"", random.Random(1).randbytes(60000)]
    for payload in payloads:
        client.send(payload, way)
        received, port = server.receive()
        assert received == payload
        server.answer(payload[::-1], port)
        assert client.receive() == (payload[::-1], way.port)
    assert way.up == way.delivered_up == payloads
    assert way.down == way.delivered_down == [payload[::-1] for payload in payloads]


def test_each_client_is_its_own_port_and_gets_its_own_answers(relay, udp, server):
    way, clients = relay(), [udp() for _ in range(5)]
    ports = {}
    for number, client in enumerate(clients):
        client.send(b"from %d" % number, way)
        ports[number] = server.receive()[1]
    for number, client in enumerate(clients):
        client.send(b"again", way)
        assert server.receive() == (b"again", ports[number])
    assert len(set(ports.values())) == 5
    for number in reversed(range(5)):
        server.answer(b"to %d" % number, ports[number])
    assert [client.receive()[0] for client in clients] == [b"to %d" % number for number in range(5)]
    assert way.ports == {client.address: [ports[number]] for number, client in enumerate(clients)}


@pytest.mark.parametrize("near, far", [("::1", "::1"), ("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_ipv6_on_either_side(udp, near, far):
    try:
        client, server = udp(near), udp(far)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with Proxy(server.host, server.port, host=near) as way:
        assert way.address == (f"[::1]:{way.port}" if near == "::1" else f"127.0.0.1:{way.port}")
        client.send(b"up", way)
        payload, port = server.receive()
        server.answer(b"down", port)
        assert (payload, client.receive()[0]) == (b"up", b"down")


def test_only_the_server_can_answer(relay, client, server, udp):
    way = relay()
    client.send(b"up", way)
    _, port = server.receive()
    udp().answer(b"forged", port)
    server.answer(b"down", port)
    assert client.receive()[0] == b"down"
    assert way.down == [b"down"]


def test_a_server_that_is_away_for_a_while_costs_only_what_was_sent_meanwhile(client):
    first = Socket()
    with Proxy(first.host, first.port, duplicate=1) as way:
        client.send(b"1", way)
        first.receive()
        first.socket.close()
        # The kernel reports the refusal of one copy when the next is sent.
        client.send(b"2", way)
        way.wait_for(lambda: way.counters["up"]["delivered_datagrams"] == 4, "four copies")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
            second.settimeout(PATIENCE)
            second.bind(first.address)
            client.send(b"3", way)
            assert [second.recv(100), second.recv(100)] == [b"3", b"3"]


# The seed

MIXED = {"drop": 0.3, "duplicate": 0.2, "reorder": 0.2, "jitter_ms": 1}


def test_the_same_seed_repeats_its_decisions(relay, client):
    histories = []
    for seed in (1, 1, 2):
        way = relay(seed=seed, **MIXED)
        send_all(client, numbered(300), way)
        wait_until_quiet(way)
        histories.append(history(way, "up"))
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


def test_decisions_of_one_direction_do_not_depend_on_the_other(relay, client, server):
    alone = relay(**MIXED)
    send_all(client, numbered(100), alone)
    wait_until_quiet(alone)
    server.received()
    both = relay(**MIXED)
    for payload in numbered(100):
        send_all(client, [payload], both)
        wait_until_quiet(both)
        for port in both.ports.get(client.address, []):
            server.answer(b"down", port)
    both.wait_for(lambda: both.counters["down"]["sent_datagrams"] >= 50, "answers")
    wait_until_quiet(both)
    assert history(both, "up") == history(alone, "up")
    # And the directions are not each other's copies.
    down = history(both, "down")
    assert [what[1] for what in down] != [what[1] for what in history(both, "up")][:len(down)]


def test_what_is_lost_on_demand_leaves_the_other_decisions_alone(relay, client):
    plain, troubled = relay(drop=0.5), relay(drop=0.5)
    troubled.drop_next_up(10)
    for way in (plain, troubled):
        send_all(client, numbered(100), way)
    assert history(troubled, "up")[10:] == history(plain, "up")[10:]


def test_a_seed_that_is_picked_is_told_and_repeats(server, client):
    histories = []
    with Proxy(server.host, server.port, drop=0.5) as picked:
        assert f"seed {picked.seed}" in repr(picked)
        send_all(client, numbered(100), picked)
        histories.append(history(picked, "up"))
    with Proxy(server.host, server.port, drop=0.5, seed=picked.seed) as again:
        send_all(client, numbered(100), again)
        histories.append(history(again, "up"))
    assert histories[0] == histories[1]
    with Proxy(server.host, server.port) as other:
        assert other.seed != picked.seed


# The faults

@pytest.mark.parametrize("probability", [0.1, 0.3, 0.9])
def test_the_share_dropped_is_near_the_probability(relay, client, server, probability):
    way = relay(drop=probability)
    arrived = []
    for first in range(0, 2000, 50):
        send_all(client, numbered(50, first), way)
        arrived += server.received()
    counted = way.counters["up"]
    # Five standard deviations.
    assert counted["dropped"] == pytest.approx(2000 * probability,
                                               abs=5 * (2000 * probability * (1 - probability)) ** 0.5)
    assert len(arrived) == counted["delivered_datagrams"] == 2000 - counted["dropped"]
    assert arrived == way.delivered_up


def test_directions_can_have_faults_of_their_own(relay, client, server):
    way = relay(drop=0, down_drop=1)
    for payload in numbered(20):
        client.send(payload, way)
        server.answer(b"down", server.receive()[1])
    way.wait_for(lambda: way.counters["down"]["dropped"] == 20, "loss of all answers")
    assert way.counters["up"]["delivered_datagrams"] == 20
    assert not client.received()
    up_only = relay(drop=1, down_drop=0)
    send_all(client, numbered(20), up_only)
    assert up_only.counters["up"]["dropped"] == 20
    both = relay(drop=0.3)
    for payload in numbered(100):
        send_all(client, [payload], both)
        for port in both.ports.get(client.address, []):
            server.answer(payload, port)
    both.wait_for(lambda: both.counters["down"]["sent_datagrams"] >= 50, "answers")
    assert both.counters["up"]["dropped"] > 0 and both.counters["down"]["dropped"] > 0


def test_duplicates_come_twice_each(relay, client, server):
    way, payloads = relay(duplicate=1), numbered(20)
    send_all(client, payloads, way)
    assert [server.receive()[0] for _ in range(40)] == [payload for payload in payloads for _ in range(2)]
    assert not server.received()
    some = relay(duplicate=0.3)
    send_all(client, numbered(1000), some)
    assert 200 < some.counters["up"]["duplicated"] < 400
    assert some.counters["up"]["delivered_datagrams"] == 1000 + some.counters["up"]["duplicated"]


def test_a_reordered_datagram_is_overtaken_by_the_next_one(relay, client, server):
    # Held back for so long that only the next one can free it.
    way = relay(reorder=1, reorder_ms=60000)
    send_all(client, [b"1", b"2", b"3", b"4"], way)
    assert [server.receive()[0] for _ in range(4)] == [b"2", b"1", b"4", b"3"]
    assert way.counters["up"]["reordered"] == 2
    assert [datagram.reordered for datagram in way.datagrams] == [True, False, True, False]
    some = relay(reorder=0.3)
    payloads = numbered(500)
    send_all(client, payloads, some)
    wait_until_quiet(some)
    assert some.delivered_up != payloads
    assert sorted(some.delivered_up) == sorted(payloads)


def test_a_reordered_datagram_that_nothing_follows_comes_late(relay, client, server):
    way = relay(reorder=1, reorder_ms=30)
    started = time.monotonic()
    client.send(b"alone", way)
    assert server.receive()[0] == b"alone"
    assert time.monotonic() - started >= 0.03
    assert way.counters["up"]["reordered"] == 0


def test_delay_holds_for_every_datagram_and_for_its_direction_alone(relay, client, server):
    way = relay(delay_ms=50, down_delay_ms=0)
    started = time.monotonic()
    client.send(b"1", way)
    payload, port = server.receive()
    assert payload == b"1" and time.monotonic() - started >= 0.05
    # The best of some, since the machine may be busy.
    assert min(answering_time(client, server, port) for _ in range(10)) < 0.05
    send_all(client, numbered(10), way)
    assert [server.receive()[0] for _ in range(10)] == numbered(10)
    for datagram in way.datagrams:
        if datagram.direction == "up":
            assert datagram.deliveries[0] - datagram.time >= 0.05


def test_jitter_spreads_the_delays_and_keeps_the_order(relay, client):
    way, payloads = relay(delay_ms=5, jitter_ms=30), numbered(50)
    for payload in payloads:
        send_all(client, [payload], way)
    wait_until_quiet(way)
    decided = [datagram.decision.delay for datagram in way.datagrams]
    assert all(0.005 <= delay <= 0.035 for delay in decided)
    assert max(decided) - min(decided) > 0.02
    assert way.delivered_up == payloads
    assert all(datagram.deliveries[0] - datagram.time >= datagram.decision.delay - 1e-6
               for datagram in way.datagrams)


@pytest.mark.parametrize("fault", [{"drop": 1.5}, {"duplicate": -0.1}, {"reorder": float("nan")},
                                   {"delay_ms": -1}, {"down_jitter_ms": float("inf")}, {"down_drop": 2}])
def test_impossible_faults_are_refused(fault):
    with pytest.raises(ValueError):
        Proxy("127.0.0.1", 9, **fault)


# The switches

def test_rebind_changes_the_source_port_and_loses_answers_to_the_old_one(relay, client, server):
    way = relay()
    ports = []
    for count in range(5):
        client.send(b"up %d" % count, way)
        payload, port = server.receive()
        assert payload == b"up %d" % count
        ports.append(port)
        way.rebind()
        server.answer(b"late", port)
        way.wait_for(lambda count=count: way.counters["down"]["stale"] == count + 1, "late answer")
    assert len(set(ports)) == 5
    assert way.ports == {client.address: ports}
    client.send(b"last", way)
    server.answer(b"in time", server.receive()[1])
    assert client.receive()[0] == b"in time"
    assert not client.received()
    assert_sums_agree(way.counters)


def test_blackhole_swallows_all_that_follows_and_what_is_under_way(relay, client, server):
    way = relay(delay_ms=200)
    client.send(b"before", way)
    port = server.receive()[1]
    client.send(b"under way", way)
    way.wait_for(lambda: len(way.up) == 2, "datagram under way")
    way.blackhole = True
    client.send(b"after", way)
    server.answer(b"down", port)
    way.wait_for(lambda: (way.counters["up"]["blackholed"], way.counters["down"]["blackholed"]) == (2, 1),
                 "blackholed datagrams")
    assert way.blackhole and not server.received() and not client.received()
    way.blackhole = True
    client.send(b"too early", way)
    way.blackhole = False  # before it would have been due
    client.send(b"light", way)
    assert server.receive()[0] == b"light"


def test_drop_next_loses_just_so_many(relay, client, server):
    way, payloads = relay(), numbered(10)
    client.send(b"just before", way)
    assert server.receive()[0] == b"just before"
    way.drop_next_up(3)
    send_all(client, payloads, way)
    (port,) = way.ports[client.address]
    assert [server.receive()[0] for _ in range(7)] == payloads[3:]
    way.drop_next_down(2)
    for payload in payloads:
        server.answer(payload, port)
    assert [client.receive()[0] for _ in range(8)] == payloads[2:]
    assert way.counters["up"]["lost"] == 3 and way.counters["down"]["lost"] == 2
    assert [datagram.fate for datagram in way.datagrams].count("lost") == 5
    with pytest.raises(ValueError):
        way.drop_next_up(-1)


# The counters

def test_counters_are_exact_under_all_faults(relay, client, server):
    way = relay(drop=0.2, duplicate=0.2, reorder=0.2, jitter_ms=2)
    came, sizes = [], 0
    for first in range(0, 1000, 50):
        send_all(client, numbered(50, first), way)
        wait_until_quiet(way)
        came += server.received()
        (port,) = way.ports[client.address]
        for payload in numbered(20):
            server.answer(payload, port)
            sizes += len(payload)
        way.wait_for(lambda goal=20 * (first // 50 + 1): way.counters["down"]["sent_datagrams"] == goal,
                     "answers")
    wait_until_quiet(way)
    up, down = way.counters["up"], way.counters["down"]
    assert (up["sent_datagrams"], up["sent_bytes"]) == (1000, sum(map(len, numbered(1000))))
    assert (up["delivered_datagrams"], up["delivered_bytes"]) == (len(came), sum(map(len, came)))
    assert (down["sent_datagrams"], down["sent_bytes"]) == (400, sizes)
    at_client = client.received()
    assert (down["delivered_datagrams"], down["delivered_bytes"]) == (
        len(at_client), sum(map(len, at_client)))
    assert min(up["dropped"], up["duplicated"], up["reordered"]) > 0
    assert_sums_agree(way.counters)
    assert way.counters["seed"] == 7
    assert came == way.delivered_up and at_client == way.delivered_down


def test_counters_hold_what_was_sent_before_they_are_asked(relay, client):
    way = relay(drop=0.5)
    for count in range(1, 200):
        client.send(b"x", way)
        assert way.counters["up"]["sent_datagrams"] == count  # at once, without waiting


def test_counters_stay_after_the_end_and_hold_the_last_datagram(server, client):
    for _ in range(20):
        with Proxy(server.host, server.port) as way:
            client.send(b"last words", way)
        assert way.up == way.delivered_up == [b"last words"]
        assert server.receive()[0] == b"last words"


def test_what_is_not_to_be_kept_is_counted_all_the_same(relay, client):
    way = relay(keep=False)
    send_all(client, numbered(10), way)
    assert way.counters["up"]["delivered_datagrams"] == 10
    assert not way.datagrams and not way.delivered_up


def test_a_condition_that_looks_twice_misses_nothing(relay, client):
    way, looks = relay(), []

    def condition():
        before = len(way.up)
        if not looks:
            client.send(b"between the looks", way)
        looks.append(len(way.up))
        return before

    started = time.monotonic()
    way.wait_for(condition, "datagram")
    assert time.monotonic() - started < PATIENCE / 2 and looks == [1, 1]


def test_a_test_that_waits_in_vain_fails(relay):
    way = relay()
    with pytest.raises(AssertionError, match="no miracle within 0.05 s"):
        way.wait_for(lambda: False, "miracle", patience=0.05)


# Its end

def held():
    """The threads and descriptors of this process. Those of tests before may go meanwhile, so that only new
    ones tell something."""
    found = set(threading.enumerate())
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


def test_nothing_survives_its_end(server, udp):
    clients = [udp() for _ in range(5)]
    before = held()
    with Proxy(server.host, server.port, delay_ms=60000, down_delay_ms=0) as delayed:
        clients[0].send(b"never", delayed)
        delayed.wait_for(lambda: delayed.up, "datagram")
        started = time.monotonic()
    assert time.monotonic() - started < 1
    with Proxy(server.host, server.port, reorder=0.5) as way:
        for client in clients:
            client.send(b"up", way)
        way.wait_for(lambda: way.counters["up"]["delivered_datagrams"] == 5, "datagrams")
        way.rebind()
        assert held() - before
    way.stop()  # again does nothing
    assert delayed.counters["up"]["waiting"] == 1
    assert not held() - before
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((way.host, way.port))


def test_a_port_that_is_taken_leaves_nothing_behind(server):
    before = held()
    with pytest.raises(OSError):
        Proxy(server.host, server.port, port=server.port)
    assert not held() - before


def test_many_clients_and_rebinds_do_not_use_up_the_descriptors(relay, client, server, monkeypatch):
    monkeypatch.setattr(proxy_module, "MOST_UPSTREAMS", 4)
    way = relay()
    before = held()
    for count in range(20):
        client.send(b"up", way)
        server.answer(b"down %d" % count, server.receive()[1])
        assert client.receive()[0] == b"down %d" % count
        way.rebind()
    assert len(held() - before) == 4
    assert len(set(way.ports[client.address])) == 20


def test_idle_it_uses_no_time(relay, client, server):
    way = relay(delay_ms=1)
    client.send(b"up", way)
    server.receive()
    wait_until_quiet(way)
    used = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - used < 0.05


# The command

COMMAND = [sys.executable, str(Path(proxy_module.__file__))]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_relays_until_it_is_ended_and_then_tells_its_counters(client, server, stack, ending):
    process = stack.enter_context(subprocess.Popen(
        [*COMMAND, "--server", f"127.0.0.1:{server.port}", "--seed", "42", "--drop", "0.3", "--down-drop",
         "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    listening = re.fullmatch(r"listening 127\.0\.0\.1 (\d+) seed 42\n", process.stdout.readline())
    for payload in numbered(100):
        client.socket.sendto(payload, ("127.0.0.1", int(listening[1])))
    process.send_signal(ending)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr, stdout.count("\n")) == (0, "", 1)
    counters = json.loads(stdout)
    assert counters["seed"] == 42
    assert counters["up"]["sent_datagrams"] == 100
    assert 10 <= counters["up"]["dropped"] <= 50
    assert len(server.received()) == counters["up"]["delivered_datagrams"]
    # The module decides as the command does.
    with Proxy(server.host, server.port, seed=42, drop=0.3, down_drop=0) as way:
        send_all(client, numbered(100), way)
    assert way.counters == counters


def test_the_command_picks_a_seed_and_tells_it(stack, server):
    process = stack.enter_context(subprocess.Popen([*COMMAND, "--server", f"127.0.0.1:{server.port}"],
                                                   stdout=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    seed = re.fullmatch(r"listening \S+ \d+ seed (\d+)\n", process.stdout.readline())[1]
    process.terminate()
    assert json.loads(process.communicate(timeout=PATIENCE)[0])["seed"] == int(seed)


@pytest.mark.parametrize("arguments", [[], ["--server", "127.0.0.1"], ["--server", "127.0.0.1:70000"],
                                       ["--server", "127.0.0.1:9", "--drop", "2"],
                                       ["--server", "127.0.0.1:9", "--listen", "192.0.2.1:0"]])
def test_the_command_says_what_is_wrong(arguments):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE,
                          check=False)
    assert done.returncode != 0 and done.stdout == ""
    assert "proxy.py: " in done.stderr and "Traceback" not in done.stderr


def test_the_command_reads_addresses_of_both_families():
    assert proxy_module.endpoint("[::1]:1234") == ("::1", 1234)
    assert proxy_module.endpoint("localhost:0") == ("localhost", 0)
