#!/usr/bin/env python3
"""Compares what one delivery costs with what it costs by other programs: mutual certificates (P-256: leaf,
intermediate, root), one payload of 10 bytes, one downlink of 10 bytes, exit; on an inboxd with a session cache,
and on one that speaks CoAP, in one go. Prints tables, and writes them to $BUILD/bench.json as well.

Traffic is counted by a proxy, instructions by callgrind. A program that reads standard input until its end
has it closed as soon as it has printed the downlink: the best that a script around it could do. Under loss all
meet the same fates: those of a run's nth datagram are drawn from the run's number and n alone."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import day
import delay
import growth
import tables
from contestants import CONTESTANTS, DOWNLINK
from measure import KILLED, instructions, run, sizes_of, traffic
# pylint: disable=wrong-import-order
from client import BUILD, PROGRAM, tmpfs_directory
from pki import Pki
from proxy import Proxy
from servers import BlackHole, Inboxd, wait_until

SETTLED = 4  # seconds: more than SETTLED_S in credentials.c
HANGS = 8  # seconds: what has not ended then, though it was answered, is killed and not run again


class Arena:
    """The servers, and a directory for each contestant's sessions."""

    def __init__(self, scratch, stack):
        self.pki = Pki.shared(Path(scratch) / "pki")
        self._let_files_settle()
        self._scratch, self._stack = Path(scratch), stack
        self._memory = stack.enter_context(tmpfs_directory())
        if self._memory is None:
            sys.exit("bench: a repeat run needs a tmpfs for its session: /dev/shm or $XDG_RUNTIME_DIR")
        # Not in the system's directory of temporary files, which may be a tmpfs.
        self._disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=BUILD)))
        reply = ["--reply", os.fsdecode(DOWNLINK)]
        self.servers = {"plain": self.server("plain", *reply), "coap": self.server("coap", "--coap", *reply),
                        "silent": self.server("silent", "--coap")}

    def _let_files_settle(self):
        """The program reads its credentials anew where they have just changed, which is not the usual run."""
        newest = max(path.stat().st_ctime for path in self.pki.directory.iterdir())
        wait_until(lambda: time.time() > newest + SETTLED, "rest of the credentials")

    def server(self, name, *options):
        """Starts an inboxd."""
        (self._scratch / name).mkdir()
        return self._stack.enter_context(Inboxd(self.pki, self._scratch / name, *options))

    def server_for(self, contestant):
        """The one that speaks its language."""
        return self.servers[contestant.server]

    def directory(self, contestant, purpose, on_disk=False):
        """A session belongs to one address of the server, so each purpose has a directory; a queue belongs on
        a disk."""
        parent = self._disk if on_disk or contestant.on_disk else self._memory
        directory = parent / f"{purpose} {contestant.name}"
        directory.mkdir(exist_ok=True)
        return directory


def median(values):
    """None where there is none."""
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def spread(values):
    """The median, and what a tenth of the values is below and above."""
    tenth = len(values) // 10
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "low": ordered[tenth], "high": ordered[-1 - tenth]}


# What a delivery costs.

def measure_traffic(arena, contestant, runs=7):
    """The least of a few runs: on a busy machine a flight may be sent twice."""
    server, directory = arena.server_for(contestant), arena.directory(contestant, "traffic")
    with Proxy(server.host, server.port, seed=1) as proxy:
        contestant.prepare(arena.pki, proxy.port, directory)
        seen = [traffic(server, proxy, contestant.command(arena.pki, proxy.port, directory),
                        **contestant.feeding(), limit=HANGS) for _ in range(runs)]
    for one in seen:
        assert contestant.answer in one.run.stdout and one.run.status in (0, KILLED), f"{contestant.name}: {one}"
    least = min(seen, key=lambda one: one.up[1] + one.down[1])
    return {"up": least.up, "down": least.down, "largest_up": least.largest_up,
            "after_downlink": median([one.lingered for one in seen])}


