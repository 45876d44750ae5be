"""--queue, --queue-limit, --flush, --splay: what was accepted is never lost, and is sent in order."""

import contextlib
import fcntl
import os
import re
import resource
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import client
from client import SLOWNESS, answering_names, assert_fails, assert_one_line, assert_silent_success
from servers import Relay, state_of, wait_until

ALL_BYTES = bytes(range(256))
NOBODY = 65534
NOTHING = {".last"}  # what an empty queue holds


class Queue:
    """The directory, as someone sees it who looks in from outside."""

    def __init__(self, path):
        self.path = path

    def entries(self):
        """All names."""
        return set(os.listdir(self.path)) if self.path.exists() else set()

    def names(self):
        """Those of the payloads that wait, in order."""
        return sorted(name for name in self.entries() if re.fullmatch("[0-9]{16}c?(-[0-9]+)?", name))

    def waiting(self):
        """The payloads that wait, in order."""
        return [(self.path / name).read_bytes() for name in self.names()]

    def wait_for(self, *payloads):
        """Waits until these wait."""
        wait_until(lambda: len(self.names()) >= len(payloads), f"{len(payloads)} payloads in the queue")
        assert self.waiting() == list(payloads)

    def failed(self):
        """The names of what was set aside."""
        failed = self.path / "failed"
        return sorted(os.listdir(failed)) if failed.exists() else []

    @contextlib.contextmanager
    def turn(self):
        """Has the turn to send, as another run would."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


@pytest.fixture(name="queue")
def fixture_queue(tmp_path):
    """The test's own; not made yet."""
    return Queue(tmp_path / "queue")


@pytest.fixture(name="later")
def fixture_later(send, refused):
    """Payloads that were accepted by runs that could not send them."""
    def later(*payloads):
        for payload in payloads:
            result = send(refused, "--queue", "queue", "--", payload)
            assert_fails(result, 69)
    return later


@pytest.fixture(name="flush")
def fixture_flush(send):
    """flush(server, ...) sends what waits."""
    def flush(server, *arguments, **options):
        return send(server, "--wait", "0", "--queue", "queue", "--flush", *arguments, **options)
    return flush


# --- What accepted means ---

