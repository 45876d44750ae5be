"""SIGTERM and SIGINT end a run cleanly and at once, whatever it waits for."""

import os
import signal
import subprocess

import pytest

from client import SLOWNESS, answering_names, assert_silent_success
from servers import wait_until

SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
AT_ONCE = 0.5 * SLOWNESS  # seconds


def end(client, number, status):
    """Sends the signal, and asserts that the run ends at once and says no more than a line."""
    client.send_signal(number)
    result = client.finish()
    assert result.status == status, result
    assert result.seconds < AT_ONCE, result
    assert result.stderr.count("\n") <= 1, result
    return result


def threads_of(client):
    """How many threads it has."""
    return len(os.listdir(f"/proc/{client.pid}/task"))


def sleeps_in(client, *calls):
    """Whether its first thread sleeps in such a system call; where the kernel does not tell, in any."""
    try:
        with open(f"/proc/{client.pid}/stat", "rb") as stat:
            sleeping = stat.read().rsplit(b")", 1)[1].split()[0] == b"S"
        with open(f"/proc/{client.pid}/wchan", encoding="ascii") as wchan:
            where = wchan.read()
    except OSError:
        return False
    return sleeping and (where in ("", "0") or any(call in where for call in calls))


@pytest.mark.parametrize("number, status", SIGNALS)
def test_a_signal_ends_a_handshake(begin, black_hole, number, status):
    client = begin(black_hole, "x")
    black_hole.wait_for_datagram()
    assert end(client, number, status).stdout == b""


@pytest.mark.smoke
@pytest.mark.parametrize("number, status", SIGNALS)
def test_a_signal_ends_the_wait_for_a_downlink_and_the_server_is_told(begin, inboxd, number, status):
    server = inboxd()
    client = begin(server, "--wait", "8", "x")
    server.wait_for_event("uplink")
    end(client, number, status)
    server.wait_for_payloads(b"x")
    assert server.wait_for_event("closed") == ["device"]


@pytest.mark.parametrize("number, status", SIGNALS)
@pytest.mark.parametrize("source", [["--file", "-"], ["--lines"]])
def test_a_signal_ends_the_wait_for_standard_input(begin, inboxd, number, status, source):
    server = inboxd()
    client = begin(server, *source, stdin=subprocess.PIPE)
    wait_until(lambda: sleeps_in(client, "poll"), "sleeping client")
    end(client, number, status)
    server.assert_received_nothing()


def test_a_signal_ends_the_wait_for_the_next_line(begin, inboxd):
    server = inboxd()
    client = begin(server, "--lines", stdin=subprocess.PIPE)
    client.process.stdin.write(b"one\nunfinished")
    client.process.stdin.flush()
    server.wait_for_event("uplink")
    end(client, signal.SIGTERM, 143)
    assert server.wait_for_event("closed") == ["device"]
    server.wait_for_payloads(b"one")


@pytest.mark.parametrize("number, status", SIGNALS)
def test_a_signal_ends_a_hung_look_up(begin, number, status):
    client = begin("hung.test:1234", "x", env=answering_names("hang"))
    wait_until(lambda: threads_of(client) > 1, "look-up")
    end(client, number, status)


@pytest.mark.parametrize("number, status", SIGNALS)
def test_a_signal_ends_the_wait_for_a_full_pipe(begin, inboxd, full_pipe, number, status):
    server = inboxd()
    server.queue(b"nobody reads this")
    client = begin(server, "--wait", "8", "x", stdout=full_pipe)
    wait_until(lambda: server.pending() == [], "downlink sent")
    end(client, number, status)
    assert server.wait_for_event("closed") == ["device"]


@pytest.mark.parametrize("option", ["--file", "--key"])
def test_a_signal_ends_the_wait_for_a_fifo_without_writer(start, pki, black_hole, tmp_path, option):
    os.mkfifo(tmp_path / "fifo")
    files = {"--cert": pki.bundle("device"), "--key": pki.key("device"), option: "fifo"}
    client = start("--server", black_hole.address, *[word for pair in files.items() for word in pair],
                   *([] if option == "--file" else ["x"]))
    wait_until(lambda: sleeps_in(client, "fifo", "poll", "wait_for_partner"), "sleeping client")
    end(client, signal.SIGTERM, 143)
    black_hole.assert_received_nothing()


def block_all_signals():
    """As a parent does that waits for them by sigwait(3) or signalfd(2); its children inherit that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@pytest.mark.parametrize("number, status", SIGNALS)
def test_a_signal_that_the_parent_had_blocked_ends_a_run(begin, black_hole, number, status):
    client = begin(black_hole, "x", preexec_fn=block_all_signals)
    black_hole.wait_for_datagram()
    end(client, number, status)


def test_a_run_that_hangs_ends_by_its_timeout_though_the_parent_had_blocked_alarms(run, tmp_path):
    os.mkfifo(tmp_path / "fifo")  # nobody will open it for writing
    result = run("--server", "127.0.0.1:9", "--psk", "fifo", "x", timeout=0.5, preexec_fn=block_all_signals)
    assert result.status == 75, result


def test_an_ignored_signal_stays_ignored(begin, inboxd):
    """What nohup(1), or a shell that starts a job in the background, asked for."""
    server = inboxd()
    client = begin(server, "--wait", "0.8", "x",
                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    server.wait_for_event("uplink")
    client.send_signal(signal.SIGINT)
    assert_silent_success(client.finish())


def test_a_stopped_run_goes_on_where_it_was(begin, inboxd):
    """SIGSTOP and SIGCONT, as from Ctrl-Z and fg."""
    server = inboxd("--reply", "ack")
    client = begin(server, "--wait", "8", "--lines", stdin=subprocess.PIPE)
    client.process.stdin.write(b"one\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"ack\n"
    client.process.send_signal(signal.SIGSTOP)
    client.process.send_signal(signal.SIGCONT)
    client.process.stdin.write(b"two\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"ack\n"
    end(client, signal.SIGTERM, 143)
    server.wait_for_payloads(b"one", b"two")