def measure_instructions(arena, contestant, runs=1):
    """The least of a few runs. Under valgrind all is slow, and a flight may be sent twice."""
    if not shutil.which("valgrind"):
        return None
    server, directory = arena.server_for(contestant), arena.directory(contestant, "direct")
    contestant.prepare(arena.pki, server.port, directory)
    seen = []  # None: it did not end by itself
    for _ in range(runs):
        count, done = instructions(contestant.command(arena.pki, server.port, directory),
                                   **contestant.feeding(), limit=60)
        assert contestant.answer in done.stdout, f"{contestant.name}: {done}"
        seen.append(count)
    return min(seen) if all(seen) else None


def measure_time(arena, contestants, runs):
    """All contestants in turn, so often; for each its times and memory."""
    seen = {contestant.name: [] for contestant in contestants}
    for contestant in contestants:
        contestant.prepare(arena.pki, arena.server_for(contestant).port,
                           arena.directory(contestant, "direct"))
    for turn in range(runs):
        for place in range(len(contestants)):
            contestant = contestants[(turn + place) % len(contestants)]
            if any(one.status == KILLED for one in seen[contestant.name]):
                continue
            command = contestant.command(arena.pki, arena.server_for(contestant).port,
                                         arena.directory(contestant, "direct"))
            seen[contestant.name].append(run(command, **contestant.feeding(), limit=HANGS))
    return {name: {"wall": spread([one.wall for one in taken]), "cpu": spread([one.cpu for one in taken]),
                   "memory": median([one.memory for one in taken]), "killed": taken[-1].status == KILLED}
            for name, taken in seen.items()}


def measure_costs(arena, options):
    """The table of what a delivery costs."""
    contestants = [one for one in CONTESTANTS if one.shown]
    present = [one for one in contestants if one.program]
    tables.progress("times")
    times = measure_time(arena, present, options.runs)
    rows = []
    for contestant in contestants:
        row = {"name": contestant.name, "missing": not contestant.program}
        if contestant.program:
            tables.progress(contestant.name)
            program, libraries = sizes_of(contestant.program)
            row.update(times[contestant.name], **measure_traffic(arena, contestant), program=program,
                       libraries=libraries, instructions=measure_instructions(arena, contestant))
        rows.append(row)
    return rows


# A bad network.

def give_up(contestant, pki, directory, cap):
    """How long it talks to a server that says nothing, with its default limits."""
    if not contestant.program:
        return {"missing": True}
    with BlackHole() as hole:
        done = run(contestant.command(pki, hole.port, directory), **contestant.feeding(), limit=cap)
    return {"seconds": done.wall, "status": None if done.status == KILLED else done.status}


def one_lossy_run(arena, contestant, loss, number, options):
    """A run through a network of its own. Its payload is like no other's, so that it is found again."""
    server, payload = arena.server_for(contestant), f"{number:010}".encode()
    feeding = {**contestant.feeding(payload), "hold": options.hold}
    with Proxy(server.host, server.port, seed=number % options.lossy_runs, drop=loss, keep=False) as proxy:
        command = contestant.command(arena.pki, proxy.port, "/nonexistent", payload, options.limit)
        # Its own --timeout should end ours; a second later it has failed to.
        return payload, run(command, **feeding, limit=options.limit + contestant.ours)


def count_lossy_runs(arena, contestant, loss, runs):
    """One row."""
    received = Counter(bytes(payload) for payload in arena.server_for(contestant).received())
    arrived = [payload in received for payload, _ in runs]
    return {"loss": loss, "name": contestant.name, "runs": len(runs), "delivered": sum(arrived),
            "twice": sum(received[payload] > 1 for payload, _ in runs),
            "printed": sum(DOWNLINK in done.stdout for _, done in runs),
            "silently_lost": sum(done.status == 0 and not there for (_, done), there in zip(runs, arrived)),
            "killed": sum(done.status == KILLED for _, done in runs),
            "seconds": median([done.wall for _, done in runs])}


