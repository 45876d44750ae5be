"""The exit statuses are an interface: each of them, provoked, with its one line on stderr."""

import shutil
import socket
import struct
import subprocess

import pytest

from client import PROGRAM, WRAPPER, answering_names, assert_fails, assert_one_line, assert_silent_success
from servers import Relay


def succeed(send, request):
    """Every payload was sent."""
    return send(request.getfixturevalue("openssl")(), "--wait", "0", "x")


def misspell(send, request):
    """A bad value."""
    return send(request.getfixturevalue("black_hole"), "--wait", "soon", "x")


def exceed(send, request):
    """A payload too large for one record."""
    return send(request.getfixturevalue("black_hole"), "x" * 16385)


def lose_the_file(send, request):
    """A payload file that is not there."""
    return send(request.getfixturevalue("black_hole"), "--file", "missing")


def ask_for_nobody(send, _request):
    """A host name that does not exist."""
    return send("nobody.test:1234", "x", env=answering_names("none"))


def knock_at_a_closed_door(send, request):
    """A server that is not running."""
    return send(request.getfixturevalue("refused"), "x")


def fill_the_disk(send, request):
    """A standard output that takes nothing."""
    with open("/dev/full", "wb") as full:
        return send(request.getfixturevalue("black_hole"), "x", stdout=full)


def meet_silence(send, request):
    """A server that never answers."""
    return send(request.getfixturevalue("black_hole"), "x", timeout=0.3)


def meet_an_old_server(send, request):
    """A server without any suite that is good enough."""
    return send(request.getfixturevalue("openssl")("-cipher", "ECDHE-ECDSA-AES128-SHA"), "x")


def meet_a_stranger(send, request):
    """A server whose certificate is not to be trusted."""
    return send(request.getfixturevalue("openssl")(certificate="server-wrong-ca"), "x")


def bring_an_old_certificate(send, request):
    """An expired certificate of our own."""
    pki = request.getfixturevalue("pki")
    return request.getfixturevalue("run")("--cert", pki.bundle("device-expired"), "--key",
                                          pki.key("device-expired"), "x")


FAILURES = {64: (misspell, "--wait"), 65: (exceed, "16384"), 66: (lose_the_file, "missing"),
            68: (ask_for_nobody, "nobody.test"), 69: (knock_at_a_closed_door, "127.0.0.1"),
            74: (fill_the_disk, "standard output"), 75: (meet_silence, "127.0.0.1"),
            76: (meet_an_old_server, "handshake"), 77: (meet_a_stranger, "certificate"),
            78: (bring_an_old_certificate, "expired")}


def test_status_0_means_that_all_was_sent(send, request):
    assert_silent_success(succeed(send, request))


@pytest.mark.parametrize("status", FAILURES)
def test_each_failure_has_its_status_and_one_line(send, request, status):
    provoke, word = FAILURES[status]
    result = provoke(send, request)
    assert result.status == status, result
    assert result.stdout == b""
    assert_one_line(result, word)


@pytest.mark.parametrize("status", sorted(set(FAILURES) - {64, 78}))
def test_quiet_leaves_only_the_status(send, request, status):
    """But for a mistake on the command line itself; and 78 is in test_usage.py."""
    def send_quietly(server, *arguments, **options):
        return send(server, "--quiet", *arguments, **options)
    result = FAILURES[status][0](send_quietly, request)
    assert (result.status, result.stderr) == (status, ""), result


# What is refused before anything is sent, and the first of several failures

@pytest.mark.parametrize("arguments, words", [
    (["x" * 16385], ["16384"]),
    (["--hex", "0"], ["odd"]),
    (["--hex", "abc"], ["odd"]),
    (["--hex", "0x10"], ["hex"]),
    (["--hex", "zz"], ["hex"]),
    (["--hex", "00-11"], ["hex"]),
    (["--hex", "00" * 16385], ["16384"])])
def test_a_payload_that_cannot_be_sent_is_refused_first(send, black_hole, arguments, words):
    result = send(black_hole, *arguments)
    assert result.status == 65, result
    assert_one_line(result, *words)
    black_hole.assert_received_nothing()


@pytest.mark.parametrize("size", [16385, 100000, 5000000])
@pytest.mark.parametrize("source", ["file", "stdin", "line"])
def test_a_source_that_is_too_large_is_refused_first(send, black_hole, tmp_path, source, size):
    payload = b"x" * size
    (tmp_path / "payload").write_bytes(payload)
    options = {"file": ["--file", "payload"], "stdin": ["--file", "-"], "line": ["--lines"]}[source]
    result = send(black_hole, *options, **({} if source == "file" else {"stdin": payload}))
    assert result.status == 65, result
    assert_one_line(result, "16384", {"file": "payload", "stdin": "standard input", "line": "line 1"}[source])
    black_hole.assert_received_nothing()


@pytest.mark.parametrize("path", ["missing", "missing/payload", "."])
def test_a_payload_file_that_cannot_be_read_is_named(send, black_hole, path):
    result = send(black_hole, "--file", path)
    assert result.status == 66, result
    assert_one_line(result, path)
    black_hole.assert_received_nothing()


