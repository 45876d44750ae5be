"""The line that tells how far long work has got: on a terminal, and there alone."""

import contextlib
import os
import pty
import re
import subprocess
import threading

import pytest

LINES = b"".join(b"%d\n" % number for number in range(2000))  # takes two seconds, since they are paced


class Terminal:
    """A pseudo-terminal, and all that was written on it."""

    def __init__(self):
        self._ours, self.theirs = pty.openpty()
        self._written = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # nobody has it open any more
            while chunk := os.read(self._ours, 65536):
                self._written += chunk

    def written(self):
        """All of it; nothing more can be written then."""
        os.close(self.theirs)
        self.theirs = None
        self._reader.join()
        return self._written.decode()

    def close(self):
        """Releases it."""
        if self.theirs is not None:
            self.written()
        os.close(self._ours)


@pytest.fixture(name="terminal")
def fixture_terminal():
    """A terminal for stderr, or stdout."""
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_long_work_tells_how_far_it_got_and_leaves_no_trace(inboxd, send, terminal):
    server = inboxd()
    result = send(server, "--lines", "--wait", "0", stdin=LINES, stderr=terminal.theirs)
    assert result.status == 0
    written = terminal.written()
    counts = [int(count) for count in re.findall(r"\rdtls-send: (\d+) sent", written)]
    # The last of them may be that of the last payload.
    assert len(counts) > 1 and counts == sorted(set(counts)) and counts[-1] <= 2000
    assert re.search(r"\r +\r$", written), "the line is still there"
    assert "\x1b" not in written and "\n" not in written


def test_a_flush_tells_how_much_there_is(inboxd, send, terminal, tmp_path):
    (tmp_path / "queue").mkdir(mode=0o700)
    for number in range(1, 2001):
        (tmp_path / f"queue/{number:016}").touch(mode=0o600)
    result = send(inboxd(), "--flush", "--queue", "queue", "--wait", "0", stderr=terminal.theirs)
    assert result.status == 0
    assert re.search(r"\rdtls-send: \d+/2000 sent", terminal.written())


def test_a_downlink_on_the_same_terminal_has_a_line_of_its_own(inboxd, send, terminal):
    server = inboxd("--reply", "answer")
    result = send(server, "--lines", "--wait", "0.1", stdin=LINES, stdout=terminal.theirs, stderr=terminal.theirs)
    assert result.status == 0
    written = terminal.written()
    assert re.search(r"\rdtls-send: \d+ sent\r +\ranswer\r\n", written)
    assert not re.search(r"sentanswer", written)


@pytest.mark.parametrize("options", [["--quiet"], ["--verbose"]])
def test_who_asked_for_more_or_less_gets_no_such_line(options, inboxd, send, terminal):
    result = send(inboxd(), "--lines", "--wait", "0", *options, stdin=LINES, stderr=terminal.theirs)
    assert result.status == 0
    assert not re.search(r"\d sent", terminal.written())


def test_without_a_terminal_there_is_no_such_line(inboxd, send):
    result = send(inboxd(), "--lines", "--wait", "0", stdin=LINES, stderr=subprocess.PIPE)
    assert (result.status, result.stderr) == (0, "")
