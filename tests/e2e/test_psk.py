"""--psk: a pre-shared key instead of certificates."""

import os
import re
import struct
from pathlib import Path

import pytest

from client import SLOWNESS, assert_fails, assert_silent_success
from servers import Impostor, Relay

IDENTITY = "sensor-0042"
KEY = "3b8f21c09d7ae4564711ffee90ab12cd"
OTHER_KEY = "c4c4d5e60718293a4b5c6d7e8f901112"
UNUSABLE = 78

ANSWERED = ["--wait", "8", "--count", "1"]

# How openssl(1) calls the suites of src/dtls/policy.c.
SUITES = {
    "ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK_WITH_CHACHA20_POLY1305_SHA256": "PSK-CHACHA20-POLY1305",
    "PSK_WITH_AES_128_GCM_SHA256": "PSK-AES128-GCM-SHA256",
    "PSK_WITH_AES_256_GCM_SHA384": "PSK-AES256-GCM-SHA384",
    "PSK_WITH_AES_128_CCM": "PSK-AES128-CCM",
    "PSK_WITH_AES_128_CCM_8": "PSK-AES128-CCM8",
}
AEAD = {0xCCAC, 0xCCAB, 0x00A8, 0x00A9, 0xC0A4, 0xC0A8}  # the same in RFC 7905, 5487 and 6655


@pytest.fixture(name="write_psk")
def fixture_write_psk(tmp_path):
    """Writes a file for --psk, and returns its name."""

    def write(content=f"{IDENTITY}:{KEY}\n", name="device.psk", mode=0o600):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return name

    return write


@pytest.fixture(name="send_psk")
def fixture_send_psk(run, write_psk):
    """send_psk(server, ...) runs the client with the right key, or with what `content` says."""

    def send(server, *arguments, content=f"{IDENTITY}:{KEY}\n", **options):
        return run("--server", server.address, "--psk", write_psk(content), *arguments, **options)

    return send


@pytest.fixture(name="psk_inboxd")
def fixture_psk_inboxd(inboxd):
    """Starts an inboxd with that key."""
    return lambda *options, psk=f"{IDENTITY}:{KEY}", **more: inboxd("--psk", psk, *options, **more)


@pytest.fixture(name="psk_openssl")
def fixture_psk_openssl(openssl):
    """Starts an OpenSSL server with that key."""
    return lambda *options, **more: openssl(*options, psk=(IDENTITY, KEY), **more)


@pytest.fixture(name="psk_gnutls")
def fixture_psk_gnutls(gnutls):
    """Starts a GnuTLS server with that key."""
    return lambda *options, **more: gnutls(*options, psk=(IDENTITY, KEY), **more)


def suite_of(result):
    """The suite that -v names."""
    return re.search(r"TLS-(\S+PSK-WITH-[A-Z0-9-]+|PSK-WITH-[A-Z0-9-]+)", result.stderr)[1]


def offered(client_hello):
    """(session id, cipher suites) of a ClientHello in a datagram of its own."""
    assert client_hello[0] == 22 and client_hello[13] == 1
    body = client_hello[25 + 34:]
    session, body = body[1:1 + body[0]], body[1 + body[0]:]
    body = body[1 + body[0]:]  # the cookie
    length, = struct.unpack("!H", body[:2])
    return session, list(struct.unpack(f"!{length // 2}H", body[2:2 + length]))


def dumped(stderr):
    """All that mbed TLS's log has dumped, as bytes."""
    rows = re.findall(r"[0-9a-f]{4}:  ((?:[0-9a-f]{2} )+)", stderr)
    return bytes.fromhex("".join(rows))


def assert_tells_nothing(result, identity=IDENTITY, key=KEY):
    """Neither identity nor key, in whatever notation."""
    for said in (result.stdout.decode("latin-1"), result.stderr):
        assert identity not in said and key not in said.lower() and identity.encode().hex() not in said
        assert bytes.fromhex(key).decode("latin-1") not in said
    assert identity.encode() not in dumped(result.stderr)
    assert bytes.fromhex(key) not in dumped(result.stderr)


# Delivery