@pytest.mark.parametrize("arguments", [["--file", "empty"], ["--file", "-"], ["--lines"], ["--hex", "--file", "-"]])
def test_an_empty_source_is_no_payload(send, black_hole, tmp_path, arguments):
    """It is what a broken sensor writes."""
    (tmp_path / "empty").touch()
    result = send(black_hole, *arguments, stdin=b"\n" if "--hex" in arguments else b"")
    assert result.status == 66, result
    assert_one_line(result, "empty" if "empty" in arguments else "standard input", "is empty", "''")
    black_hole.assert_received_nothing()


def test_bad_hex_is_not_quoted(send, black_hole):
    result = send(black_hole, "--hex", "secret")
    assert result.status == 65
    assert "secret" not in result.stderr


def test_a_bad_line_does_not_keep_the_others_from_being_sent(send, inboxd):
    server = inboxd()
    result = send(server, "--wait", "0", "--hex", "--lines", stdin=b"01\nbad\n03\n")
    assert result.status == 65
    assert_one_line(result, "line 2")
    server.wait_for_payloads(b"\1", b"\3")


def test_a_line_that_is_too_large_does_not_keep_the_others_from_being_sent(send, inboxd):
    server = inboxd()
    result = send(server, "--wait", "0", "--lines", stdin=b"one\n" + b"x" * 40000 + b"\nthree\n")
    assert result.status == 65
    assert_one_line(result, "line 2", "16384")
    server.wait_for_payloads(b"one", b"three")


# Nobody without keys decides a run

class Meddler(Relay):
    """Answers the first attempts, each of which has a port of its own, instead of the server."""

    def __init__(self, server, forge, attempts):
        self._forge, self._attempts = forge, attempts
        self._ports = set()
        super().__init__(server)

    def passes(self, client):
        self._ports.add(client[1])
        if len(self._ports) > self._attempts:
            return True
        self._forge(self, client)
        return False

    def refuse(self, client):
        """Port unreachable (RFC 792), as any router may say, or who pretends to be one."""
        own, other = (socket.inet_aton(host) for host in ("127.0.0.1", client[0]))
        quoted = struct.pack("!BBHHHBBH4s4sHHHH", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, 0, other, own,
                             client[1], self.port, 8, 0)
        words = struct.unpack("!18H", struct.pack("!BBHI", 3, 3, 0, 0) + quoted)
        total = sum(words)
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.sendto(struct.pack("!BBHI", 3, 3, 0xFFFF - total, 0) + quoted, (client[0], 0))

    def alert(self, client):
        """handshake_failure, in the clear."""
        self._near.sendto(b"\x15\xfe\xfd" + bytes(8) + b"\0\2\2\x28", client)


def may_forge(forge):
    """Skips the test where only root could do that."""
    if forge is Meddler.refuse:
        try:
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
        except PermissionError:
            pytest.skip("only root can forge a refusal")


FORGERIES = pytest.mark.parametrize("forge, status", [(Meddler.refuse, 69), (Meddler.alert, 76)],
                                    ids=["refusal", "alert"])


@FORGERIES
def test_what_comes_in_one_attempt_alone_does_not_decide_a_run(send, inboxd, peers, forge, status):
    may_forge(forge)
    server = inboxd()
    between = peers.enter_context(Meddler(server, forge, 1))
    result = send(between, "--wait", "0", "x")
    assert result.status not in (status, 75), result
    assert_silent_success(result)
    assert len({*between.up}) > 2
    server.wait_for_payloads(b"x")


@FORGERIES
def test_what_comes_in_a_second_attempt_too_is_believed(send, inboxd, peers, forge, status):
    may_forge(forge)
    server = inboxd()
    between = peers.enter_context(Meddler(server, forge, 2))
    result = send(between, "--wait", "0", "x")
    assert_fails(result, status, between.address)
    assert len(between.up) == 2 and result.seconds < 2, result
    server.assert_received_nothing()


def test_refusals_are_waited_out_where_a_payload_is_to_be_confirmed(send, inboxd, peers):
    may_forge(Meddler.refuse)
    server = inboxd("--reply", "answer")
    between = peers.enter_context(Meddler(server, Meddler.refuse, 4))
    assert_silent_success(send(between, "--confirm", "--count", "1", "x"), b"answer\n")
    server.wait_for_payloads(b"x")


def test_credentials_are_read_once_a_run(start, credentials, inboxd, tmp_path):
    """However many handshakes it makes."""
    strace = shutil.which("strace")
    if strace is None or WRAPPER:
        pytest.skip("needs strace, and no wrapper")
    server = inboxd("--reply", "answer", "--drop-uplinks", "1")
    program = tmp_path / "traced"
    program.write_text(f"#!/bin/sh\nexec {strace} -f -e trace=open,openat -o trace {PROGRAM} \"$@\"\n",
                       encoding="utf-8")
    program.chmod(0o755)
    result = start("--server", server.address, *credentials, "--confirm", "--lines", "--wait", "0", "-v",
                   program=program, stdin=subprocess.PIPE,
                   env={"ASAN_OPTIONS": "detect_leaks=0"}).finish(b"one\ntwo\n")
    if "PTRACE" in result.stderr:
        pytest.skip(result.stderr)
    assert result.status == 0 and result.stderr.count(" handshake, ") == 2, result
    trace = (tmp_path / "trace").read_text(encoding="utf-8", errors="replace")
    assert [trace.count(f'"{credentials[i]}"') for i in (1, 3)] == [1, 1]
