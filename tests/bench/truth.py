#!/usr/bin/env python3
"""Measures whether what is told is true, and what that costs: payloads that were told as confirmed and never
arrived, datagrams on slow and lossy paths, runs that get through heavy loss. Prints a table for each, and ends
with status 1 if anything that was confirmed had not arrived.

Every network is a proxy with a seed; nothing else is random but the program's own waits."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("e2e", "net")]
# pylint: disable=wrong-import-position
from client import PROGRAM, environment, tmpfs_directory
from pki import Pki
from proxy import Proxy
from servers import GnutlsServer, Inboxd, OpensslServer

LOSS = 0.15      # each way
ANSWER_MS = 600  # from a payload's arrival to its answer
SLOW_MS = 600    # each way: a round trip of 1.2 s
LINES = 50       # payloads of one run of --lines
CHAIN = 20       # separate runs over one session file
AT_ONCE = 40     # runs, which mostly wait
SERVERS = ["inboxd", "openssl", "openssl -mtu 1232", "gnutls"]
LIMIT = 60       # seconds: --timeout of a single delivery


class AnsweringOpenssl(OpensslServer):
    """Answers everything."""

    def collected(self, chunk):
        with contextlib.suppress(OSError):  # it is about to end
            self.send(b"thanks")


class Place:
    """Where one measurement lives: a directory, servers, proxies, a session file."""

    def __init__(self, base, name, stack):
        self.pki = Pki.shared(base / "pki")
        self.scratch = base / name
        self.scratch.mkdir()
        self.memory = stack.enter_context(tmpfs_directory())
        self.stack = stack

    def inboxd(self, form, *options):
        """A server of that form that answers everything."""
        return self.stack.enter_context(Inboxd(self.pki, self.scratch, "--reply", "thanks",
                                               *(["--coap"] if form == "coaps" else []), *options))

    def proxy(self, server, **faults):
        """A network before it."""
        return self.stack.enter_context(Proxy(server.host, server.port, **faults))

    def send(self, form, proxy, *options, stdin=None, timeout=LIMIT):
        """Runs the program to its end."""
        confirm = ["--confirm"] if form == "plain" else []
        scheme = "dtls" if form == "plain" else "coaps"
        command = [PROGRAM, "--server", f"{scheme}://{proxy.address}", "--cert", self.pki.bundle("device"),
                   "--key", self.pki.key("device"), "--timeout", timeout, *confirm, *options]
        return subprocess.run([os.fsencode(str(word) if isinstance(word, int) else word) for word in command], input=stdin, capture_output=True, check=False,
                              stdin=None if stdin is not None else subprocess.DEVNULL, env=environment(),
                              timeout=timeout + 30)


def datagrams(proxy):
    """So far: up and down."""
    counters = proxy.counters
    return counters["up"]["sent_datagrams"], counters["down"]["sent_datagrams"]


def lines(place, form, seed, loss):
    """One run of LINES payloads. (told as confirmed, of these never arrived, duplicates, datagrams)."""
    server = place.inboxd(form, "--delay", str(ANSWER_MS))
    proxy = place.proxy(server, seed=seed, drop=loss)
    payloads = [b"line %d of run %d" % (number, seed) for number in range(LINES)]
    queue = place.scratch / "queue"
    place.send(form, proxy, "--wait", "0", "--lines", "--queue", queue, stdin=b"\n".join(payloads),
               timeout=LINES * 20)
    waiting = {path.read_bytes() for path in queue.glob("[0-9]*")}
    return judge(server, proxy, [payload for payload in payloads if payload not in waiting])


def separate(place, form, seed, loss):
    """CHAIN runs, one after the other, over one session file. As above."""
    server = place.inboxd(form, "--delay", str(ANSWER_MS))
    proxy = place.proxy(server, seed=seed, drop=loss)
    confirmed = []
    for number in range(CHAIN):
        payload = b"run %d of chain %d" % (number, seed)
        result = place.send(form, proxy, "--wait", "0", "--session", place.memory / "session", payload)
        if result.returncode == 0:
            confirmed.append(payload)
    return judge(server, proxy, confirmed)


def judge(server, proxy, confirmed):
    """(told as confirmed, of these never arrived, duplicates, datagrams)."""
    server.settle()
    received = server.received()
    return (len(confirmed), len(set(confirmed) - set(received)), len(received) - len(set(received)),
            sum(datagrams(proxy)))


def slow(place, form):
    """Datagrams of a first run and three repeat runs over a slow path that loses nothing."""
    proxy = place.proxy(place.inboxd(form), seed=1, delay_ms=SLOW_MS)
    counts = [(0, 0)]
    for number in range(4):
        result = place.send(form, proxy, "--wait", "0", "--session", place.memory / "session", f"{number}")
        assert result.returncode == 0, result
        counts.append(datagrams(proxy))
    return [f"{later[0] - before[0]} up, {later[1] - before[1]} down"
            for before, later in zip(counts, counts[1:])]


def through(place, kind, seed, loss):
    """One run through heavy loss: (status, whether the server answered)."""
    def openssl(*options):
        return place.stack.enter_context(AnsweringOpenssl(place.pki, place.scratch, *options))
    # Without -mtu OpenSSL sends its certificates in eight datagrams of 200 bytes, of which none may be lost.
    make = {"inboxd": lambda: place.inboxd("plain"),
            "openssl": openssl,
            "openssl -mtu 1232": lambda: openssl("-mtu", "1232"),
            "gnutls": lambda: place.stack.enter_context(GnutlsServer(place.pki, place.scratch))}
    proxy = place.proxy(make[kind](), seed=seed, drop=loss)
    result = place.send("plain", proxy, "--count", "1", "payload")
    return result.returncode, result.stdout != b"", result.stderr.decode()


class Bench:
    """Runs measurements side by side, each in a place of its own."""

    def __init__(self, base):
        self.base = base
        self.begun = 0

    def measure(self, jobs):
        """Results of (function, argument, ...), in order."""
        names = [f"{self.begun + number}" for number in range(len(jobs))]
        self.begun += len(jobs)

        def one(name, job):
            with contextlib.ExitStack() as stack:
                return job[0](Place(self.base, name, stack), *job[1:])
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, names, jobs))

    def truth(self, kind, payloads):
        """Prints the table of what was told, and returns how much was not true."""
        size = LINES if kind is lines else CHAIN
        print(f"\n{kind.__name__}: {LOSS:.0%} lost each way, answers after {ANSWER_MS / 1000} s\n"
              "form   loss  payloads  confirmed  never arrived  came twice  datagrams each", flush=True)
        lies = 0
        for form in ("plain", "coaps"):
            for loss, count in ((0, size), (LOSS, payloads)):
                results = self.measure([(kind, form, seed, loss) for seed in range(max(1, count // size))])
                confirmed, lost, twice, sent = (sum(column) for column in zip(*results))
                lies += lost
                print(f"{form:6} {loss:4.0%} {len(results) * size:9} {confirmed:10} {lost:14} {twice:11} "
                      f"{sent / max(1, confirmed):15.2f}", flush=True)
        return lies

    def slow(self):
        """Prints the table of the slow path."""
        print(f"\nround trip {2 * SLOW_MS / 1000} s, nothing lost: datagrams of a first and three repeat runs")
        for form, counts in zip(("plain", "coaps"), self.measure([(slow, "plain"), (slow, "coaps")])):
            print(f"{form:6} {'; '.join(counts)}", flush=True)

    def through(self, runs, kinds):
        """Prints the table of heavy loss."""
        print(f"\n--confirm --timeout {LIMIT}: delivered through heavy loss\nserver             loss  delivered")
        for kind in kinds:
            for loss in (0.2, 0.3):
                results = self.measure([(through, kind, seed, loss) for seed in range(runs)])
                failures = [f"seed {seed}: {error.strip()}" for seed, (status, _, error) in
                            enumerate(results) if status != 0]
                print(f"{kind:18} {loss:4.0%}  {runs - len(failures)} of {runs}", *failures, sep="\n    ",
                      flush=True)


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payloads", type=int, default=1000, help="that are sent for each line (1000)")
    parser.add_argument("--runs", type=int, default=100, help="through heavy loss, for each line (100)")
    parser.add_argument("--servers", action="append", choices=SERVERS, help="through heavy loss (all)")
    parser.add_argument("measurements", nargs="*", default=["lines", "separate", "slow", "through"],
                        help="lines, separate, slow, through (all)")
    options = parser.parse_args()
    lies = 0
    with tempfile.TemporaryDirectory() as base:
        bench = Bench(Path(base))
        Pki.shared(Path(base) / "pki")
        for name in options.measurements:
            if name in ("lines", "separate"):
                lies += bench.truth({"lines": lines, "separate": separate}[name], options.payloads)
            elif name == "slow":
                bench.slow()
            else:
                bench.through(options.runs, options.servers or SERVERS)
    return 1 if lies else 0


if __name__ == "__main__":
    sys.exit(main())
