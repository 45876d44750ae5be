"""Many runs on one queue and one session file, killed at any moment: what was accepted arrives.

STORM_RUNS is how many there are (1500), STORM_SEED what their lives are drawn from; a test that fails shows it.
How a storm goes is up to the machine too, so a seed does not repeat it exactly."""

import collections
import concurrent.futures
import contextlib
import os
import random
import signal
import subprocess
import time

import pytest
from test_session import assert_no_number_twice

import client
from bench import NOT_ACCEPTED, Bench

RUNS = int(os.environ.get("STORM_RUNS", "1500"))
SEED = int(os.environ.get("STORM_SEED", "0")) or random.SystemRandom().randrange(1, 10 ** 6)
AT_ONCE = 12
PATIENCE = 60  # seconds: --timeout


@pytest.fixture(name="recorded", params=[False, True], ids=["plain", "coaps"])
def fixture_recorded(request, pki, tmp_path):
    """A place of its own, whose server writes down every record."""
    with Bench(pki, tmp_path, "--records", tmp_path / "records", coaps=request.param) as bench:
        bench.queue.mkdir(mode=0o700)
        yield bench, tmp_path / "records"


class Storm:
    """What was started, how it ended, and what was seen in the queue."""

    def __init__(self, bench, chance, deadly):
        self.bench = bench
        self.chance = chance
        self.deadly = deadly
        self.usual = 0.02  # seconds that a run takes which is not killed
        self.seen = set()
        self.accepted = set()
        self.statuses = collections.Counter()
        self.started = []

    def draw(self):
        """A run: its options, its payloads, and at what part of a usual life it is to die."""
        weights = [6, 2, 1, 1] if self.deadly else [1, 0, 0, 0]
        kind = self.chance.choices(["confirm", "send", "lines", "flush"], weights)[0]
        confirm = self.bench.confirm
        options = {"confirm": confirm, "send": [], "lines": [*confirm, "--lines"],
                   "flush": [*confirm, "--flush"]}[kind]
        payloads = [self.bench.payload() for _ in range({"lines": 4, "flush": 0}.get(kind, 1))]
        death = self.chance.uniform(0, 1.2) if self.chance.random() < 0.7 else None
        return kind, options, payloads, death if self.deadly else None

    def live(self, kind, options, payloads, death):
        """One run, from its start to its end."""
        bench = self.bench
        arguments = [*options, "--session", bench.session, "--queue", bench.queue]
        started = time.monotonic()
        lines = b"".join(payload + b"\n" for payload in payloads) if kind == "lines" else b""
        with subprocess.Popen(bench.command(*arguments, *([] if lines else payloads), timeout=PATIENCE),
                              stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              env=client.environment(), cwd=bench.directory) as process:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(lines)
                process.stdin.close()
            if death is not None:
                time.sleep(death * self.usual)
                process.kill()
            stderr = process.stderr.read().decode("utf-8", "backslashreplace")
        if death is None:
            self.usual += (time.monotonic() - started - self.usual) / 10
        # A sanitizer that is killed at its work says so.
        assert process.returncode < 0 or not client.SANITIZER_REPORT.search(stderr), stderr
        return process.returncode, payloads, stderr, bench.waiting()

    def note(self, status, payloads, stderr, waiting):
        """Keeps account."""
        self.statuses[status] += 1
        self.seen.update(waiting.values())
        self.started += payloads
        if status >= 0 and status not in NOT_ACCEPTED:
            self.accepted.update(payloads)
        assert status in (0, 75, -signal.SIGKILL), (status, stderr)
        assert status < 0 or stderr.count("\n") == (status == 75), (status, stderr)

    def rage(self, runs):
        """All of them, so many at once."""
        lives = [self.draw() for _ in range(runs)]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for ended in pool.map(lambda life: self.live(*life), lives):
                self.note(*ended)


def test_a_storm_of_killed_runs_loses_nothing_and_repeats_no_record_number(recorded, count):
    print(f"STORM_SEED={SEED}")
    bench, records = recorded
    storm = Storm(bench, random.Random(SEED), deadly=True)
    storm.rage(RUNS)
    bench.flush(storm.statuses)
    for payload in storm.accepted | storm.seen:
        bench.wait_for(payload, storm.statuses)
    assert set(bench.arrived) <= set(storm.started)
    assert bench.set_aside() == []
    assert bench.strange_names() in ([], [".new"])
    killed = storm.statuses[-signal.SIGKILL]
    assert killed > RUNS / 5, storm.statuses
    bench.server.settle()
    assert_no_number_twice(records, RUNS / 10)
    duplicates = sum(bench.arrived.values()) - len(bench.arrived)
    count(kills_in_storms_survived=killed, payloads_accepted_in_storms=len(storm.accepted | storm.seen),
          payloads_delivered_in_storms=len(bench.arrived), duplicates_in_storms=duplicates)


def test_a_storm_without_kills_delivers_each_payload_once(recorded, count):
    bench, records = recorded
    storm = Storm(bench, random.Random(SEED), deadly=False)
    storm.rage(RUNS)
    assert storm.statuses == {0: RUNS}
    bench.server.settle()
    bench.look()
    assert sorted(bench.arrived.items()) == sorted((payload, 1) for payload in storm.started)
    assert bench.waiting() == {}
    assert_no_number_twice(records, RUNS)
    count(confirmed_runs_at_once_each_delivered_once=RUNS)