@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_accepted_means_on_the_disk_before_the_network_is_touched(begin, black_hole, queue, umask):
    begin(black_hole, "--queue", "queue", ALL_BYTES[1:], preexec_fn=lambda: os.umask(umask))
    black_hole.wait_for_datagram()
    assert queue.waiting() == [ALL_BYTES[1:]]
    assert queue.entries() == {*queue.names(), ".last"}
    assert stat.S_IMODE(queue.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((queue.path / queue.names()[0]).stat().st_mode) == 0o600


@pytest.mark.parametrize("arguments, stdin, payloads", [
    ([""], None, [b""]),
    (["--", "-5"], None, [b"-5"]),
    (["--hex", "00 01 ff"], None, [b"\0\1\xff"]),
    (["--file", "-"], ALL_BYTES * 64, [ALL_BYTES * 64]),
    (["--lines"], b"one\n\nthree", [b"one", b"", b"three"])],
    ids=["empty", "argument", "hex", "largest", "lines"])
def test_every_payload_waits_byte_for_byte_and_arrives_so(send, refused, inboxd, flush, queue, arguments, stdin,
                                                         payloads):
    assert_fails(send(refused, "--queue", "queue", *arguments, stdin=stdin), 69, "refused")
    assert queue.waiting() == payloads
    server = inboxd()
    assert_silent_success(flush(server))
    server.wait_for_payloads(*payloads)
    assert queue.entries() == NOTHING


@pytest.mark.parametrize("made_by", ["this run", "another, which died"])
def test_file_and_names_are_synced_before_there_is_a_socket(begin, refused, queue, tmp_path, made_by):
    """As the kernel sees it."""
    if made_by != "this run":
        queue.path.mkdir(mode=0o700)
    strace = shutil.which("strace")
    if strace is None or client.WRAPPER:
        pytest.skip("needs strace, and no wrapper")
    trace = tmp_path / "trace"
    watched = "trace=openat,fsync,rename,renameat,renameat2,socket,write,unlinkat"
    words = [strace, "-f", "-y", "-e", watched, "-o", str(trace), str(client.PROGRAM)]
    program = tmp_path / "traced"
    program.write_text(f"#!/bin/sh\nexec {shlex.join(words)} \"$@\"\n", encoding="utf-8")
    program.chmod(0o755)
    result = begin(refused, "--queue", "queue", "bytes", program=program,
                   env={"ASAN_OPTIONS": "detect_leaks=0"}).finish()  # there is but one tracer
    if "PTRACE" in result.stderr:
        pytest.skip(result.stderr)
    assert_fails(result, 69)
    directory = re.escape(f"<{tmp_path}/queue>")
    steps = [rf"openat\(\d+{directory}, \"\.new\", \S*O_CREAT\|O_EXCL", r"write\(\d+<\S*/\.new>, \"bytes\", 5\)",
             r"fsync\(\d+<\S*/\.new>\) += 0", r"renameat2?\(.*\"\.new\", .*\"0{15}1\".* = 0",
             rf"fsync\(\d+{directory}\) += 0", r"socket\(AF_INET"]
    lines = trace.read_text(encoding="utf-8", errors="replace")
    position = 0
    for step in steps:
        found = re.compile(step).search(lines, position)
        assert found, f"no {step} in its place in {lines}"
        position = found.end()
    assert lines.index("socket(AF_INET") >= found.start()
    assert re.search(rf"fsync\(\d+{re.escape(f'<{tmp_path}>')}\) += 0", lines), "the new directory's own name"


def miss_the_name(send, _request, queue):
    """68"""
    return send("nobody.test:1234", *queue, env=answering_names("none"))


def find_nobody(send, request, queue):
    """69"""
    return send(request.getfixturevalue("refused"), *queue)


def write_to_a_full_disk(send, request, queue):
    """74"""
    with open("/dev/full", "wb") as full:
        return send(request.getfixturevalue("black_hole"), *queue, stdout=full)


def have_no_output(send, request, queue):
    """74"""
    return send(request.getfixturevalue("black_hole"), *queue, preexec_fn=lambda: os.close(1))


def hear_nothing(send, request, queue):
    """75"""
    return send(request.getfixturevalue("black_hole"), *queue, timeout=0.3)


def get_no_confirmation(send, request, queue):
    """75"""
    return send(request.getfixturevalue("inboxd")(), "--confirm", *queue, timeout=1.5)


def meet_an_old_server(send, request, queue):
    """76"""
    return send(request.getfixturevalue("openssl")("-cipher", "ECDHE-ECDSA-AES128-SHA"), *queue)


def meet_a_stranger(send, request, queue):
    """77"""
    return send(request.getfixturevalue("openssl")(certificate="server-wrong-ca"), *queue)


def be_a_stranger(_send, request, queue):
    """77"""
    pki = request.getfixturevalue("pki")
    return request.getfixturevalue("run")(
        "--server", request.getfixturevalue("inboxd")().address, "--cert", pki.bundle("device-unknown"),
        "--key", pki.key("device-unknown"), "--ca", pki.leaf("root"), *queue)


def have_no_certificate(_send, request, queue):
    """78"""
    return request.getfixturevalue("run")("--server", request.getfixturevalue("black_hole").address, *queue)


LEAVE_IT = [miss_the_name, find_nobody, write_to_a_full_disk, have_no_output, hear_nothing,
            get_no_confirmation, meet_an_old_server, meet_a_stranger, be_a_stranger, have_no_certificate]


@pytest.mark.parametrize("fail", LEAVE_IT, ids=lambda fail: f"{fail.__doc__} {fail.__name__}")
def test_after_any_other_failure_it_waits(send, request, queue, fail):
    result = fail(send, request, ["--queue", "queue", "--", "payload"])
    assert_fails(result, int(fail.__doc__))
    assert queue.waiting() == [b"payload"]
    assert queue.entries() == {*queue.names(), ".last"}


@pytest.mark.parametrize("status, arguments", [
    (64, ["--wait", "soon", "x"]), (64, ["--session", "key.pem", "--key", "key.pem", "x"]),
    (64, ["--flush", "x"]), (64, []),
    (65, ["x" * 16385]), (65, ["--hex", "0"]),
    (66, ["--file", "missing"]),
    (73, ["--queue-limit", "1", "x"])])
def test_statuses_64_65_66_and_73_do_not_accept(run, refused, later, queue, tmp_path, status, arguments):
    """And are one line, though what waits cannot be sent either."""
    later("old")
    (tmp_path / "key.pem").write_bytes(b"a key")
    result = run("--server", refused.address, "--queue", "queue", *arguments)
    assert_fails(result, status)
    assert queue.waiting() == [b"old"]
    assert queue.entries() == {*queue.names(), ".last"}


@pytest.mark.parametrize("status, arguments", [
    (65, ["x" * 16385]), (65, ["--hex", "0"]), (66, ["--file", "missing"]), (66, ["--file", "."]),
    (66, ["--lines"]), (65, ["--lines", "--hex"])], ids=lambda value: str(value)[:20])
def test_what_waits_is_sent_though_no_payload_was_accepted(send, inboxd, later, queue, status, arguments):
    """Where a sensor is broken, what it measured before is not."""
    later("one", "two")
    server = inboxd()
    stdin = b"" if status == 66 else b"xx\n"
    assert_fails(send(server, "--wait", "0", "--queue", "queue", *arguments, stdin=stdin), status)
    server.wait_for_payloads(b"one", b"two")
    assert queue.entries() == NOTHING


# --- What is sent, and in which order ---

def test_what_waits_goes_first_the_oldest_before_all_and_is_then_gone(send, later, server, queue):
    later("one", "two")
    assert send(server, "--wait", "0", "--queue", "queue", "three").status == 0
    server.wait_for_payloads(b"one", b"two", b"three")
    assert queue.entries() == NOTHING


def test_order_outlives_a_counter_that_is_lost(later, inboxd, flush, queue):
    counter = queue.path / ".last"
    damages = [counter.unlink, lambda: os.truncate(counter, 0), lambda: os.truncate(counter, 3),
               lambda: counter.write_bytes(b"garbage, and more of it"), lambda: counter.write_bytes(bytes(8)),
               lambda: counter.write_bytes(b"\xff" * 8)]
    server = inboxd()
    expected = []
    for number, damage in enumerate(damages):
        later(f"old {number}", f"older {number}")
        damage()
        later(f"new {number}")
        assert_silent_success(flush(server))
        expected += [b"old %d" % number, b"older %d" % number, b"new %d" % number]
    server.wait_for_payloads(*expected)
    assert queue.entries() == NOTHING


def test_ten_come_before_the_eleventh(send, inboxd, later, queue):
    server = inboxd()
    later(*[str(number) for number in range(10)])
    assert queue.names() == [f"{number:016}" for number in range(1, 11)]
    assert_silent_success(send(server, "--wait", "0", "--queue", "queue/", "10"))
    server.wait_for_payloads(*[b"%d" % number for number in range(11)])
    assert len(server.events("handshake")) == 1


@pytest.mark.smoke
def test_with_confirm_each_is_confirmed_and_gone(send, inboxd, later, queue):
    server = inboxd("--reply", "ack")
    later("one", "two")
    assert_silent_success(send(server, "--wait", "0", "--confirm", "--queue", "queue", "three"),
                          b"ack\nack\nack\n")
    server.wait_for_payloads(b"one", b"two", b"three")
    assert queue.entries() == NOTHING


def test_what_is_not_confirmed_waits_with_all_behind_it(flush, inboxd, later, queue):
    server = inboxd("--drop-uplinks", "1000")
    later("one", "two")
    assert_fails(flush(server, "--confirm", timeout=1.5), 75, "not confirmed")
    assert queue.waiting() == [b"one", b"two"]


def test_what_is_confirmed_is_gone_though_what_follows_fails(send, inboxd, later, queue):
    server = inboxd()
    server.queue(b"the only answer")
    later("one", "two")
    result = send(server, "--confirm", "--queue", "queue", "three", timeout=1.5)
    assert result.status == 75 and result.stdout == b"the only answer\n", result
    assert queue.waiting() == [b"two", b"three"]


def test_downlinks_of_what_waited_are_printed(send, inboxd, later):
    server = inboxd()
    server.queue(b"down")
    later("one")
    assert_silent_success(send(server, "--wait", "0.5", "--queue", "queue", "two"), b"down\n")


def test_a_kept_session_serves_the_queue_too(send, inboxd, later, queue, run_dir):
    server = inboxd("--reply", "ack")
    arguments = ["--session", run_dir / "session", "--confirm", "--wait", "0", "-v", "--queue", "queue"]
    assert send(server, *arguments, "one").status == 0
    later("two")
    result = send(server, *arguments, "three")
    assert result.status == 0 and re.search(r"association with \S+ reused", result.stderr), result
    server.wait_for_payloads(b"one", b"two", b"three")
    assert len(server.events("handshake")) == 1
    assert queue.entries() == NOTHING


# --- What was accepted to be confirmed ---

@pytest.fixture(name="to_confirm")
def fixture_to_confirm(send, refused):
    """Payloads that were accepted with --confirm by runs that could not send them."""
    def to_confirm(*payloads):
        for payload in payloads:
            result = send(refused, "--confirm", "--queue", "queue", "--", payload, timeout=0.3)
            assert_fails(result, 69, "the payload waits in the queue")
    return to_confirm


def test_a_flush_without_confirm_sends_what_is_to_be_confirmed_until_it_is(flush, inboxd, later, to_confirm,
                                                                           queue):
    later("once")
    to_confirm("one", "two")
    server = inboxd("--reply", "ack", "--drop-uplinks", "2")
    assert_silent_success(flush(server), b"ack\nack\n")
    server.wait_for_payloads(b"one", b"two")  # and what is sent once was dropped
    assert queue.entries() == NOTHING


def test_a_flush_without_confirm_keeps_what_is_not_confirmed(flush, inboxd, to_confirm, queue):
    to_confirm("one")
    assert_fails(flush(inboxd(), timeout=1), 75, "not confirmed", "the payload waits in the queue")
    assert queue.waiting() == [b"one"]


def test_who_waits_behind_a_flush_does_not_take_its_word_for_a_confirmation(begin, inboxd, queue):
    server = inboxd()  # confirms nothing
    queue.path.mkdir(mode=0o700)
    with queue.turn():
        running = begin(server, "--confirm", "--queue", "queue", "x", timeout=2)
        queue.wait_for(b"x")
        flushing = begin(server, "--queue", "queue", "--flush", timeout=2)
        time.sleep(0.2 * SLOWNESS)  # so that it waits too
    assert [running.finish().status, flushing.finish().status] == [75, 75]
    assert queue.waiting() == [b"x"]


# --- What is never answered ---

LARGE = b"x" * 200


def assert_fails_but_prints(result, status, stdout, *words):
    """As assert_fails() has it, but for a downlink."""
    assert (result.status, result.stdout) == (status, stdout), result
    assert_one_line(result, *words)


def is_protected(datagram):
    """Whether it is sent under keys: a payload, or, with a connection id, anything."""
    return datagram[0] in (23, 25)


class Swallower(Relay):
    """Swallows what is larger than any small payload."""

    def passes(self, _client):
        return not (is_protected(self.up[-1]) and len(self.up[-1]) > len(LARGE))


class Latecomer(Relay):
    """Returns the answer to a large payload when a small one comes, which it swallows."""

    def __init__(self, server):
        self._late, self._is_awaited = None, False
        super().__init__(server)

    def passes(self, client):
        if not is_protected(self.up[-1]):
            return True
        if len(self.up[-1]) > len(LARGE):
            self._is_awaited = True
            return True
        if self._late is None:
            return True
        self._near.sendto(self._late, client)
        return False

    def returns(self, datagram):
        if not self._is_awaited or not is_protected(datagram):
            return True
        self._late = self._late or datagram
        return False


def test_a_payload_that_is_never_answered_does_not_block_the_rest(send, inboxd, peers, to_confirm, queue):
    to_confirm(LARGE)
    server = inboxd("--reply", "ack")
    between = peers.enter_context(Swallower(server))
    arguments = ["--confirm", "--wait", "0", "--queue", "queue"]
    # Nobody knows yet that it is the payload.
    result = send(between, *arguments, "first", timeout=1)
    assert result.status == 75 and queue.waiting() == [LARGE, b"first"], result
    for number in range(1, 10):
        result = send(between, *arguments, f"{number}", timeout=2)
        delivered = 2 if number == 1 else 1  # the first time, what waited behind it too
        assert_fails_but_prints(result, 75, b"ack\n" * delivered, "not confirmed",
                                f"{delivered} of {delivered + 1} payloads w")
        assert queue.waiting() == [LARGE], number
    assert queue.failed() == []
    name = queue.names()[0].rpartition("-")[0]
    result = send(between, *arguments, "last", timeout=2)
    assert_fails_but_prints(result, 65, b"ack\n", f"queue/{name}", "moved to failed", "10 runs")
    assert queue.waiting() == [] and len(queue.failed()) == 1
    assert_silent_success(send(between, *arguments, "next"), b"ack\n")
    server.wait_for_payloads(b"first", *[b"%d" % number for number in range(1, 10)], b"last", b"next")


def test_the_late_answer_to_a_payload_that_was_given_up_confirms_no_other(send, inboxd, peers, to_confirm,
                                                                          queue):
    to_confirm(LARGE)
    server = inboxd("--reply", "ack")
    between = peers.enter_context(Swallower(server))
    assert send(between, "--confirm", "--queue", "queue", "--flush", timeout=1).status == 75
    between = peers.enter_context(Latecomer(server))
    result = send(between, "--confirm", "--wait", "0", "--queue", "queue", "small", timeout=3)
    assert result.status == 75, result
    server.settle()
    assert b"small" in queue.waiting() + server.received()


def test_where_nothing_is_confirmed_nothing_is_given_up_and_the_way_out_is_told(send, inboxd, to_confirm,
                                                                              queue):
    to_confirm("one", "two")
    server = inboxd()
    for _ in range(12):
        result = send(server, "--confirm", "--queue", "queue", "--flush", timeout=0.4)
        assert result.status == 75, result
        assert "leave --confirm out, or use coaps" in result.stderr, result
    assert queue.waiting() == [b"one", b"two"] and queue.failed() == []


# --- What became of the payload is told ---

@pytest.mark.parametrize("source", [["--file", "-"], ["--lines"]], ids=["file", "lines"])
@pytest.mark.parametrize("number, status", [(None, 75), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_payload_that_was_not_read_to_its_end_was_not_accepted(begin, black_hole, queue, number, status,
                                                                 source):
    running = begin(black_hole, *source, "--queue", "queue", stdin=subprocess.PIPE,
                    timeout=0.5 if number is None else 10)
    running.process.stdin.write(b"half a pay")
    running.process.stdin.flush()
    if number is not None:
        wait_until(lambda: queue.path.exists() and state_of(running.pid) == "S", "reading")
        running.send_signal(number)
    running.process.wait(20 * SLOWNESS)
    assert_fails(running.finish(), status, ("the payload was not accepted", "no payload was accepted"))
    assert queue.waiting() == []
    black_hole.assert_received_nothing()


@pytest.mark.parametrize("fail", LEAVE_IT, ids=lambda fail: f"{fail.__doc__} {fail.__name__}")
def test_every_failure_says_that_the_payload_waits(send, request, fail):
    result = fail(send, request, ["--queue", "queue", "--", "payload"])
    assert_fails(result, int(fail.__doc__), "; the payload waits in the queue")


# --- --lines ---

def test_all_lines_are_accepted_before_the_first_is_sent(begin, inboxd, queue):
    server = inboxd()
    running = begin(server, "--wait", "0", "--lines", "--queue", "queue", stdin=subprocess.PIPE)
    running.process.stdin.write(b"one\ntwo\n")
    running.process.stdin.flush()
    queue.wait_for(b"one", b"two")
    assert running.running()
    server.assert_received_nothing()
    assert not server.events("handshake")
    assert_silent_success(running.finish(b"three\n"))
    server.wait_for_payloads(b"one", b"two", b"three")
    assert queue.entries() == NOTHING


def test_a_line_that_is_refused_is_told_and_the_rest_goes(send, inboxd, queue):
    server = inboxd()
    result = send(server, "--wait", "0", "--lines", "--hex", "--queue", "queue", stdin=b"01\nxx\n02\n")
    assert_fails(result, 65, "line 2")
    server.wait_for_payloads(b"\1", b"\2")
    assert queue.entries() == NOTHING


def test_lines_that_came_until_the_timeout_wait(begin, black_hole, queue):
    running = begin(black_hole, "--lines", "--queue", "queue", stdin=subprocess.PIPE, timeout=1)
    running.process.stdin.write(b"one\ntwo\nunfinished")
    running.process.stdin.flush()
    running.process.wait(20 * SLOWNESS)
    assert_fails(running.finish(), 75, "--timeout", "2 payloads wait in the queue", "the rest was not accepted")
    assert queue.waiting() == [b"one", b"two"]
    black_hole.assert_received_nothing()


def test_lines_that_came_until_a_signal_wait(begin, black_hole, queue):
    running = begin(black_hole, "--lines", "--queue", "queue", stdin=subprocess.PIPE)
    running.process.stdin.write(b"one\ntwo\nunfinished")
    running.process.stdin.flush()
    queue.wait_for(b"one", b"two")
    running.send_signal(signal.SIGTERM)
    assert_fails(running.finish(), 143, "signal")
    assert queue.waiting() == [b"one", b"two"]
    black_hole.assert_received_nothing()


# --- One sender at a time ---

def test_a_run_waits_for_its_turn_and_then_sends(begin, inboxd, later, queue):
    server = inboxd()
    later("one")
    with queue.turn():
        running = begin(server, "--wait", "0", "--queue", "queue", "two")
        queue.wait_for(b"one", b"two")
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.3)
        assert not server.events("handshake")
    assert_silent_success(running.finish())
    server.wait_for_payloads(b"one", b"two")
    assert queue.entries() == NOTHING


def test_a_turn_that_does_not_come_before_the_timeout_leaves_it_waiting(send, black_hole, later, queue):
    later("one")
    with queue.turn():
        result = send(black_hole, "--queue", "queue", "two", timeout=0.5)
    assert_fails(result, 75, "another run is sending", "queue")
    assert result.seconds >= 0.5
    assert queue.waiting() == [b"one", b"two"]
    black_hole.assert_received_nothing()


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_for_the_turn(begin, black_hole, later, queue, number, status):
    later("one")
    with queue.turn():
        running = begin(black_hole, "--queue", "queue", "two")
        queue.wait_for(b"one", b"two")
        running.send_signal(number)
        assert_fails(running.finish(limit=5), status)
    assert queue.waiting() == [b"one", b"two"]
    black_hole.assert_received_nothing()


def test_a_run_whose_payload_another_has_sent_meanwhile_has_nothing_to_do(begin, flush, inboxd, queue,
                                                                         later):
    later("one")
    server = inboxd()
    with queue.turn():
        running = begin(server, "--wait", "0", "--queue", "queue", "two")
        queue.wait_for(b"one", b"two")
        for name in queue.names():
            (queue.path / name).unlink()
    assert_silent_success(running.finish())
    assert_silent_success(flush(server))
    server.assert_received_nothing()
    assert not server.events("handshake")


def test_of_many_runs_at_once_each_payload_arrives_once_and_in_its_runs_order(begin, inboxd, queue):
    server = inboxd("--reply", "ack")
    runs = []
    for number in range(16):
        runs.append(begin(server, "--wait", "0", "--confirm", "--queue", "queue", "--lines",
                          stdin=subprocess.PIPE, timeout=20))
        runs[-1].process.stdin.write(b"".join(b"%d.%d\n" % (number, line) for line in range(3)))
        runs[-1].process.stdin.close()
        runs[-1].process.stdin = None
    for running in runs:
        result = running.finish()
        assert result.status == 0 and result.stderr == "", result
    server.settle()
    # A busy machine may make for a retransmission, which is next to the first.
    received = [payload for payload, before in zip(server.received(), [None, *server.received()])
                if payload != before]
    for number in range(16):
        assert [payload for payload in received if payload.startswith(b"%d." % number)] == \
            [b"%d.%d" % (number, line) for line in range(3)]
    assert len(received) == 16 * 3
    assert queue.entries() == NOTHING


# --- --queue-limit ---

@pytest.mark.smoke
def test_a_full_queue_refuses_the_new_and_sends_what_waits(send, inboxd, later, queue):
    server = inboxd()
    later("one", "two")
    result = send(server, "--wait", "0", "--queue", "queue", "--queue-limit", "2", "three")
    assert_fails(result, 73, "full", "queue")
    server.wait_for_payloads(b"one", b"two")
    assert queue.entries() == NOTHING
    assert_silent_success(send(server, "--wait", "0", "--queue", "queue", "--queue-limit", "1", "three"))


def test_a_full_queue_is_one_line_though_the_server_is_away_too(send, refused, black_hole, later, queue):
    later("one", "two")
    assert_fails(send(refused, "--queue", "queue", "--queue-limit", "2", "three"), 73, "full")
    assert_fails(send(black_hole, "--queue", "queue", "--queue-limit", "2", "three", timeout=0.3), 73, "full")
    assert queue.waiting() == [b"one", b"two"]


def test_of_lines_a_queue_accepts_those_for_which_there_is_room(send, inboxd, later, queue):
    later("zero")
    server = inboxd()
    result = send(server, "--wait", "0", "--queue", "queue", "--queue-limit", "3", "--lines",
                  stdin=b"one\ntwo\nthree\nfour\n")
    assert_fails(result, 73, "full")
    server.wait_for_payloads(b"zero", b"one", b"two")
    assert queue.entries() == NOTHING


def test_many_runs_at_once_never_exceed_the_limit(begin, refused, queue):
    runs = [begin(refused, "--queue", "queue", "--queue-limit", "5", str(number)) for number in range(20)]
    results = [running.finish() for running in runs]
    accepted = [result for result in results if result.status == 69]
    assert sorted(result.status for result in results) == [69] * 5 + [73] * 15, results
    assert sorted(queue.waiting()) == sorted(result.arguments[-1] for result in accepted)
    for result in results:
        assert_one_line(result)


# --- --flush ---

def test_a_flush_where_nothing_waits_does_nothing(run, black_hole, queue):
    for _ in range(2):  # the directory is missing, then empty
        result = run("--server", black_hole.address, "--cert", "none", "--key", "none", "--queue", "queue",
                     "--flush")
        assert_silent_success(result)
        assert queue.entries() <= NOTHING
    black_hole.assert_received_nothing()


def test_a_flush_sends_all_that_waits_and_nothing_twice(flush, later, server, queue):
    later("one", "two", "three")
    assert flush(server).status == 0
    server.wait_for_payloads(b"one", b"two", b"three")
    assert queue.entries() == NOTHING
    assert_silent_success(flush(server))
    server.wait_for_payloads(b"one", b"two", b"three")


def test_a_flush_does_not_send_what_was_added_after_its_turn_came(begin, send, refused, inboxd, later, queue):
    """Or it might go on for ever."""
    server = inboxd("--reply", "ack", "--drop-uplinks", "1")  # so that its first payload takes a while
    later("one", "two")
    running = begin(server, "--wait", "0", "--confirm", "--queue", "queue", "--flush")
    server.wait_for_event("handshake")
    assert send(refused, "--queue", "queue", "late", timeout=0.1).status in (69, 75)
    result = running.finish()
    assert_silent_success(result, b"ack\nack\n")
    assert queue.waiting() == [b"late"]


@pytest.mark.parametrize("arguments, words", [
    (["--flush"], ["--queue"]),
    (["--queue", "queue", "--flush", "x"], ["--flush", "PAYLOAD"]),
    (["--queue", "queue", "--flush", "--lines"], ["--flush", "--lines"]),
    (["--queue", "queue", "--flush", "--file", "x"], ["--flush", "--file"]),
    (["--queue", "queue"], ["payload"]),
    (["--queue", "", "x"], ["--queue"]),
    (["--queue", "queue", "--queue-limit", "0", "x"], ["--queue-limit"]),
    (["--splay", "-1", "x"], ["--splay"]),
    (["--splay", "soon", "x"], ["--splay"])])
def test_what_makes_no_sense_is_a_usage_error(send, black_hole, queue, arguments, words):
    assert_fails(send(black_hole, *arguments), 64, *words)
    assert not queue.path.exists()
    black_hole.assert_received_nothing()


# --- What lies in the queue and should not ---

def plant_directory(entry, _tmp_path):
    """A directory."""
    entry.mkdir(mode=0o700)


def plant_link(entry, tmp_path):
    """A symbolic link to a secret that we can read."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret").chmod(0o600)
    entry.symlink_to(tmp_path / "secret")


def plant_dangling_link(entry, _tmp_path):
    """A symbolic link to nothing."""
    entry.symlink_to("nowhere")


def plant_fifo(entry, _tmp_path):
    """A FIFO without a writer."""
    os.mkfifo(entry, 0o600)


def plant_public(entry, _tmp_path):
    """What others can read."""
    entry.write_bytes(b"secret")
    entry.chmod(0o644)


def plant_unreadable(entry, _tmp_path):
    """What nobody can read."""
    entry.write_bytes(b"secret")
    entry.chmod(0)


def plant_too_large(entry, _tmp_path):
    """One byte more than a record holds."""
    entry.write_bytes(b"s" * 16385)
    entry.chmod(0o600)


def plant_huge(entry, _tmp_path):
    """More than there is memory."""
    entry.touch(mode=0o600)
    os.truncate(entry, 1 << 40)


def plant_others(entry, _tmp_path):
    """Another user's file."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    entry.write_bytes(b"secret")
    entry.chmod(0o600)
    os.chown(entry, NOBODY, NOBODY)


def test_a_payload_with_a_second_name_as_of_a_backup_is_sent(send, inboxd, later, queue, tmp_path):
    later("kept")
    os.link(queue.path / queue.names()[0], tmp_path / "backup")
    server = inboxd()
    assert send(server, "--wait", "0", "--queue", "queue", "--flush").status == 0
    server.wait_for_payloads(b"kept")
    assert queue.entries() == NOTHING and (tmp_path / "backup").read_bytes() == b"kept"


UNSENDABLE = [plant_directory, plant_link, plant_dangling_link, plant_fifo, plant_public, plant_unreadable,
              plant_too_large, plant_huge, plant_others]


@pytest.mark.parametrize("plant", UNSENDABLE, ids=lambda plant: plant.__name__)
def test_what_can_never_be_sent_is_moved_to_failed_and_the_rest_goes_on(send, inboxd, later, queue, tmp_path,
                                                                        plant):
    later("before")
    plant(queue.path / "0000000000000002", tmp_path)
    server = inboxd()
    result = send(server, "--wait", "0", "--queue", "queue", "after")
    assert_fails(result, 65, "queue/0000000000000002", "failed")
    server.wait_for_payloads(b"before", b"after")
    assert queue.failed() == ["0000000000000002"]
    assert queue.entries() == NOTHING | {"failed"}
    assert_silent_success(send(server, "--wait", "0", "--queue", "queue", "later"))


@pytest.mark.smoke
def test_each_unsendable_one_is_a_line(flush, inboxd, later, queue, tmp_path):
    later("one")
    for number in range(2, 5):
        plant_public(queue.path / f"{number:016}", tmp_path)
    server = inboxd()
    result = flush(server)
    assert result.status == 65, result
    assert [re.search("[0-9]{16}", line)[0] for line in result.stderr.splitlines()] == \
        [f"{number:016}" for number in range(2, 5)]
    server.wait_for_payloads(b"one")


def test_where_nothing_else_waits_no_connection_is_made(flush, black_hole, queue, tmp_path):
    queue.path.mkdir(mode=0o700)
    plant_public(queue.path / "0000000000000001", tmp_path)
    assert_fails(flush(black_hole), 65, "0000000000000001")
    black_hole.assert_received_nothing()


def test_another_failure_outranks_what_can_never_be_sent(send, refused, inboxd, queue, tmp_path):
    """65 alone would say that the payload was not accepted."""
    queue.path.mkdir(mode=0o700)
    (queue.path / "README").touch()
    plant_public(queue.path / "0000000000000001", tmp_path)
    result = send(refused, "--queue", "queue", "x")
    assert result.status == 69 and result.stderr.count("\n") == 3, result
    assert queue.waiting() == [b"x"]
    server = inboxd()
    assert_fails(send(server, "--wait", "0", "--queue", "queue", "y"), 65, "README")
    server.wait_for_payloads(b"x", b"y")


def test_what_is_set_aside_never_takes_anothers_place(flush, black_hole, queue, tmp_path):
    queue.path.mkdir(mode=0o700)
    entry = queue.path / "0000000000000007"
    for number in range(3):
        entry.write_bytes(b"%d" % number)
        entry.chmod(0o644)
        assert_fails(flush(black_hole), 65, "failed")
    failed = [(queue.path / "failed" / name).read_bytes() for name in queue.failed()]
    assert sorted(failed) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("obstacle", ["file", "link"])
def test_what_cannot_be_moved_is_told_and_the_rest_goes_on(flush, inboxd, later, queue, tmp_path, obstacle):
    later("one")
    plant_public(queue.path / "0000000000000000", tmp_path)
    (queue.path / "0000000000000000").rename(queue.path / "0000000000000002")
    if obstacle == "file":
        (queue.path / "failed").write_bytes(b"x")
    else:
        (tmp_path / "elsewhere").mkdir()
        (queue.path / "failed").symlink_to(tmp_path / "elsewhere")
    later("three")
    server = inboxd()
    assert_fails(flush(server), 65, "0000000000000002", "failed")
    server.wait_for_payloads(b"one", b"three")
    assert queue.names() == ["0000000000000002"]
    assert obstacle == "file" or not list((tmp_path / "elsewhere").iterdir())


def test_what_is_no_payload_is_left_alone_with_one_line(flush, inboxd, later, queue):
    later("one")
    (queue.path / "README").write_bytes(b"foreign")
    (queue.path / "000000000000001").mkdir()
    server = inboxd()
    for _ in range(2):
        assert_fails(flush(server), 65, "left alone", ("README", "000000000000001"))
        server.wait_for_payloads(b"one")
    assert (queue.path / "README").read_bytes() == b"foreign"


def test_an_entry_that_was_cut_to_nothing_is_an_empty_payload(flush, inboxd, later, queue):
    later("one", "two")
    os.truncate(queue.path / queue.names()[0], 0)
    server = inboxd()
    assert_silent_success(flush(server))
    server.wait_for_payloads(b"", b"two")


def test_what_a_killed_run_was_writing_is_not_sent(send, inboxd, later, queue):
    later("one")
    (queue.path / ".new").write_bytes(b"hal")
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0", "--queue", "queue", "two"))
    server.wait_for_payloads(b"one", b"two")
    assert queue.entries() == NOTHING


# --- A queue that cannot be used ---

def put_file(path):
    """A file."""
    path.write_bytes(b"x")


def put_link(path):
    """A symbolic link to a good directory."""
    path.with_name("real").mkdir(mode=0o700)
    path.symlink_to("real")


def put_open_to_a_group(path):
    """Writable by a group."""
    path.mkdir()
    path.chmod(0o770)


def put_open_to_all(path):
    """As /tmp is."""
    path.mkdir()
    path.chmod(0o1777)


def put_others(path):
    """Another user's."""
    if os.geteuid() != 0:
        pytest.skip("only root can give directories away")
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)


def put_counter_directory(path):
    """Where the counter cannot be written."""
    path.mkdir(mode=0o700)
    (path / ".last").mkdir()


def tree(directory):
    """All that there is."""
    return sorted(str(path) for path in directory.rglob("*"))


@pytest.mark.parametrize("put, path", [
    (put_file, "queue"), (put_file, "queue/"), (put_link, "queue"), (put_link, "queue/"),
    (put_link, "queue//"), (lambda _: None, "missing/queue"), (put_open_to_a_group, "queue"),
    (put_open_to_all, "queue"), (put_others, "queue"), (put_counter_directory, "queue"),
    (lambda _: None, "q" * 256), (lambda _: None, "q/" * 3000)],
    ids=["file", "file slash", "link", "link slash", "link slashes", "missing parent", "group", "all", "other",
         "counter", "long name", "long path"])
def test_an_unusable_queue_is_73_before_the_network_is_touched(send, black_hole, queue, tmp_path, put, path):
    put(queue.path)
    before = tree(tmp_path)
    for arguments in (["payload"], ["--flush"]):
        assert_fails(send(black_hole, "--queue", path, *arguments), 73, path.rstrip("/")[:200])
    assert tree(tmp_path) == before
    black_hole.assert_received_nothing()


def skip_under_coverage():
    """For tests in which the files of the counts could not be written."""
    if any(client.BUILD.glob("src/**/*.gcno")):
        pytest.skip("would spoil the counts")


@pytest.fixture(name="as_nobody")
def fixture_as_nobody(start):
    """as_nobody(directory, ...) runs the client there as a user who is not root. Who that is can read no
    credentials here, which are needed only after the queue."""
    if os.geteuid() != 0:
        pytest.skip("only root can become someone else")
    skip_under_coverage()

    def become(umask):
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.umask(umask)

    def as_nobody(directory, *arguments, umask=0o022):
        try:
            return start("--cert", "none", "--key", "none", *arguments, cwd=directory,
                         preexec_fn=lambda: become(umask)).finish()
        except PermissionError as error:
            return pytest.skip(f"nobody else can run the program: {error}")

    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, NOBODY, NOBODY)
        as_nobody.home = Path(directory)
        yield as_nobody


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_who_is_not_root_may_have_any_umask(as_nobody, umask):
    queue = Queue(as_nobody.home / "queue")
    for number in range(2):
        assert_fails(as_nobody(as_nobody.home, "--queue", "queue", str(number), umask=umask), 78, "none")
    assert queue.waiting() == [b"0", b"1"]
    assert stat.S_IMODE(queue.path.stat().st_mode) == 0o700
    assert [stat.S_IMODE((queue.path / name).stat().st_mode) for name in queue.names()] == [0o600, 0o600]