@pytest.mark.smoke
def test_a_payload_comes_to_inboxd_under_the_identity(send_psk, psk_inboxd):
    server = psk_inboxd("--reply", "ack")
    assert_silent_success(send_psk(server, *ANSWERED, "x"), b"ack\n")
    server.wait_for_payloads(b"x", device=IDENTITY)


def test_a_payload_comes_to_openssl(send_psk, psk_openssl):
    server = psk_openssl(reply=b"ack")
    assert_silent_success(send_psk(server, *ANSWERED, "x"), b"ack\n")
    server.wait_for_payloads(b"x")


def test_a_payload_comes_to_gnutls(send_psk, psk_gnutls):
    server = psk_gnutls()
    assert_silent_success(send_psk(server, *ANSWERED, "x"), b"x\n")
    server.wait_for_payloads(b"x")


def test_confirmation_works_without_certificates(send_psk, psk_inboxd):
    server = psk_inboxd("--reply", "ack", "--drop-uplinks", "1")
    assert_silent_success(send_psk(server, "--confirm", *ANSWERED, "x"), b"ack\n")
    server.wait_for_event("uplink")
    assert server.received(IDENTITY) == [b"x"]


def test_a_key_may_come_through_a_pipe(run, psk_inboxd):
    """As in --psk <(pass show device-psk)."""
    reading, writing = os.pipe()
    os.write(writing, f"{IDENTITY}:{KEY}\n".encode())
    os.close(writing)
    server = psk_inboxd()
    result = run("--server", server.address, "--psk", f"/dev/fd/{reading}", "--wait", "0", "x",
                 pass_fds=[reading])
    os.close(reading)
    assert_silent_success(result)
    server.wait_for_payloads(b"x", device=IDENTITY)


# Cipher suites

