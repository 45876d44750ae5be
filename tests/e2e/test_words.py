"""What is said on stderr: nothing on success, a line a step with -v, the library's log with -vv."""

import re

import pytest

from client import answering_names, assert_fails, assert_silent_success
from pki import openssl as openssl_command
from servers import RefusedPort

ONE = ["--wait", "8", "--count", "1"]


def lines_of(result):
    """The lines on stderr, each of which must be ours, and fit for a log."""
    lines = result.stderr.splitlines()
    for line in lines:
        assert line.startswith("dtls-send: ") and line.isprintable(), line
    return lines


@pytest.mark.smoke
def test_verbose_tells_the_steps(send, inboxd):
    server = inboxd("--reply", "hello there")
    result = send(server, *ONE, "-v", "0123456789")
    assert (result.status, result.stdout) == (0, b"hello there\n")
    text = "\n".join(lines_of(result))
    assert server.address in text
    assert "full" in text  # the kind of handshake
    assert re.search(r"ECDHE.ECDSA.*(GCM|CHACHA20|CCM)", text)
    assert re.search(r"\b\d+(\.\d+)? (ms|µs|us|s)\b", text)  # the round trip
    assert re.search(r"\b10 bytes", text) and re.search(r"\b11 bytes", text)  # up and down
    assert 4 <= len(lines_of(result)) <= 12


def test_verbose_tells_each_address_that_is_tried(send, inboxd, peers):
    server = inboxd()
    peers.enter_context(RefusedPort("127.0.0.2", server.port))
    result = send(server.named("localhost"), "--wait", "0", "-v", "x",
                  env=answering_names("127.0.0.2,127.0.0.1"))
    assert result.status == 0
    text = "\n".join(lines_of(result))
    assert text.index(f"127.0.0.2:{server.port}") < text.index(f"127.0.0.1:{server.port}")


def test_verbose_warns_of_a_key_that_others_can_read(run, openssl, pki, tmp_path):
    (tmp_path / "open.key").write_bytes(pki.key("device").read_bytes())
    for mode, warned in ((0o644, True), (0o640, True), (0o600, False), (0o400, False)):
        (tmp_path / "open.key").chmod(mode)
        result = run("--server", openssl().address, "--cert", pki.bundle("device"), "--key", "open.key",
                     "--wait", "0", "-v", "x")
        assert result.status == 0
        assert ("open.key" in result.stderr) == warned, result


def test_such_a_key_is_no_matter_for_a_cron_mail(run, openssl, pki, tmp_path):
    (tmp_path / "open.key").write_bytes(pki.key("device").read_bytes())
    (tmp_path / "open.key").chmod(0o644)
    assert_silent_success(run("--server", openssl().address, "--cert", pki.bundle("device"), "--key",
                              "open.key", "--wait", "0", "x"))


@pytest.mark.parametrize("level", [["-v"], ["-vv"], ["-v", "-v", "--verbose"]])
def test_no_level_prints_a_secret(run, openssl, pki, tmp_path, level):
    """Not the payload, the passphrase, the downlink, nor the connection's keys."""
    (tmp_path / "passphrase").write_text("open sesame", encoding="ascii")
    openssl_command("pkey", "-in", pki.key("device"), "-traditional", "-aes128", "-passout",
                    f"file:{tmp_path / 'passphrase'}", "-out", tmp_path / "the.key")
    keylog = tmp_path / "secrets"
    server = openssl("-keylogfile", str(keylog), reply=b"secret downlink")
    result = run("--server", server.address, "--cert", pki.bundle("device"), "--key", "the.key",
                 "--passphrase-file", "passphrase", *ONE, *level, "secret payload")
    assert (result.status, result.stdout) == (0, b"secret downlink\n"), result
    lines_of(result)
    # As text, and as mbed TLS dumps buffers.
    said = re.sub(r"[^0-9a-f]", "", result.stderr.lower())
    for secret in ("secret payload", "secret downlink", "open sesame"):
        assert secret not in result.stderr
        assert secret.encode().hex() not in said
    master = next(line.split()[2] for line in keylog.read_text(encoding="ascii").splitlines()
                  if line.startswith("CLIENT_RANDOM"))
    assert master[:32] not in said
    assert not re.search(r"(?i)dump.*(secret|key block)", result.stderr)


def test_very_verbose_adds_the_librarys_log(send, openssl):
    once = send(openssl(), "--wait", "0", "-v", "x")
    twice = send(openssl(), "--wait", "0", "-vv", "x")
    assert once.status == twice.status == 0
    assert len(lines_of(twice)) > 3 * len(lines_of(once))


def test_a_failure_is_one_line_after_the_steps(send, refused):
    result = send(refused, "-v", "x")
    assert result.status == 69
    assert len(lines_of(result)) >= 2
    assert refused.address in lines_of(result)[-1]


def test_what_a_server_says_of_itself_cannot_drive_the_terminal(send, black_hole):
    """Nor what stands in a host name."""
    result = send("bad\x1b[31mhost\n.test:1", "x", timeout=0.5)
    assert result.status != 0
    assert lines_of(result)


def test_a_message_names_host_and_port_as_they_were_given(send, refused):
    assert_fails(send(refused.named("localhost"), "x", env=answering_names("127.0.0.1")), 69,
                 f"localhost:{refused.port}")
