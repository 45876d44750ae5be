#!/usr/bin/env python3
"""Prints what becomes of runs over a bad network: for each rate of loss, plain runs and runs with --confirm
against an inboxd that answers, several at once, each through a seeded proxy of its own.

$BUILD is the directory with dtls-send and inboxd (build/)."""

import argparse
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
# pylint: disable=wrong-import-position
from client import Client
from pki import Pki
from proxy import Proxy
from servers import Inboxd

COLUMNS = ("loss each way", "run", "runs", "delivered", "answer printed", "silently lost", "median s",
           "maximum s", "statuses", "seeds")


def make_run(server, pki, seed, loss, arguments, options):
    """One run through a network of its own; returns its payload and result."""
    payload = f"payload of run {seed}".encode()
    with Proxy(server.host, server.port, seed=seed, drop=loss, duplicate=options.duplicate,
               reorder=options.reorder, keep=False) as proxy:
        client = Client(["--server", proxy.address, "--cert", str(pki.bundle("device")),
                         "--key", str(pki.key("device")), "--timeout", str(options.timeout), *arguments,
                         payload], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return payload, client.finish(limit=options.timeout + 20)


def make_row(pki, loss, arguments, options):
    """Makes the runs of one row, and counts."""
    seeds = range(options.seed, options.seed + options.runs)
    with tempfile.TemporaryDirectory() as scratch, \
            Inboxd(pki, scratch, "--reply", "thanks") as server, \
            ThreadPoolExecutor(options.at_once) as pool:
        runs = list(pool.map(lambda seed: make_run(server, pki, seed, loss, arguments, options), seeds))
        server.settle()
        received = set(server.received())
    seconds = [result.seconds for _, result in runs]
    statuses = [result.status for _, result in runs]
    return (f"{loss:.0%}", f"`{' '.join(arguments)}`", str(len(runs)),
            str(sum(payload in received for payload, _ in runs)),
            str(sum(result.stdout == b"thanks\n" for _, result in runs)),
            str(sum(result.status == 0 and payload not in received for payload, result in runs)),
            f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}",
            ", ".join(f"{statuses.count(status)} x {status}" for status in sorted(set(statuses))),
            f"{seeds[0]} to {seeds[-1]}")


def print_row(cells):
    """As Markdown."""
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=30, help="in each row (%(default)s)")
    parser.add_argument("--at-once", type=int, default=6, help="side by side (%(default)s)")
    parser.add_argument("--seed", type=int, default=1000, help="the first run's (%(default)s)")
    parser.add_argument("--loss", type=float, nargs="+", default=[0, 0.1, 0.3], help="rates, each way")
    parser.add_argument("--duplicate", type=float, default=0.0, help="share of datagrams (%(default)s)")
    parser.add_argument("--reorder", type=float, default=0.0, help="share of datagrams (%(default)s)")
    parser.add_argument("--timeout", type=int, default=60, help="of each run (%(default)s)")
    options = parser.parse_args()
    print_row(COLUMNS)
    print_row(["---"] * len(COLUMNS))
    with tempfile.TemporaryDirectory() as scratch:
        pki = Pki.shared(Path(scratch) / "pki")
        for loss in options.loss:
            for arguments in [], ["--confirm"]:
                print_row(make_row(pki, loss, ["--count", "1", *arguments], options))


if __name__ == "__main__":
    main()