@pytest.mark.parametrize("mode", [0o500, 0o000, 0o300])
def test_a_directory_that_cannot_be_written_or_read_is_73(as_nobody, mode):
    queue = Queue(as_nobody.home / "queue")
    queue.path.mkdir()
    os.chown(queue.path, NOBODY, NOBODY)
    queue.path.chmod(mode)
    assert_fails(as_nobody(as_nobody.home, "--queue", "queue", "x"), 73, "queue", "permission denied")
    as_nobody.home.chmod(0o500)
    assert_fails(as_nobody(as_nobody.home, "--queue", "other", "x"), 73, "other", "permission denied")
    assert queue.entries() == set()


def test_nothing_half_written_remains_where_a_file_cannot_grow(send, refused, flush, inboxd, later, queue):
    """A limit on the size of files stands for the full disk."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    skip_under_coverage()
    later("one")
    assert_fails(send(refused, "--queue", "queue", "x" * 9999, preexec_fn=limit), 73, "queue", "too large")
    assert queue.waiting() == [b"one"]
    assert queue.entries() == {*queue.names(), ".last"}
    server = inboxd()
    assert_silent_success(flush(server))
    server.wait_for_payloads(b"one")


@pytest.fixture(name="elsewhere")
def fixture_elsewhere(start, credentials, tmp_path):
    """elsewhere(server, script) runs a shell script in a mount namespace of its own, in which `run ...` is
    the client as the good device. Returns its end."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace may be made here")

    def elsewhere(server, script):
        inner = f"run() {{ {shlex.quote(str(client.PROGRAM))} \"$@\"; }}\n{script}\n"
        options = shlex.join(["--server", server.address, "--timeout", str(10 * SLOWNESS), *credentials])
        program = tmp_path / "elsewhere"
        program.write_text("#!/bin/sh\nexec unshare -m sh -c " +
                           shlex.quote(inner.replace('"$@"', options + ' "$@"')) + "\n", encoding="utf-8")
        program.chmod(0o755)
        result = start(program=program, timeout=None).finish()
        if result.status == 99:
            pytest.skip(f"not possible here: {result.stderr}")
        return result

    return elsewhere


