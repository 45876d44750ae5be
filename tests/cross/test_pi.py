"""What a small processor with a 32-bit clock could break: run with tests/e2e/conftest.py, see run.sh."""

import signal

import pytest

from client import assert_fails, assert_silent_success
from pki import Pki
from servers import Inboxd, state_of, wait_until

pytestmark = pytest.mark.smoke

YEAR = 365  # days


@pytest.fixture(name="saved")
def fixture_saved(run_dir):
    """Options that keep the session between runs."""
    return ["--session", str(run_dir / "session"), "--confirm", "--count", "1", "-v"]


def is_reuse(result):
    """Whether the run made no handshake."""
    return result.status == 0 and "reused" in result.stderr


def pattern(size):
    """Bytes in which every shift, cut or repetition shows."""
    return bytes((i * 7 + i // 256) % 256 for i in range(size))


@pytest.mark.parametrize("size", [0, 1, 16383, 16384])
def test_any_size_is_whole_up_and_down_in_first_and_repeat_runs(send, inboxd, tmp_path, saved, size):
    server = inboxd()
    (tmp_path / "payload").write_bytes(pattern(size))
    source = ["--file", "payload"] if size > 0 else [""]  # an empty file is none
    for reused in (False, True):
        server.queue(pattern(size))
        result = send(server, *saved, "--output", "raw", *source)
        assert result.status == 0 and result.stdout == pattern(size) and is_reuse(result) == reused, result
    server.wait_for_payloads(pattern(size), pattern(size))


def test_coaps_payloads_and_bodies_are_whole_in_first_and_repeat_runs(run, pki, inboxd, tmp_path, run_dir):
    """In blocks."""
    server = inboxd("--coap")
    (tmp_path / "payload").write_bytes(pattern(5000))
    for reused in (False, True):
        server.queue(pattern(3000))
        result = run("--server", f"coaps://{server.address}/x", "--cert", pki.bundle("device"), "--key",
                     pki.key("device"), "--session", run_dir / "session", "-v", "--output", "raw", "--file",
                     "payload")
        assert result.stdout == pattern(3000) and is_reuse(result) == reused, result
    server.wait_for_payloads(pattern(5000), pattern(5000))


def test_lines_are_sent_in_first_and_repeat_runs(send, inboxd, saved):
    server = inboxd("--reply", "answer")
    for reused in (False, True):
        result = send(server, *saved[:-3], "-v", "--wait", "0", "--lines", stdin=b"one\ntwo\nthree\n")
        assert result.stdout == b"answer\n" * 3 and is_reuse(result) == reused, result
    server.wait_for_payloads(*[b"one", b"two", b"three"] * 2)


def issue_beyond_2038(directory):
    """A PKI whose dates do not fit 32 bits: written with two digits of the year until 2049, with four after."""
    directory.mkdir()
    pki = Pki(directory)
    for name, issuer, years, extensions in [
            ("root", None, 40, "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign"),
            ("server", "root", 35, "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1"),
            ("device", "root", 20, "extendedKeyUsage=clientAuth")]:
        # pylint: disable-next=protected-access
        pki._issue(name, name, issuer, extensions, {"end": years * YEAR})
    pki.bundle("device").write_bytes(pki.leaf("device").read_bytes() + pki.leaf("root").read_bytes())
    return pki


def test_certificates_may_outlive_2038(run, tmp_path, peers, saved):
    pki = issue_beyond_2038(tmp_path / "pki")
    server = peers.enter_context(Inboxd(pki, tmp_path, "--reply", "answer"))
    for payload, reused in (("first", False), ("second", True)):
        result = run("--server", server.address, "--cert", pki.bundle("device"), "--key", pki.key("device"),
                     *saved, payload)
        assert result.stdout == b"answer\n" and is_reuse(result) == reused, result
    server.wait_for_payloads(b"first", b"second")


def test_the_longest_wait_does_not_end_at_once(begin, openssl):
    server = openssl()
    week = "604800"  # its microseconds do not fit 32 bits
    client = begin(server, "--wait", week, "--timeout", week, "x", timeout=None)
    server.wait_for_payloads(b"x")
    wait_until(lambda: state_of(client.pid) == "S" or not client.running(), "end or sleep")
    assert client.running()
    client.send_signal(signal.SIGTERM)
    assert client.finish().status == 128 + signal.SIGTERM


def test_what_could_not_be_sent_waits_and_is_delivered_later(send, inboxd, refused, black_hole, tmp_path):
    queue = ["--queue", str(tmp_path / "queue")]
    assert_fails(send(refused, *queue, "first"), 69)
    assert_fails(send(black_hole, *queue, "second", timeout=0.3), 75)
    server = inboxd("--reply", "answer")
    result = send(server, *queue, "--flush", "--confirm", "--wait", "0")
    assert_silent_success(result, b"answer\nanswer\n")
    server.wait_for_payloads(b"first", b"second")
    assert_silent_success(send(server, *queue, "--flush"))
    assert len(server.received()) == 2
