"""A run ends by --timeout, whatever hangs."""

import os
import subprocess
import time

import pytest

from client import SLOWNESS, WRAPPER, answering_names, assert_fails, assert_one_line

TEMPORARY = 75
TIMEOUT = 1  # seconds, times SLOWNESS


def assert_ends_in_time(result, status=TEMPORARY, *words):
    """With that status, and at the timeout: not before, not noticeably after."""
    assert_fails(result, status, *words)
    assert TIMEOUT * SLOWNESS - 0.02 <= result.seconds < TIMEOUT * SLOWNESS + (3 if WRAPPER else 0.3), result


@pytest.mark.smoke
def test_silence_ends_at_the_timeout(send, black_hole):
    result = send(black_hole, "x", timeout=TIMEOUT)
    assert_ends_in_time(result, TEMPORARY, black_hole.address)


def test_a_first_datagram_without_an_answer_is_sent_again(begin, black_hole):
    """After a second and a half, since an unknown path may need more than the second of RFC 6347 section
    4.2.4.1."""
    begin(black_hole, "x")
    first = black_hole.wait_for_datagram()
    sent = time.monotonic()
    second = black_hole.wait_for_datagram()
    assert 1.4 < time.monotonic() - sent < 1.8 * SLOWNESS
    assert first[13] == second[13] == 1  # ClientHello
    assert first[25:59] == second[25:59]  # the same one: version and random


def test_a_fraction_of_a_second_is_a_timeout(send, black_hole):
    result = send(black_hole, "--timeout", "0.25", "x", timeout=None)
    assert_fails(result, TEMPORARY)
    assert 0.25 <= result.seconds < 0.55 * SLOWNESS


def test_silence_from_a_name_is_told_with_that_name(send, black_hole):
    result = send(black_hole.named("server.test"), "x", timeout=TIMEOUT, env=answering_names("127.0.0.1"))
    assert_ends_in_time(result, TEMPORARY, f"server.test:{black_hole.port}")


def test_a_hung_look_up_ends_at_the_timeout(send):
    result = send("hung.test:1234", "x", timeout=TIMEOUT, env=answering_names("hang"))
    assert_ends_in_time(result, TEMPORARY, "hung.test")


@pytest.mark.parametrize("source", [["--file", "-"], ["--lines"]])
def test_input_that_never_comes_ends_at_the_timeout(begin, black_hole, source):
    client = begin(black_hole, *source, stdin=subprocess.PIPE, timeout=TIMEOUT)
    client.process.wait(20 * SLOWNESS)
    assert_ends_in_time(client.finish(), TEMPORARY, "standard input")


def test_input_that_never_ends_ends_at_the_timeout(begin, black_hole):
    client = begin(black_hole, "--file", "-", stdin=subprocess.PIPE, timeout=TIMEOUT)
    client.process.stdin.write(b"begun")
    client.process.stdin.flush()
    client.process.wait(20 * SLOWNESS)
    assert_ends_in_time(client.finish(), TEMPORARY, "standard input")
    black_hole.assert_received_nothing()


def test_lines_that_stop_coming_end_at_the_timeout_and_those_that_came_are_sent(begin, inboxd):
    server = inboxd()
    client = begin(server, "--lines", stdin=subprocess.PIPE, timeout=TIMEOUT)
    client.process.stdin.write(b"one\ntwo\nunfinished")
    client.process.stdin.flush()
    client.process.wait(20 * SLOWNESS)
    assert_ends_in_time(client.finish(), TEMPORARY, "standard input")
    server.wait_for_payloads(b"one", b"two")
    assert server.wait_for_event("closed") == ["device"]


def test_a_fifo_without_writer_ends_at_the_timeout(send, black_hole, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert_ends_in_time(send(black_hole, "--file", "fifo", timeout=TIMEOUT), TEMPORARY)
    black_hole.assert_received_nothing()


@pytest.mark.parametrize("option", ["--cert", "--key", "--ca", "--passphrase-file"])
def test_a_fifo_as_credential_ends_at_the_timeout(run, pki, black_hole, tmp_path, option):
    os.mkfifo(tmp_path / "fifo")
    files = {"--cert": pki.bundle("device"), "--key": pki.key("device"), option: "fifo"}
    result = run("--server", black_hole.address, *[word for pair in files.items() for word in pair], "x",
                 timeout=TIMEOUT)
    assert_ends_in_time(result, TEMPORARY)
    black_hole.assert_received_nothing()


def test_waiting_for_a_downlink_ends_at_the_timeout_too(send, inboxd):
    """The payload was sent, and that is what status 0 says."""
    server = inboxd()
    result = send(server, "--wait", "30", "x", timeout=TIMEOUT)
    assert result.status == 0, result
    assert TIMEOUT * SLOWNESS - 0.02 <= result.seconds < TIMEOUT * SLOWNESS + (3 if WRAPPER else 0.3)
    server.wait_for_payloads(b"x")


def test_a_server_that_never_stops_talking_does_not_keep_the_run_alive(begin, openssl):
    server = openssl(reply=b"and another thing")
    client = begin(server, "--wait", "8", "--output", "raw", "x", timeout=TIMEOUT)
    server.wait_for_payloads(b"x")
    while client.running():
        server.send(b".")
        client.process.stdout.read1(100)
    result = client.finish()
    assert result.status == 0, result
    assert result.seconds < TIMEOUT * SLOWNESS + (3 if WRAPPER else 0.3)


def test_a_server_that_dies_after_the_payload_does_no_harm(begin, inboxd):
    """The payload was sent to a live server; a refused port while waiting for downlinks is silence."""
    server = inboxd()
    client = begin(server, "--wait", "0.7", "x")
    server.wait_for_event("uplink")
    server.process.kill()
    result = client.finish()
    assert result.status == 0, result


def test_a_server_that_died_between_two_lines_is_a_failure(begin, inboxd):
    server = inboxd("--reply", "ack")
    client = begin(server, "--wait", "0.5", "--lines", stdin=subprocess.PIPE)
    client.process.stdin.write(b"one\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == b"ack\n"
    server.process.kill()
    server.process.wait()
    for line in (b"two\n", b"three\n", b"four\n"):
        if client.running():
            try:
                client.process.stdin.write(line)
                client.process.stdin.flush()
            except BrokenPipeError:
                break
        try:
            client.process.wait(0.1)
        except subprocess.TimeoutExpired:
            pass
    result = client.finish()
    assert result.status == 69, result
    assert_one_line(result, server.address)