def test_a_full_disk_is_73_and_what_waited_is_untouched(elsewhere, inboxd, refused, later, queue):
    later("none")  # so that the directory is there
    result = elsewhere(refused, "mount -t tmpfs -o size=64k,mode=700 tmpfs queue || exit 99\n"
                       "run --queue queue one 2>/dev/null; [ $? = 69 ] || exit 1\n"
                       "head -c 999999 /dev/zero >queue/.fill 2>/dev/null\n"
                       "run --queue queue two; [ $? = 73 ] || exit 2\n"
                       "ls -A queue; cat queue/0000000000000001; rm queue/.fill\n"
                       "run --queue queue three 2>/dev/null; [ $? = 69 ] || exit 3\n"
                       "echo; cat queue/00*")
    assert result.status == 0, result
    assert_one_line(result, "queue", "space")
    assert result.stdout == b".fill\n.last\n0000000000000001\none\nonethree"
    server = inboxd()
    result = elsewhere(server, "mount -t tmpfs -o size=4k,mode=700 tmpfs queue || exit 99\n"
                       "head -c 9999 /dev/zero >queue/.fill 2>/dev/null\nrun --queue queue two\n"
                       "status=$?; ls -A queue >&2; exit $status")
    assert result.status == 73 and re.fullmatch("dtls-send: queue.*space.*\n.fill\n(.last\n)?", result.stderr,
                                                re.IGNORECASE), result
    server.assert_received_nothing()


