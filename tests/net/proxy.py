#!/usr/bin/env python3
"""A UDP relay that treats datagrams as a bad network does: it drops, duplicates, reorders and delays them,
changes its source port in mid-life as a NAT does, or goes dark; and it counts them exactly.

What befalls the nth datagram of a direction is drawn from the seed and depends on nothing else: neither on
the other direction nor on time. So a failure is repeated by its seed.

As a module: `with Proxy(server.host, server.port, seed=1, drop=0.3) as proxy:` and let the client send to
`proxy.address`. As a command: see --help."""

import argparse
import contextlib
import functools
import heapq
import json
import os
import random
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, fields

UP, DOWN = "up", "down"

# The fates of a datagram.
WAITING = "waiting"        # delayed or held back
DELIVERED = "delivered"    # at least once
DROPPED = "dropped"        # by chance
LOST = "lost"              # by drop_next_up or drop_next_down
BLACKHOLED = "blackholed"  # while `blackhole` was set
STALE = "stale"            # sent to a source port from before rebind()
FAILED = "failed"          # refused by the kernel
FATES = (WAITING, DELIVERED, DROPPED, LOST, BLACKHOLED, STALE, FAILED)

LARGEST = 65536         # bytes; no datagram is larger
BATCH = 4096            # datagrams that one socket may have read before it is another's turn
BUFFER = 1 << 20        # bytes of the kernel's buffers, so that a burst is not lost where nobody counts it
MOST_UPSTREAMS = 256    # sockets; beyond, the one longest unused goes, as in a NAT whose table is full


