"""Every call fails once: no crash, no hang, a status that is true, and what was accepted is never lost.

For each kind of run, each function that it calls, and each way in which that can go wrong, the first call goes
wrong, then the second, until a run passes untouched. The thousands of allocations of a handshake are tried in
part, unless FAULT_FULL=1."""

import os

import pytest

import bench as benches

FULL = os.environ.get("FAULT_FULL") == "1"
DEATHS = ["before", "after"]

WAYS = {
    "malloc": ["ENOMEM"],
    "calloc": ["ENOMEM"],
    "open": ["EACCES", "EIO", "EMFILE", "ENOMEM"],
    "openat": ["EACCES", "EIO", "EMFILE", "ENOSPC", "EROFS"],
    "read": ["EIO", "EINTR", "short"],
    "pread": ["EIO", "short"],
    "write": ["ENOSPC", "EIO", "EINTR", "EAGAIN", "short"],
    "pwrite": ["ENOSPC", "EIO", "EINTR", "short"],
    "getrandom": ["ENOSYS", "EINTR", "short"],
    "fsync": ["EIO", "ENOSPC", "EINTR"],
    "fchmod": ["EIO", "EPERM"],
    "flock": ["EAGAIN", "EINTR", "ENOLCK"],
    "fstat": ["EIO", "ENOMEM"],
    "stat": ["EACCES", "EIO"],
    "lstat": ["EACCES", "EIO"],
    "mkdir": ["ENOSPC", "EACCES", "EIO"],
    "rename": ["ENOSPC", "EIO", "EACCES"],
    "renameat": ["ENOSPC", "EIO", "EACCES"],
    "unlink": ["EIO", "EACCES", "EBUSY"],
    "unlinkat": ["EIO", "EACCES", "EBUSY"],
    "fdopendir": ["ENOMEM"],
    "readdir": ["EIO"],
    "close": ["EIO", "EINTR", "ENOSPC"],
    "eventfd": ["EMFILE", "ENOMEM"],
    "socket": ["EMFILE", "ENOMEM", "EACCES"],
    "bind": ["EADDRINUSE", "EACCES"],
    "connect": ["ENETUNREACH", "EACCES", "ENOMEM"],
    "send": ["EAGAIN", "EINTR", "ENOBUFS", "EPERM", "ECONNREFUSED"],
    "recv": ["EAGAIN", "EINTR", "ENOMEM", "ECONNREFUSED"],
}

# An entry that is unreadable for such a reason is set aside, and told.
UNREADABLE = {"openat": {"EACCES", "EIO"}, "fstat": {"EIO"}, "read": {"EIO"}}


class Plain:
    """A handshake, a payload."""

    options = []
    older = 0  # payloads that wait
    queued = False
    fresh = True  # makes a handshake with all its arithmetic
    source = "argument"
    new_directory = False

    def __init__(self, bench):
        self.bench = bench
        self.new = []
        self.old = []

    def prepare(self):
        """Before each run."""
        bench = self.bench
        self.new = [bench.payload() for _ in range({"argument": 1, "lines": 3, "none": 0}[self.source])]
        self.old = [bench.payload() for _ in range(self.older)]
        if self.new_directory:
            bench.reset()
        if not self.fresh:
            bench.ensure_session()
        for payload in self.old:
            bench.put_in_queue(payload)

    def run(self, fault, trace=None):
        """One run with that fault."""
        paths = {"SESSION": self.bench.session, "QUEUE": self.bench.queue}
        options = [paths.get(option, option) for option in self.options]
        if self.source == "lines":
            return self.bench.run(*options, fault=fault, trace=trace, stdin=b"".join(p + b"\n" for p in self.new))
        return self.bench.run(*options, *self.new, fault=fault, trace=trace)


class Repeat(Plain):
    """A datagram on the kept association."""
    options = ["--session", "SESSION", "--confirm"]
    fresh = False


class Resumed(Plain):
    """An abbreviated handshake."""
    options = ["--session", "SESSION"]
    fresh = False