def test_a_full_disk_does_not_keep_what_waits_from_being_sent(elsewhere, inboxd, later):
    later("none")  # so that the directory is there
    server = inboxd()
    result = elsewhere(server, "mount -t tmpfs -o size=64k,mode=700 tmpfs queue || exit 99\n"
                       "(umask 077; printf one >queue/0000000000000001)\n"
                       "head -c 999999 /dev/zero >queue/.fill 2>/dev/null\n"
                       "run --queue queue two; status=$?; ls -A queue; exit $status")
    assert result.status == 73 and result.stdout in (b".fill\n.last\n", b".fill\n"), result
    assert_one_line(result, "queue", "space")
    server.wait_for_payloads(b"one")


def test_a_read_only_disk_is_73_and_nothing_is_sent(elsewhere, inboxd, later, queue):
    later("one")
    server = inboxd()
    for arguments in ("two", "--flush"):
        result = elsewhere(server, "mount --bind queue queue && mount -o remount,bind,ro queue || exit 99\n"
                           f"run --queue queue {arguments}")
        assert_fails(result, 73, "queue", "read-only")
    assert queue.waiting() == [b"one"]
    server.assert_received_nothing()
    assert not server.events("handshake")


# --- Ended in the last wait ---

@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_what_was_sent_unconfirmed_waits_until_the_wait_for_a_refusal_is_over(begin, inboxd, flush, queue,
                                                                             number, status):
    server = inboxd()
    running = begin(server, "--wait", "8", "--queue", "queue", "x")
    server.wait_for_event("uplink")
    running.process.send_signal(number)
    assert running.process.wait(20 * SLOWNESS) == status
    assert queue.waiting() == [b"x"]
    assert_silent_success(flush(server))
    server.wait_for_payloads(b"x", b"x")
    assert queue.entries() == NOTHING


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_what_was_confirmed_is_gone_at_once(begin, inboxd, flush, queue, number, status):
    server = inboxd("--reply", "ack")
    running = begin(server, "--wait", "8", "--confirm", "--queue", "queue", "x")
    assert running.process.stdout.readline() == b"ack\n"
    wait_until(lambda: queue.entries() == NOTHING, "empty queue")
    assert running.running()
    running.process.send_signal(number)
    assert running.process.wait(20 * SLOWNESS) == status
    assert_silent_success(flush(server))
    server.wait_for_payloads(b"x")


