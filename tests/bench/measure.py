"""Runs a command and tells what that took: time, memory, instructions, and datagrams by the proxy's count."""

import os
import re
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "e2e"), str(TESTS / "net")]
# pylint: disable=wrong-import-position
from client import BUILD, NO_OPTIONS, environment

KILLED = 124  # the status of what did not end in time, as timeout(1) has it

# Neither the user's configuration nor the machine's is part of what is measured.
HOMELESS = {"HOME": "/nonexistent", "DTLS_SEND_CONFIG": str(NO_OPTIONS)}

APPLICATION_DATA = (23, 25)  # record types; the second with a connection id (RFC 9146)


@dataclass
class Run:
    """How it went. Times are seconds; `ended` is on time.monotonic()'s clock."""

    status: int
    wall: float
    ended: float
    cpu: float
    memory: int  # KiB
    stdout: bytes
    stderr: str


def launcher():
    """measure.c, compiled where it was not yet; static, so that its own size hides no client's."""
    source, program = Path(__file__).with_name("measure.c"), BUILD / "tests" / "measure"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-o",
                        program, source], check=True)
    return program


def _converse(process, feed, until, hold):
    """Writes `feed`; reads to the end, and closes standard input as soon as `until` was printed, or after
    `hold` seconds. Returns what was printed."""
    output, closing = b"", time.monotonic() + hold
    if feed is not None:
        try:
            process.stdin.write(feed)
        except BrokenPipeError:
            pass
    while True:
        if process.stdin and (until in output or time.monotonic() >= closing):
            process.stdin.close()
            process.stdin = None
        left = max(0, closing - time.monotonic()) if process.stdin else None
        if select.select([process.stdout], [], [], left)[0]:
            chunk = os.read(process.stdout.fileno(), 65536)
            output += chunk
            if not chunk:
                return output


def run(command, feed=None, until=b"", hold=10, limit=60, stdin=None):
    """Runs a command. feed: what is written to its standard input, which stays open until the command has
    printed `until` or for `hold` seconds, as by a script that watches the answer come. Or stdin: a file for
    that. limit: after so many seconds it is killed."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as errors, os.fdopen(reading) as report:
        words = [launcher(), str(writing), str(limit), *command]
        with subprocess.Popen([str(word) for word in words], bufsize=0, pass_fds=[writing], stderr=errors,
                              stdin=stdin or (subprocess.DEVNULL if feed is None else subprocess.PIPE),
                              stdout=subprocess.PIPE, env=environment(HOMELESS)) as process:
            os.close(writing)
            stdout = _converse(process, feed, until, hold)
            status, started, ended, cpu, memory = map(int, report.readline().split())
            if process.stdin:
                process.stdin.close()
                process.stdin = None
        errors.seek(0)
        stderr = errors.read().decode("utf-8", "replace")
    return Run(status, (ended - started) / 1e9, ended / 1e9, cpu / 1e6, memory, stdout, stderr)


def instructions(command, **options):
    """How many a command executes (callgrind); and the run, for what it printed."""
    done = run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command], **options)
    collected = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    return int(collected[1]) if collected else None, done


@dataclass
class Traffic:
    """What a run sent and was sent, and how long it stayed after the downlink."""

    up: tuple    # datagrams, bytes
    down: tuple
    largest_up: int
    lingered: float  # seconds, with the proxy's own delay; None: no downlink came
    run: Run


def traffic(server, proxy, command, **options):
    """Runs a command that sends to the server through the proxy, and counts."""
    before, known = proxy.counters, len(proxy.datagrams)
    done = run(command, **options)
    server.settle()
    after, datagrams = proxy.counters, proxy.datagrams[known:]
    downlinks = [datagram for datagram in datagrams if datagram.direction == "down"
                 and datagram.payload[0] in APPLICATION_DATA and datagram.deliveries]
    up, down = (tuple(after[way][counter] - before[way][counter]
                      for counter in ("sent_datagrams", "sent_bytes")) for way in ("up", "down"))
    return Traffic(up, down, max((len(datagram.payload) for datagram in datagrams
                                  if datagram.direction == "up"), default=0),
                   done.ended - downlinks[0].time if downlinks else None, done)


def sizes_of(program):
    """Bytes of the program, without symbols as a package has it, and of all libraries that it loads."""
    with tempfile.TemporaryDirectory() as scratch:
        bare = Path(scratch) / "bare"
        stripped = subprocess.run(["strip", "-o", bare, program], check=False, stderr=subprocess.DEVNULL)
        size = (bare if stripped.returncode == 0 else Path(program)).stat().st_size
    listed = subprocess.run(["ldd", program], check=False, capture_output=True, text=True).stdout
    libraries = {os.path.realpath(path) for path in re.findall(r"(/\S+) \(0x", listed)}
    return size, sum(os.stat(library).st_size for library in libraries)