@dataclass(frozen=True)
class Faults:
    """What happens to one direction: three probabilities and two times."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0

    def __post_init__(self):
        for name in ("drop", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, not {getattr(self, name)}")
        for name in ("delay_ms", "jitter_ms"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is a time, not {getattr(self, name)}")


@dataclass(frozen=True)
class Decision:
    """What chance wants for one datagram."""

    drop: bool
    duplicate: bool
    reorder: bool
    delay: float  # seconds


class Dice:
    """Draws the decisions of one direction."""

    def __init__(self, seed, direction, faults):
        self._random = random.Random(f"{seed} {direction}")
        self._faults = faults

    def throw(self):
        """Always takes as many numbers, so that no decision depends on the ones before it."""
        drop, duplicate, reorder, jitter = (self._random.random() for _ in range(4))
        faults = self._faults
        return Decision(drop < faults.drop, duplicate < faults.duplicate, reorder < faults.reorder,
                        (faults.delay_ms + jitter * faults.jitter_ms) / 1000)


@dataclass(eq=False)
class Datagram:
    """One datagram as it was sent, and what became of it."""

    direction: str
    number: int              # in its direction, from 1
    client: tuple            # address of the client that it came from or was for
    payload: bytes
    time: float              # of its arrival (time.monotonic)
    decision: Decision
    fate: str = WAITING
    reordered: bool = False  # overtaken by the next one
    deliveries: list = field(default_factory=list)  # time of each copy's departure


class _Client:
    """A client, by its address, and what is under way for it."""

    def __init__(self, address):
        self.address = address
        self.upstream = None  # the socket by which the server sees it; made when needed
        self.ports = []       # those that it has had, latest last
        self.held = {UP: None, DOWN: None}
        self.last_due = {UP: 0.0, DOWN: 0.0}


class Proxy:  # pylint: disable=too-many-instance-attributes
    """The relay, in a thread of its own, until the end of the `with` block. All may be called from any
    thread. The faults are those of both directions, unless down_… names others for the way to the client."""

    def __init__(self, server_host, server_port, *, seed=None, host="127.0.0.1", port=0, drop=0.0,
                 duplicate=0.0, reorder=0.0, delay_ms=0, jitter_ms=0, down_drop=None, down_duplicate=None,
                 down_reorder=None, down_delay_ms=None, down_jitter_ms=None, reorder_ms=5, keep=True):
        """seed: None picks one, which `seed` tells. reorder_ms: how long a datagram is held back where no
        other comes to overtake it. keep: whether the datagrams are kept, or only counted."""
        up = {"drop": drop, "duplicate": duplicate, "reorder": reorder, "delay_ms": delay_ms,
              "jitter_ms": jitter_ms}
        down = {"drop": down_drop, "duplicate": down_duplicate, "reorder": down_reorder,
                "delay_ms": down_delay_ms, "jitter_ms": down_jitter_ms}
        down = {**up, **{name: value for name, value in down.items() if value is not None}}
        faults = {UP: Faults(**up), DOWN: Faults(**down)}
        self.seed = secrets.randbelow(1 << 32) if seed is None else seed
        self._dice = {way: Dice(self.seed, way, faults[way]) for way in (UP, DOWN)}
        self._hold = reorder_ms / 1000
        self._keep = keep

        self._clients = {}
        self._upstreams = OrderedDict()  # socket: its client; the one longest unused first
        self._calendar = []              # heap of (due, serial, what to do)
        self._serial = self._events = 0
        self._lose = {UP: 0, DOWN: 0}
        self._blackhole = False
        self._stopping = self._stopped = False
        self._datagrams, self._departures = [], {UP: [], DOWN: []}
        names = ("sent_datagrams", "sent_bytes", "delivered_datagrams", "delivered_bytes", "duplicated",
                 "reordered", *(fate for fate in FATES if fate != DELIVERED))
        self._counters = {way: dict.fromkeys(names, 0) for way in (UP, DOWN)}
        # Guards all of the above; announces every arrival and departure.
        self._changed = threading.Condition()

        self._server = socket.getaddrinfo(server_host, server_port, type=socket.SOCK_DGRAM)[0]
        family, _, _, _, near = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self._near = _datagram_socket(family)
        try:
            self._near.bind(near)
        except OSError:
            self._near.close()
            raise
        self.host, self.port = self._near.getsockname()[:2]
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(self._near, selectors.EVENT_READ, self._read_clients)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __repr__(self):
        return f"<Proxy {self.address}, seed {self.seed}>"

    # What tests steer.

    @property
    def address(self):
        """Where clients send to, as HOST:PORT or [HOST]:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def named(self, name):
        """The same, with a name instead of the address."""
        return f"{name}:{self.port}"

    def rebind(self):
        """From now on every client has a new source port towards the server; what the server sends to an
        old one is lost. Old ports stay open, since a NAT is silent where a closed port would refuse."""
        with self._up_to_date():
            for client in self._clients.values():
                client.upstream = None

    @property
    def blackhole(self):
        """While set, nothing comes out any more, not even what was under way."""
        return self._blackhole

    @blackhole.setter
    def blackhole(self, value):
        with self._up_to_date():
            self._blackhole = bool(value)

    def drop_next_up(self, count=1):
        """Loses the next datagrams that clients send."""
        self._lose_next(UP, count)

    def drop_next_down(self, count=1):
        """Loses the next datagrams that the server sends."""
        self._lose_next(DOWN, count)

    def _lose_next(self, way, count):
        if count < 0:
            raise ValueError(f"{count} datagrams cannot be lost")
        with self._up_to_date():
            self._lose[way] = count

    # What tests see.

    @property
    def counters(self):
        """What has come and gone: {"seed": …, "up": {…}, "down": {…}}. sent_…: as the client or server sent
        it, before any loss; delivered_…: as it left, with the `duplicated` copies. For each direction:
        sent_datagrams == delivered_datagrams - duplicated + waiting + dropped + lost + blackholed + stale +
        failed."""
        with self._up_to_date():
            return {"seed": self.seed, **{way: dict(counted) for way, counted in self._counters.items()}}

    @property
    def datagrams(self):
        """Every Datagram, in order of arrival."""
        with self._up_to_date():
            return list(self._datagrams)

    @property
    def up(self):
        """The bytes of what clients sent, in order, before any loss."""
        return [datagram.payload for datagram in self.datagrams if datagram.direction == UP]

    @property
    def down(self):
        """The bytes of what the server sent, in order, before any loss."""
        return [datagram.payload for datagram in self.datagrams if datagram.direction == DOWN]

    @property
    def delivered_up(self):
        """The bytes of what the server was given, in that order."""
        with self._up_to_date():
            return [datagram.payload for datagram in self._departures[UP]]

    @property
    def delivered_down(self):
        """The bytes of what clients were given, in that order."""
        with self._up_to_date():
            return [datagram.payload for datagram in self._departures[DOWN]]

    @property
    def ports(self):
        """For each client's address the source ports that the server has seen it by, latest last."""
        with self._up_to_date():
            return {address: list(client.ports) for address, client in self._clients.items()}

    def wait_for(self, condition, what="that", patience=10):
        """Waits until condition(), which is asked again whenever a datagram came or went; returns its
        value."""
        deadline = time.monotonic() + patience
        with self._changed:
            while True:
                seen = self._events
                if value := condition():
                    return value
                left = deadline - time.monotonic()
                assert left > 0, f"no {what} within {patience} s: {self.counters}"
                # What condition() itself took in, by looking twice for example, is announced to nobody.
                if self._events == seen:
                    self._changed.wait(left)

    # Its life.

    def stop(self):
        """Ends it at once; what is under way stays where it is. Counters and datagrams can still be read,
        and hold all that was sent before."""
        with self._changed:
            self._stopping = True
            if not self._stopped:
                self._wake_up()
        self._thread.join()
        with self._changed:
            if self._stopped:
                return
            self._stopped = True
            self._selector.close()
            for upstream in self._upstreams:
                upstream.close()
            self._near.close()
            os.close(self._wake)
            os.close(self._waker)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _run(self):
        while True:
            with self._changed:
                if self._stopping:
                    self._work()
                    return
                due = self._calendar[0][0] if self._calendar else None
            ready = self._selector.select(None if due is None else max(0, due - time.monotonic()))
            if any(key.fd == self._wake for key, _ in ready):
                os.read(self._wake, LARGEST)
            with self._changed:
                self._work()

    def _wake_up(self):
        with contextlib.suppress(BlockingIOError):  # full: it will wake up anyhow
            os.write(self._waker, b"x")

    @contextlib.contextmanager
    def _up_to_date(self):
        """Holds the lock, after all that was sent before this moment has been taken in. Thus what a test
        steers holds exactly from now on, and what it sees is no step behind."""
        with self._changed:
            if not self._stopped and self._work():
                self._wake_up()  # its next event may be nearer now
            yield

    def _work(self):
        """Takes in what has arrived and does what is due; returns whether there was anything. The lock is
        held."""
        before = self._events
        for key, _ in self._selector.select(0):
            if key.data:
                key.data()
        while self._calendar and self._calendar[0][0] <= time.monotonic():
            self._events += 1
            heapq.heappop(self._calendar)[2]()
        if self._events != before:
            self._changed.notify_all()
        return self._events != before

    # The way of a datagram: read, arrive, pass on, depart.

    def _read_clients(self):
        for payload, address in _waiting_datagrams(self._near):
            client = self._clients.setdefault(address, _Client(address))
            self._arrive(UP, client, payload)

    def _read_server(self, upstream, client):
        self._upstreams.move_to_end(upstream)
        for payload, _ in _waiting_datagrams(upstream):
            self._arrive(DOWN, client, payload, stale=client.upstream is not upstream)

    def _arrive(self, way, client, payload, stale=False):
        counted = self._counters[way]
        counted["sent_datagrams"] += 1
        counted["sent_bytes"] += len(payload)
        counted[WAITING] += 1
        self._events += 1
        # Drawn in any case, so that the seed's decisions stay with their datagrams.
        datagram = Datagram(way, counted["sent_datagrams"], client.address, payload, time.monotonic(),
                            self._dice[way].throw())
        if self._keep:
            self._datagrams.append(datagram)
        if stale:
            self._settle(datagram, STALE)
        elif self._blackhole:
            self._settle(datagram, BLACKHOLED)
        elif self._lose[way]:
            self._lose[way] -= 1
            self._settle(datagram, LOST)
        elif datagram.decision.drop:
            self._settle(datagram, DROPPED)
        elif datagram.decision.reorder and not client.held[way]:
            client.held[way] = datagram
            self._at(datagram.time + self._hold, functools.partial(self._let_go, client, datagram))
        else:
            self._pass_on(client, datagram)
            if client.held[way]:
                client.held[way].reordered = True
                counted["reordered"] += 1
                self._let_go(client, client.held[way])

    def _let_go(self, client, datagram):
        """Passes it on, unless its successor has seen to that."""
        if client.held[datagram.direction] is datagram:
            client.held[datagram.direction] = None
            self._pass_on(client, datagram)

    def _pass_on(self, client, datagram):
        # Jitter stretches the gaps but keeps the order: reordering is a fault of its own.
        way = datagram.direction
        due = max(time.monotonic() + datagram.decision.delay, client.last_due[way])
        client.last_due[way] = due
        for _ in range(2 if datagram.decision.duplicate else 1):
            self._at(due, functools.partial(self._depart, client, datagram))

    def _depart(self, client, datagram):
        if self._blackhole:
            self._settle(datagram, BLACKHOLED)
            return
        try:
            if datagram.direction == UP:
                self._send_up(client, datagram.payload)
            else:
                self._near.sendto(datagram.payload, client.address)
        except OSError:
            self._settle(datagram, FAILED)
            return
        counted = self._counters[datagram.direction]
        counted["delivered_datagrams"] += 1
        counted["delivered_bytes"] += len(datagram.payload)
        counted["duplicated"] += bool(datagram.deliveries)
        datagram.deliveries.append(time.monotonic())
        self._settle(datagram, DELIVERED)
        if self._keep:
            self._departures[datagram.direction].append(datagram)

    def _settle(self, datagram, fate):
        """The first copy decides."""
        if datagram.fate == WAITING:
            datagram.fate = fate
            self._counters[datagram.direction][WAITING] -= 1
            if fate != DELIVERED:
                self._counters[datagram.direction][fate] += 1

    def _at(self, due, action):
        self._serial += 1
        heapq.heappush(self._calendar, (due, self._serial, action))

    # The sockets towards the server.

    def _send_up(self, client, payload):
        upstream = client.upstream or self._new_upstream(client)
        self._upstreams.move_to_end(upstream)
        try:
            upstream.send(payload)
        except ConnectionRefusedError:
            upstream.send(payload)  # that was about an earlier one, and this one was not sent yet

    def _new_upstream(self, client):
        while len(self._upstreams) >= MOST_UPSTREAMS:
            self._close_upstream(*self._upstreams.popitem(last=False))
        upstream = self._connect()
        while upstream.getsockname()[1] in client.ports:  # an old one that was closed meanwhile
            with upstream:
                upstream = self._connect()
        client.upstream = upstream
        client.ports.append(upstream.getsockname()[1])
        self._upstreams[upstream] = client
        self._selector.register(upstream, selectors.EVENT_READ,
                                functools.partial(self._read_server, upstream, client))
        return upstream

    def _connect(self):
        family, _, _, _, address = self._server
        upstream = _datagram_socket(family)
        try:
            upstream.connect(address)
        except OSError:
            upstream.close()
            raise
        return upstream

    def _close_upstream(self, upstream, client):
        self._selector.unregister(upstream)
        upstream.close()
        if client.upstream is upstream:
            client.upstream = None


