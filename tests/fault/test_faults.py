"""Every call fails once: no crash, no hang, a status that is true, and what was accepted is never lost.

For each kind of run, each function that it calls, and each way in which that can go wrong, the first call goes
wrong, then the second, until a run passes untouched; alone, and with all that follow. The thousands of
allocations of a handshake are tried in part, unless FAULT_FULL=1."""

import os

import pytest

from bench import FAULTS, STATUSES

FULL = os.environ.get("FAULT_FULL") == "1"
DEATHS = ["before", "after"]
DENSE = 150  # so many allocations are all tried
PASSING = ["short", "EINTR", "EAGAIN"]  # what nothing but a test does twice

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
    "fstatfs": ["ENOSYS", "EIO"],
    "ftruncate": ["EIO", "EPERM"],
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
    bench_name = "bench"

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

    def run(self, fault):
        """One run with that fault."""
        paths = {"SESSION": self.bench.session, "QUEUE": self.bench.queue}
        options = [paths.get(option, option) for option in self.options]
        if self.source == "lines":
            return self.bench.run(*options, fault=fault, stdin=b"".join(p + b"\n" for p in self.new))
        return self.bench.run(*options, *self.new, fault=fault)


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


class QueuedCoaps(Queued):
    """Confirmed by the response to a CoAP message."""
    options = ["--session", "SESSION", "--queue", "QUEUE"]
    bench_name = "coaps_bench"


KINDS = [Plain, Repeat, Resumed, Queued, QueuedUnconfirmed, QueuedLines, QueuedFirst, Flush, QueuedCoaps]


def assert_nothing_half_written(bench, outcome):
    """Neither in the queue nor beside the session; unless there is no way to remove it."""
    if outcome.fault.startswith("unlink") and "+" in outcome.fault:
        return
    assert bench.strange_names() == [], outcome
    assert bench.temporary_sessions() == [], outcome


def assert_true(kind, outcome):
    """What is not certainly on the disk is not accepted, and what is called delivered does not wait."""
    function, _, detail = (outcome.befell.rstrip("\n").split(" ", 2) + ["", ""])[:3]
    on_the_way = detail.endswith(".new") and function != "unlinkat"
    directory_synced = function == "fsync" and detail.endswith("/queue")
    if (on_the_way or directory_synced) and outcome.fault.rsplit(":", 1)[1] not in ("EINTR", "short"):
        assert outcome.status == 73, outcome
    if outcome.status == 0:
        assert kind.bench.waiting() == {}, outcome


def assert_accounted_for(kind, outcome, killed):
    """What was accepted is at the server, or waits; what was not is neither here nor there."""
    bench = kind.bench
    waiting = list(bench.waiting().values())
    function, _, way = outcome.fault.split(":")
    aside = bench.set_aside()
    if aside:
        assert way in UNREADABLE.get(function, ()), outcome
        assert outcome.status == 65 or "+" in outcome.fault, outcome
    kept = waiting + aside
    for payload in kind.old:
        if payload not in kept:
            bench.wait_for(payload, outcome)
    if not killed:
        set_aside = outcome.status == 65 and way in UNREADABLE.get(function, ())
        assert_new_ones_accounted_for(kind, outcome, kept, outcome.refused and not set_aside)
    return aside


def assert_new_ones_accounted_for(kind, outcome, kept, refused):
    """Accepted, all of them, or refused; of lines those before the one that was refused are accepted."""
    bench = kind.bench
    accepted = kind.new
    if refused:
        known = [payload in kept or bench.has_arrived(payload) for payload in kind.new]
        accepted = kind.new[:known.count(True)] if kind.source == "lines" else []
        assert known == sorted(known, reverse=True) and sum(known) == len(accepted), outcome
    for payload in accepted:
        if payload not in kept and (kind.queued or outcome.status == 0):
            bench.wait_for(payload, outcome)


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
        assert_true(kind, outcome)
    aside = assert_accounted_for(kind, outcome, killed and outcome.struck)
    if outcome.status != 0 and (kind.fresh or not kind.bench.session.exists()):
        kind.bench.forget()
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
        sparse = function in ("malloc", "calloc") and not FULL and number >= DENSE
        number += (101 if kind.fresh else 3) if sparse else 1


@pytest.mark.parametrize("function", WAYS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_every_call_fails(lasting, kind, function, request, count):
    bench = request.getfixturevalue(kind.bench_name)
    kind = kind(bench)
    ways = [way for way in WAYS[function] if not lasting or way not in PASSING]
    if not lasting and function not in ("malloc", "calloc"):
        ways = ways + DEATHS
    bench.reset()
    before = len(bench.arrived), sum(bench.arrived.values())
    points = kills = 0
    for number in numbers(function, kind):
        outcomes = [strike(kind, f"{function}:{number}{'+' if lasting else ''}:{way}") for way in ways]
        struck = [outcome for outcome in outcomes if outcome.struck]
        deaths = sum(outcome.status == -9 for outcome in struck)
        points, kills = points + len(struck) - deaths, kills + deaths
        if not struck:
            break
    bench.look()
    arrived, times = len(bench.arrived) - before[0], sum(bench.arrived.values()) - before[1]
    count(fault_points_passed=points, kills_survived=kills, payloads_delivered=arrived,
          duplicates=times - arrived)


@pytest.mark.parametrize("function", WAYS)
def test_no_function_goes_by_unseen(function, bench):
    """A library that no longer catches a call, as by a new name of it, would have all of the above pass."""
    bench.reset()
    assert any(strike(kind(bench), f"{function}:1:{WAYS[function][0]}").struck for kind in (QueuedFirst, Repeat))


@pytest.mark.parametrize("certificate", ["server-wrong-ca", "server-other-name", "server-expired",
                                         "server-client-auth"])
def test_no_fault_makes_a_server_trusted(certificate, inboxd, send, count):
    """A check that could not be made is not a check that was passed."""
    server = inboxd(certificate=certificate)
    points = 0
    for function in ("malloc", "calloc", "getrandom", "read", "recv"):
        for number in numbers(function, Plain):
            fault = f"{function}:{number}:{WAYS[function][0]}"
            note = server.state.parent / "note"
            result = send(server, "x", env={"LD_PRELOAD": str(FAULTS), "FAULT": fault, "FAULT_NOTE": str(note)})
            assert result.status in STATUSES - {0}, (fault, result)
            if not note.exists():
                break
            note.unlink()
            points += 1
    server.assert_received_nothing()
    count(fault_points_passed=points)