def test_what_a_server_that_died_refuses_waits(begin, inboxd, later, queue):
    later("one")
    server = inboxd("--drop-uplinks", "1000")
    running = begin(server, "--confirm", "--queue", "queue", "two")
    server.wait_for_event("handshake")
    server.process.kill()
    assert_fails(running.finish(), 69)
    assert queue.waiting() == [b"one", b"two"]


# --- --splay ---

def splays(result):
    """The waits that a run with -v has told of, in seconds."""
    return [float(seconds) for seconds in re.findall(r"waiting ([0-9.]+) s before connecting", result.stderr)]


def test_a_payload_is_in_the_queue_before_the_splay_which_a_signal_ends(begin, black_hole, queue):
    running = begin(black_hole, "--splay", "100000", "--queue", "queue", "x")
    queue.wait_for(b"x")
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(0.2)
    running.send_signal(signal.SIGINT)
    assert_fails(running.finish(limit=5), 130)
    assert queue.waiting() == [b"x"]
    black_hole.assert_received_nothing()


def test_a_splay_is_not_part_of_the_timeout(begin, black_hole):
    runs = [begin(black_hole, "-v", "--splay", "1.5", "x", timeout=0.5) for _ in range(3)]
    for running in runs:
        result = running.finish()
        assert result.status == 75, result
        assert result.seconds >= splays(result)[0] + 0.5, result


