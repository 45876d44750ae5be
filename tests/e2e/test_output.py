"""Standard output carries downlinks and nothing else, and a run that cannot write them says so."""

import base64
import datetime
import fcntl
import json
import os
import pty
import resource
import signal
import subprocess
import termios

import pytest

from client import SLOWNESS, assert_one_line, assert_silent_success
from servers import wait_until

UNWRITABLE = 74
NOT_TEXT = b"a\0b\xff\xfe\r\n\x1b[31m\x80"
TEXT = "smörgås \"quoted\" \\ \t\n\0 \u2028 \x7f 🎄"
ONE = ["--wait", "8", "--count", "1"]


@pytest.fixture(name="print_downlinks")
def fixture_print_downlinks(send, inboxd):
    """Prints these downlinks in this format, and returns what came out."""

    def print_downlinks(format_name, *downlinks):
        server = inboxd()
        server.queue(*downlinks)
        result = send(server, "--wait", "8", "--count", str(len(downlinks)), "--output", format_name, "x")
        assert_silent_success(result, result.stdout)
        return result.stdout

    return print_downlinks


# Formats

def test_text_is_the_payload_and_a_newline(print_downlinks):
    assert print_downlinks("text", b"one", NOT_TEXT, b"") == b"one\n" + NOT_TEXT + b"\n\n"


def test_raw_is_the_payload_and_nothing_else(print_downlinks):
    assert print_downlinks("raw", b"one", NOT_TEXT, b"", b"two") == b"one" + NOT_TEXT + b"two"


def test_hex_is_a_line_of_lower_case_digits(print_downlinks):
    assert print_downlinks("hex", NOT_TEXT, b"", b"\xAB") == NOT_TEXT.hex().encode() + b"\n\nab\n"


def test_base64_is_a_line(print_downlinks):
    downlinks = [NOT_TEXT, b"", b"a", b"ab", b"abc"]
    assert print_downlinks("base64", *downlinks) == b"".join(base64.b64encode(d) + b"\n" for d in downlinks)


@pytest.mark.parametrize("format_name, decode", [
    ("hex", lambda line: bytes.fromhex(line.decode())), ("base64", base64.b64decode),
    ("json", lambda line: base64.b64decode(json.loads(line)["payload"]))])
def test_the_largest_downlinks_come_out_whole_in_every_format(print_downlinks, format_name, decode):
    downlinks = [bytes(i * step % 256 for i in range(16384)) for step in (1, 7)]
    lines = print_downlinks(format_name, *downlinks).splitlines()
    assert [decode(line) for line in lines] == downlinks


@pytest.mark.smoke
def test_json_is_an_object_a_line(send, inboxd):
    server = inboxd()
    server.queue(TEXT.encode(), NOT_TEXT, b"")
    before = datetime.datetime.now(datetime.timezone.utc)
    result = send(server, "--wait", "8", "--count", "3", "--output", "json", "x")
    after = datetime.datetime.now(datetime.timezone.utc)
    assert_silent_success(result, result.stdout)
    assert result.stdout.endswith(b"}\n")
    objects = [json.loads(line) for line in result.stdout.split(b"\n")[:-1]]
    assert [base64.b64decode(o["payload"], validate=True) for o in objects] == [TEXT.encode(), NOT_TEXT, b""]
    assert [o.get("text") for o in objects] == [TEXT, None, ""]
    assert [o["size"] for o in objects] == [len(TEXT.encode()), len(NOT_TEXT), 0]
    for o in objects:
        assert o["server"] == server.address
        assert set(o) <= {"payload", "text", "size", "server", "received_at"}
        at = datetime.datetime.fromisoformat(o["received_at"].replace("Z", "+00:00"))
        assert before - datetime.timedelta(seconds=1) <= at <= after


