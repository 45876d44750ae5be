"""Whatever hangs, a run ends by its deadline, and says truly whether its payload was accepted.

What needs no fault is tested elsewhere: a hung resolver, input that never comes and FIFOs in
tests/e2e/test_time.py, a reader that never reads in tests/e2e/test_output.py."""

import fcntl
import os
import signal
import subprocess
import time

import pytest

import client
from bench import FAULTS
from servers import wait_until

TIMEOUT = 1
LATEST = 2.5 * client.SLOWNESS  # seconds by which it has ended
NOT_ACCEPTED, NOT_PRINTED, TEMPORARY = 73, 74, 75


@pytest.fixture(name="queue")
def fixture_queue(tmp_path):
    """One that has been used, and in which nothing waits."""
    (tmp_path / "queue").mkdir(mode=0o700)
    return tmp_path / "queue"


@pytest.fixture(name="old")
def fixture_old(queue):
    """A payload that waits."""
    path = queue / f"{7:016}"
    path.write_bytes(b"old")
    path.chmod(0o600)
    return path


def waiting(queue):
    """What waits, oldest first."""
    return [path.read_bytes() for path in sorted(queue.glob("[0-9]*"))]


def hanging(fault, tmp_path):
    """The environment in which that call never returns."""
    return {"LD_PRELOAD": str(FAULTS), "FAULT": fault + ":hang", "FAULT_NOTE": str(tmp_path / "note")}


def assert_ended(result, status, *words):
    """With one line, in time."""
    assert result.status == status, result
    assert result.seconds < LATEST, result
    client.assert_one_line(result, *words)


def assert_delivered_by_a_later_flush(send, server, queue, *payloads):
    """Nothing was lost, and nothing stands in the way."""
    assert send(server, "--queue", queue, "--flush", "--confirm", "--count", "1", timeout=30).status == 0
    assert waiting(queue) == []
    server.settle()
    assert [payload for payload in server.received() if payload in payloads] == list(payloads)


@pytest.mark.parametrize("fault", ["open@queue:1", "openat@.last:1", "pread@.last:1", "pwrite@.last:1",
                                   "readdir@queue:1", "openat@.new:1", "write@.new:1", "fsync@.new:1",
                                   "close@.new:1"])
def test_a_disk_that_hangs_before_the_payload_is_queued(fault, send, inboxd, queue, old, tmp_path):
    server = inboxd("--reply", "ok")
    result = send(server, "--queue", queue, "new", timeout=TIMEOUT, env=hanging(fault, tmp_path))
    assert (tmp_path / "note").exists()
    assert_ended(result, NOT_ACCEPTED)
    server.assert_received_nothing()
    assert waiting(queue) == [b"old"] == [old.read_bytes()]
    assert_delivered_by_a_later_flush(send, server, queue, b"old")


@pytest.mark.parametrize("fault", ["renameat:1", "fsync@queue:1"])
def test_a_disk_that_hangs_while_the_payload_gets_its_name(fault, send, inboxd, queue, old, tmp_path):
    """It is not synced, and so not accepted; but it may have its name already, and then is sent later."""
    server = inboxd("--reply", "ok")
    result = send(server, "--queue", queue, "new", timeout=TIMEOUT, env=hanging(fault, tmp_path))
    assert_ended(result, NOT_ACCEPTED)
    server.assert_received_nothing()
    kept = waiting(queue)
    assert kept in ([b"old"], [b"old", b"new"]) and old.exists()
    assert_delivered_by_a_later_flush(send, server, queue, *kept)


@pytest.mark.parametrize("fault, delivered", [("readdir@queue:9", []), ("openat@7:1", []), ("read@7:1", []),
                                              ("open@.bundle:1", []), ("read@.key:1", []),
                                              ("unlinkat@7:1", [b"old"])])
def test_a_disk_that_hangs_after_the_payload_is_queued(fault, delivered, send, inboxd, queue, old,
                                                       tmp_path):
    server = inboxd("--reply", "ok")
    result = send(server, "--queue", queue, "--confirm", "new", timeout=TIMEOUT, env=hanging(fault, tmp_path))
    assert (tmp_path / "note").exists()
    assert_ended(result, TEMPORARY)
    server.settle()
    assert server.received() == delivered
    assert waiting(queue) == [old.read_bytes(), b"new"]
    assert_delivered_by_a_later_flush(send, server, queue, *delivered, b"old", b"new")


@pytest.mark.parametrize("fault", ["open@reading:1", "read@reading:1"])
@pytest.mark.parametrize("queued", [False, True], ids=["plain", "queued"])
def test_a_payload_file_on_a_disk_that_hangs(queued, fault, send, inboxd, queue, tmp_path):
    (tmp_path / "reading").write_bytes(b"new")
    server = inboxd()
    options = ["--queue", queue] if queued else []
    result = send(server, *options, "--file", "reading", timeout=TIMEOUT, env=hanging(fault, tmp_path))
    assert_ended(result, NOT_ACCEPTED if queued else TEMPORARY)
    server.assert_received_nothing()
    assert waiting(queue) == []