def test_after_a_splay_the_payload_is_sent(send, inboxd):
    server = inboxd()
    assert_silent_success(send(server, "--wait", "0", "--splay", "0.001", "x"))
    server.wait_for_payloads(b"x")


def test_a_splay_is_random_and_never_longer_than_asked(begin, refused):
    runs = [begin(refused, "-v", "--splay", "0.2", "x") for _ in range(12)]
    results = [running.finish() for running in runs]
    waits = [seconds for result in results for seconds in splays(result)]
    assert len(waits) == 12 and len(set(waits)) > 3 and max(waits) <= 0.2, waits
    for result in results:
        assert result.status == 69 and result.seconds >= splays(result)[0], result


def test_a_splay_of_nothing_is_none(send, refused):
    assert splays(send(refused, "-v", "--splay", "0", "x")) == []


def test_nothing_is_waited_for_where_the_payload_is_refused(send, black_hole, tmp_path):
    began = time.monotonic()
    (tmp_path / "queue").write_bytes(b"x")
    assert_fails(send(black_hole, "--splay", "100000", "--queue", "queue", "x"), 73)
    assert_fails(send(black_hole, "--splay", "100000", "--hex", "x"), 65)
    assert time.monotonic() - began < 20 * SLOWNESS


def test_a_splay_is_not_part_of_the_time_for_later_lines_either(begin, inboxd):
    server = inboxd()
    runs = [begin(server, "-v", "--splay", "1.5", "--lines", timeout=0.7, stdin=subprocess.PIPE)
            for _ in range(3)]
    for running in runs:
        running.process.stdin.write(b"one\n")
        running.process.stdin.flush()
    for running in runs:
        running.process.wait(20 * SLOWNESS)  # for a second line, in vain
        result = running.finish()
        assert result.status == 75, result
        assert result.seconds >= splays(result)[0] + 0.7, result