@pytest.mark.parametrize("downlink", [b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\xff"])
def test_json_has_no_text_for_what_is_not_utf8(print_downlinks, downlink):
    """Truncated, overlong, a surrogate, beyond Unicode, plainly wrong."""
    line = json.loads(print_downlinks("json", downlink))
    assert "text" not in line
    assert base64.b64decode(line["payload"]) == downlink


def on_a_terminal(begin, server, *arguments):
    """What a terminal would be told to show."""
    controller, terminal = pty.openpty()
    attributes = termios.tcgetattr(terminal)
    attributes[1] &= ~termios.OPOST  # newlines as they are
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    client = begin(server, *arguments, stdout=terminal)
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 65536):
            shown += chunk
    except OSError:  # EIO: the last one who had the terminal open is gone
        pass
    os.close(controller)
    assert_silent_success(client.finish())
    return shown


def test_a_downlink_cannot_drive_the_terminal(begin, inboxd):
    server = inboxd()
    server.queue(b"red \x1b[31m bell \x07 back \x08\r del \x7f csi \xc2\x9b31m bad \xff tab\t end",
                 "smörgås 🎄".encode())
    shown = on_a_terminal(begin, server, "--wait", "8", "--count", "2", "x")
    first, second, rest = shown.split(b"\n")
    assert first == rb"red \x1b[31m bell \x07 back \x08\x0d del \x7f csi \xc2\x9b31m bad \xff tab" + b"\t end"
    assert second.decode() == "smörgås 🎄" and rest == b""


def test_raw_is_raw_on_a_terminal_too(begin, inboxd):
    server = inboxd()
    server.queue(b"\x1b[31m")
    assert on_a_terminal(begin, server, *ONE, "--output", "raw", "x") == b"\x1b[31m"


def test_a_downlink_is_printed_as_soon_as_it_is_there(begin, inboxd):
    """Not when a buffer is full, nor when the run ends."""
    server = inboxd()
    server.queue(b"early")
    client = begin(server, "--wait", "8", "x")
    assert client.process.stdout.readline() == b"early\n"
    assert client.running()


# Outputs that cannot be written: found before anything is sent

def assert_found_first(result, black_hole):
    """74, one line, and not a single datagram."""
    assert result.status == UNWRITABLE, result
    assert_one_line(result, "standard output")
    black_hole.assert_received_nothing()


@pytest.mark.smoke
def test_a_full_device_is_found_before_anything_is_sent(send, black_hole):
    with open("/dev/full", "wb") as full:
        assert_found_first(send(black_hole, "x", stdout=full), black_hole)


def test_a_closed_output_is_found_before_anything_is_sent(send, black_hole):
    assert_found_first(send(black_hole, "x", preexec_fn=lambda: os.close(1)), black_hole)


def test_a_read_only_output_is_found_before_anything_is_sent(send, black_hole):
    with open("/dev/null", "rb") as read_only:
        assert_found_first(send(black_hole, "x", stdout=read_only), black_hole)


def test_a_pipe_without_a_reader_is_found_before_anything_is_sent(send, black_hole):
    reading, writing = os.pipe()
    os.close(reading)
    assert_found_first(send(black_hole, "x", stdout=writing), black_hole)
    os.close(writing)


# ... and those that turn out so

def test_a_reader_that_goes_away_is_a_failure_and_not_a_signal(begin, inboxd):
    server = inboxd("--reply", "ack")
    reading, writing = os.pipe()
    client = begin(server, "--wait", "8", "--lines", stdin=subprocess.PIPE, stdout=writing)
    os.close(writing)
    client.process.stdin.write(b"one\n")
    client.process.stdin.flush()
    assert os.read(reading, 100) == b"ack\n"
    os.close(reading)
    result = client.finish(b"two\n")
    assert result.status == UNWRITABLE, result
    assert_one_line(result, "standard output")
    server.wait_for_payloads(b"one", b"two")


def test_a_disk_that_fills_up_is_a_failure(send, inboxd, tmp_path):
    """A limit on the size of files stands for the full disk."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    server = inboxd()
    server.queue(b"x" * 900, b"y" * 900)
    with open(tmp_path / "out", "wb") as out:
        result = send(server, "--wait", "8", "--count", "2", "x", stdout=out, preexec_fn=limit)
    assert result.status == UNWRITABLE, result
    assert_one_line(result, "standard output")
    assert (tmp_path / "out").read_bytes().startswith(b"x" * 900 + b"\n")


def test_messages_that_nobody_reads_do_not_outlast_the_timeout(send, inboxd, full_pipe):
    server = inboxd()
    result = send(server, "--verbose", "x", stderr=full_pipe, timeout=1)
    assert result.status == 75
    assert result.seconds < 1.5 * SLOWNESS


def test_a_pipe_that_nobody_reads_ends_the_run_by_its_timeout(send, inboxd, full_pipe):
    server = inboxd()
    server.queue(b"nobody reads this")
    result = send(server, *ONE, "x", stdout=full_pipe, timeout=1)
    assert result.status == UNWRITABLE, result
    assert_one_line(result, "standard output")
    assert 0.9 * SLOWNESS <= result.seconds < 1.4 * SLOWNESS


def test_a_slow_reader_gets_everything(begin, inboxd):
    server = inboxd()
    downlinks = [bytes([65 + i]) * 16384 for i in range(3)]
    server.queue(*downlinks)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    client = begin(server, "--wait", "8", "--count", "3", "--output", "raw", "x", stdout=writing)
    os.close(writing)
    wait_until(lambda: server.pending() == [], "all downlinks sent")
    read = b""
    while chunk := os.read(reading, 1000):
        read += chunk
    os.close(reading)
    assert_silent_success(client.finish())
    assert read == b"".join(downlinks)


def test_a_non_blocking_pipe_loses_nothing(begin, inboxd):
    """Whoever shares the pipe may have made it so; writing then fails where it would have waited."""
    server = inboxd()
    server.queue(b"x" * 16384)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    client = begin(server, *ONE, "--output", "raw", "x", stdout=writing)
    os.close(writing)
    wait_until(lambda: server.pending() == [], "downlink sent")
    read = b""
    while chunk := os.read(reading, 1000):
        read += chunk
    os.close(reading)
    assert_silent_success(client.finish())
    assert read == b"x" * 16384


def test_an_output_that_is_appended_to_keeps_what_it_had(send, inboxd, tmp_path):
    server = inboxd()
    server.queue(b"new")
    (tmp_path / "log").write_bytes(b"old\n")
    with open(tmp_path / "log", "ab") as log:
        assert send(server, *ONE, "x", stdout=log).status == 0
    assert (tmp_path / "log").read_bytes() == b"old\nnew\n"


# Closed descriptors

@pytest.mark.parametrize("closed", [[0], [2], [0, 2]])
def test_the_socket_never_takes_a_closed_standard_descriptors_place(begin, black_hole, closed):
    """Else messages, or downlinks, would be sent to the server."""
    client = begin(black_hole, "-v", "x", preexec_fn=lambda: [os.close(fd) for fd in closed], timeout=5)
    black_hole.wait_for_datagram()
    for fd in range(3):
        try:
            target = os.readlink(f"/proc/{client.pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        assert not target.startswith(("socket:", "anon_inode:")), f"{fd} is {target}"
    client.kill()
    assert all(datagram[0] == 22 for datagram in black_hole.datagrams())


def test_closed_input_and_errors_do_not_stop_a_delivery(send, inboxd):
    server = inboxd("--reply", "ack")
    result = send(server, *ONE, "-v", "x", preexec_fn=lambda: (os.close(0), os.close(2)))
    assert (result.status, result.stdout) == (0, b"ack\n")
    server.wait_for_payloads(b"x")


@pytest.mark.parametrize("source", [["--file", "-"], ["--lines"]])
def test_a_payload_from_a_closed_input_is_a_failure(send, black_hole, source):
    """Not an empty payload: nobody meant that."""
    result = send(black_hole, *source, preexec_fn=lambda: os.close(0))
    assert result.status == 66, result
    assert_one_line(result, "standard input")
    black_hole.assert_received_nothing()


def test_standard_input_is_not_read_unless_asked_for(begin, inboxd):
    """A shell's `while read` loop must not lose its lines to the program."""
    server = inboxd()
    reading, writing = os.pipe()
    os.write(writing, b"for somebody else")
    client = begin(server, "--wait", "0", "x", stdin=reading)
    assert_silent_success(client.finish())
    assert os.read(reading, 100) == b"for somebody else"
    os.close(reading)
    os.close(writing)