def test_a_second_signal_ends_a_run_that_hangs(begin, inboxd, tmp_path):
    """The first is noted, for when the call returns."""
    (tmp_path / "reading").write_bytes(b"new")
    server = inboxd()
    running = begin(server, "--file", "reading", timeout=30, env=hanging("read@reading:1", tmp_path))
    wait_until((tmp_path / "note").exists, "hanging call")
    running.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert running.running()
    running.send_signal(signal.SIGTERM)
    result = running.finish()
    assert result.status == 143 and result.seconds < TIMEOUT * client.SLOWNESS, result
    server.assert_received_nothing()


def test_a_server_that_was_stopped(send, inboxd, queue, old):
    server = inboxd("--reply", "ok")
    server.process.send_signal(signal.SIGSTOP)
    try:
        result = send(server, "--queue", queue, "--confirm", "new", timeout=TIMEOUT)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert_ended(result, TEMPORARY, server.address)
    assert waiting(queue) == [old.read_bytes(), b"new"]
    assert_delivered_by_a_later_flush(send, server, queue, b"old", b"new")


def test_a_server_that_is_stopped_in_the_middle_of_a_queue(begin, send, inboxd, queue):
    for number in range(1, 400):
        path = queue / f"{number:016}"
        path.write_bytes(b"%d" % number)
        path.chmod(0o600)
    server = inboxd("--reply", "ok")
    running = begin(server, "--queue", queue, "--confirm", "--flush", timeout=TIMEOUT + 1)
    server.wait_for_event("uplink", 3)
    server.process.send_signal(signal.SIGSTOP)
    try:
        result = running.finish()
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert result.status == TEMPORARY and result.seconds < LATEST + 1, result
    client.assert_one_line(result, "confirm")
    left = waiting(queue)
    assert 0 < len(left) < 399
    assert send(server, "--queue", queue, "--confirm", "--flush", "--count", "1", timeout=30).status == 0
    server.settle()
    received = [int(payload) for payload in server.received()]
    assert sorted(set(received)) == list(range(1, 400)) and len(received) < 399 + 20


def test_a_name_server_that_hangs(send, inboxd, queue, old):
    server = inboxd("--reply", "ok")
    result = send(server.named("hung.test"), "--queue", queue, "new", timeout=TIMEOUT,
                  env=client.answering_names("hang"))
    assert_ended(result, TEMPORARY, "hung.test")
    assert waiting(queue) == [old.read_bytes(), b"new"]
    assert_delivered_by_a_later_flush(send, server, queue, b"old", b"new")


@pytest.mark.parametrize("confirm", [["--confirm"], []], ids=["confirmed", "unconfirmed"])
def test_a_reader_that_never_reads(confirm, send, inboxd, queue, full_pipe):
    server = inboxd("--reply", "ok")
    result = send(server, "--queue", queue, *confirm, "new", timeout=TIMEOUT, stdout=full_pipe)
    assert_ended(result, NOT_PRINTED, "standard output")
    server.settle()
    assert server.received() == [b"new"]
    assert waiting(queue) == [b"new"]
    assert_delivered_by_a_later_flush(send, server, queue, b"new", b"new")


@pytest.mark.parametrize("lock, status, left", [(".last", NOT_ACCEPTED, []), (".", TEMPORARY, [b"new"])],
                         ids=["adding", "sending"])
def test_another_run_that_never_lets_go(lock, status, left, send, inboxd, queue):
    server = inboxd("--reply", "ok")
    held = os.open(queue / lock, os.O_RDONLY if lock == "." else os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        result = send(server, "--queue", queue, "new", timeout=TIMEOUT)
    finally:
        os.close(held)
    assert_ended(result, status, "another run")
    server.assert_received_nothing()
    assert waiting(queue) == left
    assert_delivered_by_a_later_flush(send, server, queue, *left)


def test_a_run_that_is_stopped_keeps_its_turn_and_loses_nothing(begin, send, inboxd, queue, old):
    """And is not overtaken: the other gives up by its own deadline."""
    server = inboxd("--reply", "ok", "--drop-uplinks", "1")
    first = begin(server, "--queue", queue, "--confirm", "--count", "1", "first", timeout=30,
                  stdout=subprocess.DEVNULL)
    server.wait_for_event("dropped")
    first.send_signal(signal.SIGSTOP)
    result = send(server, "--queue", queue, "--confirm", "--count", "1", "second", timeout=TIMEOUT)
    assert_ended(result, TEMPORARY, "another run")
    assert waiting(queue) == [old.read_bytes(), b"first", b"second"]
    first.send_signal(signal.SIGCONT)
    assert first.finish(limit=40).status == 0
    assert waiting(queue) == [b"second"]
    assert_delivered_by_a_later_flush(send, server, queue, b"old", b"first", b"second")