def measure_patience(arena, options):
    """The table of loss, and who gives up when. All of it is waiting, so it is done side by side."""
    entrants = [one for one in CONTESTANTS if one.lossy]
    talkers = [one for one in CONTESTANTS if one.shown and not one.seed]
    rows = []
    with ThreadPoolExecutor(options.at_once) as pool, ThreadPoolExecutor(len(talkers)) as patient:
        ends = {one.name: patient.submit(give_up, one, arena.pki, "/nonexistent", options.cap)
                for one in talkers}
        cells = [(loss, one) for loss in (0.1, 0.3) for one in entrants]
        pending = []
        for cell, (loss, one) in enumerate(cells):
            first = (cell + 1) * 1000 * options.lossy_runs
            numbers = range(first, first + options.lossy_runs) if one.program else []
            pending.append([pool.submit(one_lossy_run, arena, one, loss, number, options)
                            for number in numbers])
        done = [[future.result() for future in futures] for futures in pending]
        for server in arena.servers.values():
            server.settle()
        for (loss, one), runs in zip(cells, done):
            rows.append(count_lossy_runs(arena, one, loss, runs) if runs else
                        {"loss": loss, "name": one.name, "missing": True})
        dead = {name: future.result() for name, future in ends.items()}
    return rows, dead


# The command.

def machine():
    """What the figures were taken on."""
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        models = [line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")]
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as release:
        system = dict(line.strip().split("=", 1) for line in release if "=" in line)["PRETTY_NAME"].strip('"')
        return f"{system}, {os.cpu_count()} x {models[0] if models else platform.machine()}"
    return platform.platform()


def parse_arguments():
    """--quick is the same with fewer runs and less patience."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes: few runs, little patience")
    parser.add_argument("--runs", type=int, help="for times, of each (50; 7 when quick)")
    parser.add_argument("--lossy-runs", type=int, help="for each rate of loss, of each (30; 5 when quick)")
    parser.add_argument("--limit", type=int, help="seconds for a run under loss (60; 20 when quick)")
    parser.add_argument("--cap", type=int, help="seconds for giving up a dead server (150; 20 when quick)")
    parser.add_argument("--hold", type=float, default=10, help="seconds after which the standard input of a "
                        "run under loss is closed though no answer came (%(default)s)")
    parser.add_argument("--at-once", type=int, default=16, help="runs under loss side by side (%(default)s)")
    tables_there_are = ["costs", "day", "delay", "growth", "loss"]
    parser.add_argument("--only", choices=tables_there_are, nargs="+", default=tables_there_are,
                        help="these tables")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--json", action="store_true", help="print what $BUILD/bench.json holds instead")
    options = parser.parse_args()
    for name, full, quick in ("runs", 50, 7), ("lossy_runs", 30, 5), ("limit", 60, 20), ("cap", 150, 20):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    return options


def measure_all(options):
    """Everything that was asked for."""
    version = subprocess.run([PROGRAM, "--version"], check=True, capture_output=True, text=True).stdout
    report = {"date": datetime.date.today().isoformat(), "machine": machine(), "version": version.strip(),
              "valgrind": bool(shutil.which("valgrind")),
              "runs": options.runs, "limit": options.limit, "cap": options.cap, "hold": options.hold}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        arena = Arena(scratch, stack)
        if "costs" in options.only:
            report["costs"] = measure_costs(arena, options)
        if "day" in options.only:
            tables.progress("a day")
            report["day"] = day.measure(arena, options.quick)
        if "delay" in options.only:
            tables.progress("a long way")
            report["delay"] = delay.measure(arena)
        if "growth" in options.only:
            tables.progress("growth")
            report["lines"] = growth.measure_lines(arena, 1000 if options.quick else 10000)
            report["sizes"] = growth.measure_sizes(arena)
        if "loss" in options.only:
            tables.progress("loss")
            report["loss"], report["dead"] = measure_patience(arena, options)
    report["flags"] = [[one.name, one.printed(), one.why] for one in CONTESTANTS
                       if (one.shown or one.lossy) and not (one.ours and one.lossy)]
    return report


def main():
    """The command."""
    options = parse_arguments()
    if not PROGRAM.exists() or not (BUILD / "inboxd").exists():
        sys.exit("bench.py: nothing to measure: `make all inboxd` first")
    report = measure_all(options)
    (BUILD / "bench.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1) if options.json else tables.render(report, options.markdown))


if __name__ == "__main__":
    main()
