"""The exit statuses are an interface: each of them, provoked, with its one line on stderr."""

import pytest

from client import answering_names, assert_one_line, assert_silent_success


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