def test_the_suites_that_are_tested_are_those_of_the_policy():
    policy = Path(__file__).resolve().parents[2] / "src" / "dtls" / "policy.c"
    table = re.search(r"psk_cipher_suites\[\] = \{(.*?)\}", policy.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert re.findall(r"MBEDTLS_TLS_(\w+)", table) == list(SUITES)


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_of_the_policy_is_spoken(send_psk, psk_openssl, suite):
    server = psk_openssl("-cipher", f"{SUITES[suite]}:@SECLEVEL=0")
    result = send_psk(server, "--wait", "0", "-v", "x")
    assert result.status == 0, result
    assert suite_of(result).replace("-", "_") == suite
    server.wait_for_payloads(b"x")


@pytest.mark.parametrize("cipher", ["AES-128-CCM-8", "AES-128-CCM", "AES-128-GCM", "AES-256-GCM",
                                    "CHACHA20-POLY1305"])
def test_a_constrained_server_with_the_key_alone_is_spoken_to(send_psk, psk_gnutls, cipher):
    server = psk_gnutls("--priority", f"NORMAL:-KX-ALL:+PSK:-CIPHER-ALL:+{cipher}")
    result = send_psk(server, *ANSWERED, "-v", "x")
    assert (result.status, result.stdout) == (0, b"x\n"), result
    assert re.match(f"PSK-WITH-{cipher}", suite_of(result)), result


def test_ecdhe_is_offered_first_and_nothing_but_aead(start, write_psk, black_hole):
    start("--server", black_hole.address, "--psk", write_psk(), "x")
    _, suites = offered(black_hole.wait_for_datagram())
    assert suites[0] == 0xCCAC
    assert set(suites) - {0x00FF} == AEAD  # 0x00FF says: no renegotiation


@pytest.mark.parametrize("order", ["PSK-CHACHA20-POLY1305:ECDHE-PSK-CHACHA20-POLY1305",
                                   "ECDHE-PSK-CHACHA20-POLY1305:PSK-CHACHA20-POLY1305"])
def test_ecdhe_is_preferred_where_the_server_has_both(send_psk, psk_openssl, order):
    result = send_psk(psk_openssl("-cipher", order), "--wait", "0", "-v", "x")
    assert suite_of(result).startswith("ECDHE"), result


@pytest.mark.parametrize("suites", ["ECDHE-PSK-AES128-CBC-SHA256", "PSK-AES128-CBC-SHA",
                                    "DHE-PSK-AES128-GCM-SHA256", "RSA-PSK-AES128-GCM-SHA256"])
def test_a_server_without_aead_or_with_finite_field_groups_is_refused(send_psk, psk_openssl, suites):
    server = psk_openssl("-cipher", f"{suites}:@SECLEVEL=0")
    assert_fails(send_psk(server, "x"), 76, server.address, "cipher suite")
    server.assert_received_nothing()


def test_a_gnutls_server_with_cbc_alone_gets_nothing(send_psk, psk_gnutls):
    server = psk_gnutls("--priority", "NORMAL:-KX-ALL:+ECDHE-PSK:-CIPHER-ALL:+AES-128-CBC")
    result = send_psk(server, "x", timeout=1)
    assert result.status in (75, 76), result  # it sends no alert
    server.assert_received_nothing()


def test_a_server_that_knows_certificates_alone_is_refused(send_psk, openssl):
    server = openssl()
    assert_fails(send_psk(server, "x"), 76, server.address)
    server.assert_received_nothing()


def test_with_certificates_no_pre_shared_key_is_offered(begin, black_hole):
    begin(black_hole, "x")
    _, suites = offered(black_hole.wait_for_datagram())
    assert not AEAD & set(suites)


# Who is refused

def test_an_mbedtls_server_refuses_a_wrong_key(send_psk, psk_inboxd):
    server = psk_inboxd()
    result = send_psk(server, "x", content=f"{IDENTITY}:{OTHER_KEY}")
    assert_fails(result, 77, server.address, "pre-shared key")
    server.assert_received_nothing()


def test_an_mbedtls_server_refuses_an_unknown_identity(send_psk, psk_inboxd):
    server = psk_inboxd()
    result = send_psk(server, "x", content=f"somebody:{KEY}")
    assert_fails(result, 77, server.address, "identity")
    server.assert_received_nothing()


@pytest.mark.parametrize("content", [f"{IDENTITY}:{OTHER_KEY}", f"somebody:{OTHER_KEY}"])
@pytest.mark.parametrize("server", ["psk_openssl", "psk_gnutls"])
def test_a_wrong_key_is_the_guess_where_the_server_keeps_silent(send_psk, request, server, content):
    """It cannot read our Finished message, and drops it as noise; or it says so, as newer ones may."""
    server = request.getfixturevalue(server)()
    result = send_psk(server, "x", content=content, timeout=1)
    assert result.status in (75, 77), result
    assert_fails(result, result.status, server.address, ("--psk", "pre-shared key"))
    server.assert_received_nothing()


def test_openssl_keeps_silent(send_psk, psk_openssl):
    """So that is 75: it may as well be the network."""
    assert_fails(send_psk(psk_openssl(), "x", content=f"{IDENTITY}:{OTHER_KEY}", timeout=1), 75, "--psk")


@pytest.mark.parametrize("alert, status, word", [(80, 76, "perhaps it does not know the identity in --psk"),
                                                 (115, 77, "identity"), (51, 77, "pre-shared key"),
                                                 (40, 76, "in common")])
def test_what_the_server_says_of_an_unknown_identity_is_told(send_psk, peers, alert, status, word):
    record = b"\x15\xfe\xfd" + bytes(8) + b"\0\2\2" + bytes([alert])
    server = peers.enter_context(Impostor(lambda _: [record]))
    assert_fails(send_psk(server, "x"), status, f"alert {alert}", word)


# What is secret stays secret

@pytest.mark.parametrize("server", ["psk_inboxd", "psk_openssl", "psk_gnutls"])
def test_no_level_prints_identity_or_key(send_psk, request, server):
    server = request.getfixturevalue(server)()
    result = send_psk(server, "--wait", "0", "-vv", "x")
    assert result.status == 0, result
    assert len(dumped(result.stderr)) > 100 or "=> handshake" in result.stderr  # there is such a log
    assert_tells_nothing(result)


def test_a_refusal_prints_neither(send_psk, psk_inboxd):
    server = psk_inboxd()
    for content in (f"{IDENTITY}:{OTHER_KEY}", f"somebody:{KEY}"):
        result = send_psk(server, "-vv", "x", content=content)
        assert result.status == 77, result
        assert_tells_nothing(result, *content.split(":"))


def test_identity_and_key_are_not_on_the_command_line(start, write_psk, black_hole):
    client = start("--server", black_hole.address, "--psk", write_psk(), "x")
    black_hole.wait_for_datagram()
    for name in ("cmdline", "environ"):
        shown = Path(f"/proc/{client.pid}/{name}").read_bytes()
        assert IDENTITY.encode() not in shown and KEY.encode() not in shown
        assert name == "environ" or b"device.psk" in shown


@pytest.mark.parametrize("secret", [f"{IDENTITY}:{KEY}", f"a/b:{KEY}", f":{KEY}", KEY])
@pytest.mark.parametrize("more", [["x"], ["-v", "x"], ["--check"]])
def test_a_key_in_the_place_of_the_file_is_not_echoed(run, black_hole, secret, more):
    result = run("--server", black_hole.address, "--psk", secret, *more)
    assert result.status == UNUSABLE, result
    assert "--psk" in result.stderr and "file" in result.stderr
    assert_tells_nothing(result)
    black_hole.assert_received_nothing()


# The file

UNUSABLE_FILES = {
    "empty": b"",
    "newline": b"\n",
    "no colon": KEY.encode(),
    "bad hex": f"{IDENTITY}:{KEY[:-1]}g".encode(),
    "0x": f"{IDENTITY}:0x{KEY}".encode(),
    "hex with spaces": f"{IDENTITY}:3b 8f 21 c0".encode(),
    "odd digits": f"{IDENTITY}:{KEY[:-1]}".encode(),
    "empty key": f"{IDENTITY}:".encode(),
    "empty key and newline": f"{IDENTITY}:\r\n".encode(),
    "empty identity": f":{KEY}".encode(),
    "identity of 129 bytes": b"i" * 129 + f":{KEY}".encode(),
    "key too long": f"{IDENTITY}:{KEY * 5}".encode(),
    "two lines": f"{IDENTITY}:{KEY}\nother:{KEY}\n".encode(),
    "a comment before": f"# mine\n{IDENTITY}:{KEY}\n".encode(),
    "NUL": f"{IDENTITY}:{KEY}\0{KEY}".encode(),
    "binary": bytes(i * 167 % 256 for i in range(2000)),
    "too large": b"i" * 5000 + f":{KEY}".encode(),
}


@pytest.mark.parametrize("content", UNUSABLE_FILES.values(), ids=UNUSABLE_FILES)
def test_a_file_that_holds_no_key_is_named_before_anything_is_sent(send_psk, black_hole, content):
    result = send_psk(black_hole, "x", content=content)
    assert_fails(result, UNUSABLE, "device.psk", "identity:hexkey")
    assert_tells_nothing(result, key=KEY[:16])
    black_hole.assert_received_nothing()


def test_a_missing_file_is_named(run, black_hole):
    result = run("--server", black_hole.address, "--psk", "no-such.psk", "x")
    assert_fails(result, UNUSABLE, "no-such.psk", "No such file")
    black_hole.assert_received_nothing()


@pytest.mark.parametrize("content", [f"{IDENTITY}:{KEY}", f"{IDENTITY}:{KEY}\r\n", f"{IDENTITY}:{KEY} \n\n",
                                     f"{IDENTITY}:{KEY.upper()}\n"],
                         ids=["no newline", "CRLF", "blanks", "upper case"])
def test_how_the_line_ends_is_no_matter(send_psk, psk_inboxd, content):
    server = psk_inboxd()
    assert_silent_success(send_psk(server, "--wait", "0", "x", content=content))
    server.wait_for_payloads(b"x", device=IDENTITY)


@pytest.mark.parametrize("identity", ["urn:dev:mac:0024befffe804ff1", "i" * 128, "with space"])
def test_an_identity_may_hold_colons_and_128_bytes(send_psk, psk_inboxd, identity):
    server = psk_inboxd(psk=f"{identity}:{KEY}")
    assert_silent_success(send_psk(server, "--wait", "0", "x", content=f"{identity}:{KEY}\n"))
    # Which names the device's directory, as far as it is fit for that.
    server.wait_for_payloads(b"x", device=server.wait_for_event("uplink")[0])


@pytest.mark.parametrize("size", [1, 32])
def test_a_key_may_have_one_byte_and_thirty_two(send_psk, psk_inboxd, size):
    server = psk_inboxd(psk=f"{IDENTITY}:{'5a' * size}")
    assert_silent_success(send_psk(server, "--wait", "0", "x", content=f"{IDENTITY}:{'5a' * size}"))
    server.wait_for_payloads(b"x", device=IDENTITY)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_a_file_that_others_can_read_is_refused(run, write_psk, black_hole, mode):
    result = run("--server", black_hole.address, "--psk", write_psk(mode=mode), "x")
    assert_fails(result, UNUSABLE, "device.psk", "others can read it", "chmod 600")
    black_hole.assert_received_nothing()


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_its_owner_alone_can_read_is_taken(start, write_psk, black_hole, mode):
    start("--server", black_hole.address, "--psk", write_psk(mode=mode), "x")
    black_hole.wait_for_datagram()


# With other options

@pytest.mark.parametrize("option", ["--cert", "--key", "--ca", "--passphrase-file"])
def test_a_key_and_certificates_exclude_each_other(run, write_psk, black_hole, option):
    for order in (["--psk", write_psk(), option, "some-file"], [option, "some-file", "--psk", write_psk()]):
        result = run("--server", black_hole.address, *order, "x")
        assert_fails(result, 64, "--psk", option)
    black_hole.assert_received_nothing()


def test_the_session_does_not_replace_the_key(run, write_psk, black_hole, tmp_path):
    result = run("--server", black_hole.address, "--psk", write_psk(), "--session", "device.psk", "x")
    assert_fails(result, 64, "--session")
    assert (tmp_path / "device.psk").read_text(encoding="ascii").startswith(IDENTITY)


def test_a_repeat_run_is_one_datagram(send_psk, psk_inboxd, peers, run_dir):
    server = psk_inboxd("--reply", "ack")
    relay = peers.enter_context(Relay(server))
    again = ["--confirm", "--session", run_dir / "session", *ANSWERED, "x"]
    assert_silent_success(send_psk(relay, *again), b"ack\n")
    first = len(relay.up)
    assert first > 3
    assert_silent_success(send_psk(relay, *again), b"ack\n")
    assert len(relay.up) == first + 1
    assert server.received(IDENTITY) == [b"x", b"x"]


@pytest.mark.parametrize("server", ["psk_openssl", "psk_gnutls"])
def test_a_session_is_kept_with_other_servers_too(send_psk, request, server, run_dir):
    """Whatever they allow: an association, or a session to resume."""
    server = request.getfixturevalue(server)()
    for _ in range(2):
        result = send_psk(server, "--session", run_dir / "session", "--wait", "0", "-v", "x")
        assert result.status == 0, result
        assert (run_dir / "session").exists()
    assert "full handshake" not in result.stderr or "resum" in result.stderr, result


@pytest.mark.parametrize("content", [f"{IDENTITY}:{OTHER_KEY}\n", f"somebody:{KEY}\n"])
def test_what_was_kept_is_of_no_use_with_another_key(send_psk, write_psk, start, psk_inboxd, peers, content,
                                                      run_dir):
    relay = peers.enter_context(Relay(psk_inboxd("--reply", "ack")))
    again = ["--confirm", "--session", run_dir / "session", *ANSWERED, "x"]
    assert_silent_success(send_psk(relay, *again), b"ack\n")
    before = len(relay.up)
    result = send_psk(relay, *again, content=content)
    assert result.status == 77, result
    session, _ = offered(relay.up[before])
    assert session == b""


def test_a_kept_certificate_session_is_of_no_use_with_a_key(run, send, write_psk, inboxd, peers, run_dir):
    relay = peers.enter_context(Relay(inboxd("--reply", "ack")))
    kept = ["--confirm", "--session", run_dir / "session", *ANSWERED]
    assert_silent_success(send(relay, *kept, "x"), b"ack\n")
    before = len(relay.up)
    result = run("--server", relay.address, "--psk", write_psk(), *kept, "x", timeout=2)
    assert result.status in (75, 76), result
    assert offered(relay.up[before])[0] == b""
    assert result.seconds < 10 * SLOWNESS