def _datagram_socket(family):
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    return made


def _waiting_datagrams(source):
    """Those that the kernel holds, each with its sender."""
    for _ in range(BATCH):
        try:
            yield source.recvfrom(LARGEST)
        except BlockingIOError:
            return
        except OSError:
            continue  # nobody listens there now; a network would not say so


def endpoint(text):
    """HOST:PORT or [HOST]:PORT, as a pair."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"not HOST:PORT: {text}")
    return host, int(port)


def parse_arguments(arguments):
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="proxy.py", description="Relays datagrams to a UDP server as a bad network does. Prints "
        "'listening ADDRESS PORT seed N'; when ended by SIGTERM or SIGINT, its counters as one line of JSON.")
    parser.add_argument("--server", type=endpoint, required=True, metavar="HOST:PORT")
    parser.add_argument("--listen", type=endpoint, default=("127.0.0.1", 0), metavar="HOST:PORT",
                        help="default: 127.0.0.1:0, a free port")
    parser.add_argument("--seed", type=int, help="default: picked, and told")
    for fault in fields(Faults):
        option = fault.name.replace("_", "-")
        kind = "MS" if fault.name.endswith("_ms") else "PROBABILITY"
        parser.add_argument(f"--{option}", type=float, default=0.0, metavar=kind, help="in both directions")
        parser.add_argument(f"--down-{option}", type=float, metavar=kind, help="towards the client instead")
    return vars(parser.parse_args(arguments))


def main(arguments=None):
    """The command."""
    options = parse_arguments(arguments)
    server, (host, port) = options.pop("server"), options.pop("listen")
    # Blocked before there is a thread to take them, and then waited for: no handler, no race.
    endings = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    try:
        proxy = Proxy(*server, host=host, port=port, keep=False, **options)
    except (OSError, ValueError) as error:
        sys.exit(f"proxy.py: {error}")
    with proxy:
        print(f"listening {proxy.host} {proxy.port} seed {proxy.seed}", flush=True)
        signal.sigwait(endings)
    print(json.dumps(proxy.counters), flush=True)


if __name__ == "__main__":
    main()