class Queued(Plain):
    """Confirmed, while an older one waits."""
    options = ["--session", "SESSION", "--confirm", "--queue", "QUEUE"]
    older, queued, fresh = 1, True, False


class QueuedUnconfirmed(Queued):
    """With a handshake, and no answer needed."""
    options = ["--queue", "QUEUE"]
    fresh = True


class QueuedLines(Queued):
    """Several at once, over an abbreviated handshake."""
    options = ["--session", "SESSION", "--queue", "QUEUE", "--lines"]
    source = "lines"


class QueuedFirst(Queued):
    """The queue's directory is made."""
    older = 0
    new_directory = True


class Flush(Queued):
    """Two wait."""
    options = ["--session", "SESSION", "--confirm", "--queue", "QUEUE", "--flush"]
    older = 2
    source = "none"


KINDS = [Plain, Repeat, Resumed, Queued, QueuedUnconfirmed, QueuedLines, QueuedFirst, Flush]


def assert_nothing_half_written(bench, outcome):
    """Neither in the queue nor beside the session."""
    assert bench.strange_names() == [], outcome
    assert bench.temporary_sessions() == [], outcome


def assert_accounted_for(kind, outcome, killed):
    """What was accepted is at the server, or waits; what was not is neither here nor there."""
    bench = kind.bench
    waiting = list(bench.waiting().values())
    function, _, way = outcome.fault.split(":")
    aside = bench.set_aside()
    if aside:
        assert way in UNREADABLE.get(function, ()) and outcome.status == 65, outcome
    kept = waiting + aside
    for payload in kind.old:
        if payload not in kept:
            bench.wait_for(payload, outcome)
    refused = outcome.status in NOT_ACCEPTED and not aside
    for payload in kind.new:
        if killed:
            continue
        if refused:
            assert payload not in kept and not bench.has_arrived(payload), outcome
        elif payload not in kept and (kind.queued or outcome.status == 0):
            bench.wait_for(payload, outcome)
    return aside


NOT_ACCEPTED = benches.NOT_ACCEPTED


def strike(kind, fault):
    """One run that meets this fault, if it comes to pass, and a clean one that delivers what is left."""
    killed = fault.rsplit(":", 1)[1] in DEATHS
    kind.prepare()
    outcome = kind.run(fault)
    if killed and outcome.struck:
        assert outcome.status == -9, outcome
    else:
        outcome.assert_manners()
        assert_nothing_half_written(kind.bench, outcome)
    aside = assert_accounted_for(kind, outcome, killed and outcome.struck)
    kind.bench.flush(outcome)
    assert kind.bench.strange_names() in ([], [".new"] if killed else []), outcome
    if killed or aside:
        kind.bench.reset()
    return outcome


def numbers(function, kind):
    """Which calls are tried: all; or the first, and then ever fewer."""
    number = 1
    while True:
        yield number
        sparse = function in ("malloc", "calloc") and not FULL and number >= 150
        number += (73 if kind.fresh else 7) if sparse else 1


@pytest.mark.parametrize("function", WAYS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_call_fails_once(kind, function, bench, count):
    kind = kind(bench)
    ways = WAYS[function] + ([] if function in ("malloc", "calloc") else DEATHS)
    before = len(bench.arrived), sum(bench.arrived.values())
    bench.reset()
    points = kills = 0
    for number in numbers(function, kind):
        struck = [strike(kind, f"{function}:{number}:{way}") for way in ways]
        struck = [outcome for outcome in struck if outcome.struck]
        deaths = sum(outcome.status == -9 for outcome in struck)
        points, kills = points + len(struck) - deaths, kills + deaths
        if not struck:
            break
    bench.look()
    arrived, times = len(bench.arrived) - before[0], sum(bench.arrived.values()) - before[1]
    count(fault_points_passed=points, kills_survived=kills, payloads_delivered=arrived,
          duplicates=times - arrived)
