"""Ten thousand payloads in a queue or on standard input, and two hundred runs at once."""

import fcntl
import os
import subprocess
import time

import pytest

import client
import servers
from bench import FAULTS, Bench, write_private

MANY = 10000
FEW = 10
GROWTH = 200  # kB that so many more may cost; it is less than a byte for each
AT_ONCE = 200
PATIENCE = 300  # seconds: --timeout


@pytest.fixture(name="bench")
def fixture_bench(pki, tmp_path):
    """One that others have not filled."""
    with Bench(pki, tmp_path) as bench:
        bench.queue.mkdir(mode=0o700)
        yield bench


def fill(bench, number):
    """Puts so many into the queue, and returns them."""
    payloads = [bench.payload() for _ in range(number)]
    for position, payload in enumerate(payloads, 1):
        write_private(bench.queue / f"{position:016}", payload)
    return payloads


def measure(bench, *arguments, stdin=b""):
    """One run: its seconds, and its peak memory in kB."""
    peak = bench.directory / "peak"
    env = client.environment({"LD_PRELOAD": str(FAULTS), "FAULT_PEAK": str(peak)})
    started = time.monotonic()
    done = subprocess.run(bench.command(*arguments, timeout=PATIENCE), input=stdin, capture_output=True,
                          check=False, env=env, cwd=bench.directory)
    seconds = time.monotonic() - started
    assert done.returncode == 0 and done.stderr == b"", done
    return seconds, int(peak.read_text(encoding="ascii"))


def assert_each_once_in_order(bench, payloads):
    """As they were accepted."""
    bench.server.settle(patience=60)
    bench.look()
    assert list(bench.arrived.items()) == [(payload, 1) for payload in payloads]


@pytest.mark.parametrize("confirm", [["--confirm"], []], ids=["confirmed", "unconfirmed"])
def test_a_queue_of_any_length_is_flushed_in_order_and_costs_no_more_memory(confirm, bench, count):
    few = fill(bench, FEW)
    _, little = measure(bench, *confirm, "--queue", bench.queue, "--flush")
    many = fill(bench, MANY)
    seconds, much = measure(bench, *confirm, "--queue", bench.queue, "--flush")
    assert bench.waiting() == {}
    assert len(bench.server.events("handshake")) == 2
    assert_each_once_in_order(bench, few + many)
    what = "confirmed" if confirm else "unconfirmed"
    count(**{f"flush of {MANY}, {what}": f"{seconds:.1f} s, {MANY / seconds:.0f} a second, "
                                         f"peak {much} kB; of {FEW}: {little} kB"})
    # A sanitizer's allocator keeps what was freed.
    assert much - little < GROWTH or b"__asan_init" in client.PROGRAM.read_bytes()


def test_lines_without_end_arrive_in_order(bench, count):
    payloads = [bench.payload() for _ in range(MANY)]
    seconds, peak = measure(bench, "--lines", stdin=b"".join(payload + b"\n" for payload in payloads))
    assert_each_once_in_order(bench, payloads)
    count(**{f"{MANY} lines": f"{seconds:.1f} s, peak {peak} kB"})


def test_lines_are_all_accepted_before_the_first_is_sent_and_arrive_in_order(bench, count):
    payloads = [bench.payload() for _ in range(MANY // 10)]
    seconds, peak = measure(bench, "--confirm", "--queue", bench.queue, "--lines",
                            stdin=b"".join(payload + b"\n" for payload in payloads))
    assert_each_once_in_order(bench, payloads)
    assert bench.waiting() == {}
    count(**{f"{MANY // 10} lines through the queue": f"{seconds:.1f} s, peak {peak} kB"})


def test_two_hundred_runs_at_once_deliver_in_the_order_of_acceptance(bench, count):
    """We keep the turn until all have been accepted, so that the order is known."""
    payloads = [bench.payload() for _ in range(AT_ONCE)]
    turn = os.open(bench.queue, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(turn, fcntl.LOCK_EX)
    options = ["--confirm", "--session", bench.session, "--queue", bench.queue]
    runs = [subprocess.Popen(bench.command(*options, payload, timeout=PATIENCE), stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=client.environment(),
                             cwd=bench.directory) for payload in payloads]
    try:
        servers.wait_until(lambda: len(bench.waiting()) == AT_ONCE, "all of them accepted", patience=60)
        accepted = list(bench.waiting().values())
        started = time.monotonic()
        os.close(turn)
        ends = [(run.communicate(timeout=PATIENCE)[1], run.returncode) for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert ends == [(b"", 0)] * AT_ONCE
    assert sorted(accepted) == sorted(payloads)
    assert_each_once_in_order(bench, accepted)
    assert bench.waiting() == {}
    count(**{f"{AT_ONCE} runs that wait for one turn": f"{time.monotonic() - started:.1f} s"})
