"""Nothing is sent to a server that has not proved who it is, nor over anything weaker than it should be."""

import struct

import pytest

from client import answering_names, assert_fails, assert_silent_success
from pki import Pki
from pki import openssl as openssl_command
from servers import Forger, OpensslServer, Relay

UNTRUSTED = 77
PROTOCOL = 76
LEAVE = ["--wait", "0", "secret payload"]

# certificate: words of the reason
REFUSED_CERTIFICATES = {
    "server-wrong-ca": ["not", "trust"],
    "server-self-signed": ["not", "trust"],
    "server-other-name": ["localhost"],
    "server-expired": ["expired"],
    "server-not-yet-valid": [("not yet valid", "future")],
    "server-old-intermediate": ["expired"],
    "server-client-auth": ["not meant for servers", "extended key usage"],
    "other-device": ["not meant for servers", "extended key usage"],
    "server-common-name-alone": ["subjectAltName", "extended key usage"],
    "server-common-name-any-usage": ["subjectAltName", "extended key usage"],
}


# mbed TLS, which inboxd stands on, will not even try to serve with a certificate that is not for servers.
UNSERVABLE = {("inboxd", "server-client-auth"), ("inboxd", "other-device")}


@pytest.mark.parametrize("kind, certificate", [
    (kind, certificate) for kind in ("openssl", "gnutls", "inboxd") for certificate in REFUSED_CERTIFICATES
    if (kind, certificate) not in UNSERVABLE])
def test_an_unacceptable_server_is_refused_and_nothing_is_sent(send, request, kind, certificate):
    server = request.getfixturevalue(kind)(certificate=certificate)
    result = send(server.named("localhost"), *LEAVE, env=answering_names("127.0.0.1"))
    assert_fails(result, UNTRUSTED, f"localhost:{server.port}", *REFUSED_CERTIFICATES[certificate])
    server.assert_received_nothing()


def test_an_rsa_key_of_1024_bits_is_refused(send, openssl):
    server = openssl("-cipher", "DEFAULT@SECLEVEL=0", certificate="server-rsa-1024")
    assert_fails(send(server, *LEAVE), UNTRUSTED, "key is too weak")
    server.assert_received_nothing()


@pytest.mark.smoke
def test_a_wrong_ca_is_refused_and_nothing_is_sent(send, openssl):
    server = openssl(certificate="server-wrong-ca")
    assert_fails(send(server, *LEAVE), UNTRUSTED)
    server.assert_received_nothing()


@pytest.mark.smoke
def test_a_wrong_name_is_refused_and_nothing_is_sent(send, openssl):
    server = openssl(certificate="server-other-name")
    result = send(server.named("localhost"), *LEAVE, env=answering_names("127.0.0.1"))
    assert_fails(result, UNTRUSTED, "name", "localhost")
    server.assert_received_nothing()


@pytest.mark.parametrize("certificate, date", [("server-expired", "end_date"),
                                               ("server-not-yet-valid", "start_date")])
def test_the_date_that_a_server_certificate_fails_by_is_told(send, openssl, pki, certificate, date):
    """Which tells a server that was not renewed from a device whose clock is wrong."""
    server = openssl(certificate=certificate)
    assert_fails(send(server, *LEAVE), UNTRUSTED, getattr(pki, date)(certificate))


def test_the_server_learns_why_it_was_refused(send, openssl):
    """An alert, so that the operator of the server sees the reason too; not just silence."""
    server = openssl(certificate="server-wrong-ca")
    assert send(server, *LEAVE).status == UNTRUSTED
    server.wait_for_complaint("alert unknown ca")


@pytest.mark.parametrize("certificate", ["server", "server-p384", "server-rsa"])
@pytest.mark.parametrize("kind", ["openssl", "inboxd"])
def test_every_kind_of_good_server_is_accepted(send, request, kind, certificate):
    server = request.getfixturevalue(kind)(certificate=certificate)
    assert_silent_success(send(server, *LEAVE))
    server.wait_for_payloads(b"secret payload")


# Names

@pytest.mark.parametrize("name", ["localhost", "LocalHost", "localhost.", "server.test"])
def test_a_name_of_the_certificate_is_accepted(send, openssl, name):
    server = openssl()
    assert_silent_success(send(server.named(name), *LEAVE, env=answering_names("127.0.0.1")))
    server.wait_for_payloads(b"secret payload")


@pytest.mark.parametrize("name", ["other.test", "test", "x.localhost", "localhost.test", "server.tes",
                                  "server.test.evil.test", "127.0.0.1.test"])
def test_another_name_is_refused(send, openssl, name):
    server = openssl()
    result = send(server.named(name), *LEAVE, env=answering_names("127.0.0.1"))
    assert_fails(result, UNTRUSTED, name)
    server.assert_received_nothing()


@pytest.mark.parametrize("kind", ["openssl", "inboxd"])
def test_a_common_name_counts_where_the_certificate_says_that_it_is_a_servers(send, request, kind):
    server = request.getfixturevalue(kind)(certificate="server-common-name")
    names = answering_names("127.0.0.1")
    assert_fails(send(server.named("server.test"), *LEAVE, env=names), UNTRUSTED, "server.test")
    server.assert_received_nothing()
    assert_silent_success(send(server.named("localhost"), *LEAVE, env=names))
    server.wait_for_payloads(b"secret payload")


def test_a_wildcard_stands_for_one_label(send, openssl):
    server = openssl(certificate="server-wildcard")
    names = answering_names("127.0.0.1")
    assert_fails(send(server.named("a.b.server.test"), *LEAVE, env=names), UNTRUSTED)
    assert_fails(send(server.named("server.test"), *LEAVE, env=names), UNTRUSTED)
    server.assert_received_nothing()
    assert_silent_success(send(server.named("a.server.test"), *LEAVE, env=names))
    server.wait_for_payloads(b"secret payload")


@pytest.mark.parametrize("kind", ["openssl", "inboxd"])
def test_an_address_is_matched_against_the_certificates_addresses(send, request, kind):
    server = request.getfixturevalue(kind)(certificate="server-ip-only")
    assert_silent_success(send(server, *LEAVE))
    server.wait_for_payloads(b"secret payload")


@pytest.mark.parametrize("certificate", ["server-localhost-only", "server-ip-as-text"])
def test_an_address_is_not_matched_against_the_certificates_dns_names(send, openssl, certificate):
    server = openssl(certificate=certificate)
    assert_fails(send(server, *LEAVE), UNTRUSTED, "127.0.0.1")
    server.assert_received_nothing()


def test_another_address_of_the_same_machine_is_refused(send, openssl):
    server = openssl(certificate="server-ip-only")
    result = send(server, "--server-name", "127.0.0.2", *LEAVE)
    assert_fails(result, UNTRUSTED, "127.0.0.2")
    server.assert_received_nothing()


def test_a_name_is_not_matched_against_the_certificates_addresses(send, openssl):
    server = openssl(certificate="server-ip-only")
    result = send(server.named("localhost"), *LEAVE, env=answering_names("127.0.0.1"))
    assert_fails(result, UNTRUSTED, "localhost")
    server.assert_received_nothing()


@pytest.mark.parametrize("name", ["::1", "0:0:0:0:0:0:0:1"])
def test_an_ipv6_address_is_matched_whatever_its_spelling(send, openssl, name):
    server = openssl()
    assert_silent_success(send(server, "--server-name", name, *LEAVE))
    server.wait_for_payloads(b"secret payload")


def test_an_ipv6_address_that_the_certificate_lacks_is_refused(send, openssl):
    server = openssl()
    assert_fails(send(server, "--server-name", "::2", *LEAVE), UNTRUSTED, "::2")
    server.assert_received_nothing()


def test_server_name_replaces_the_host_in_the_check(send, openssl):
    server = openssl(certificate="server-localhost-only")
    assert_silent_success(send(server, "--server-name", "localhost", *LEAVE))
    server.wait_for_payloads(b"secret payload")


def test_a_wrong_server_name_is_refused_although_the_host_would_match(send, openssl):
    server = openssl()
    result = send(server.named("localhost"), "--server-name", "other.test", *LEAVE,
                  env=answering_names("127.0.0.1"))
    assert_fails(result, UNTRUSTED, "other.test")
    server.assert_received_nothing()


# Trust anchors

def test_ca_replaces_the_anchors_in_the_certificate_file(send, openssl, pki):
    server = openssl()
    assert_fails(send(server, "--ca", str(pki.leaf("impostor-root")), *LEAVE), UNTRUSTED)
    server.assert_received_nothing()


def test_ca_may_be_a_file(run, openssl, pki):
    server = openssl()
    assert_silent_success(run("--server", server.address, "--cert", pki.chain("device"), "--key",
                              pki.key("device"), "--ca", pki.leaf("root"), *LEAVE))
    server.wait_for_payloads(b"secret payload")


def test_ca_may_be_a_directory_that_holds_other_files_too(run, openssl, pki, tmp_path):
    directory = tmp_path / "anchors"
    (directory / "subdirectory").mkdir(parents=True)
    (directory / "README").write_text("not a certificate\n", encoding="ascii")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "impostor.pem").write_bytes(pki.leaf("impostor-root").read_bytes())
    (directory / "good.der").write_bytes(pki.der("root"))
    server = openssl()
    assert_silent_success(run("--server", server.address, "--cert", pki.chain("device"), "--key",
                              pki.key("device"), "--ca", directory, *LEAVE))
    server.wait_for_payloads(b"secret payload")


def test_an_intermediate_beside_the_certificate_is_an_anchor(run, openssl, pki):
    """The person put it there; the root need not be."""
    server = openssl()
    assert_silent_success(run("--server", server.address, "--cert", pki.chain("device"), "--key",
                              pki.key("device"), *LEAVE))
    server.wait_for_payloads(b"secret payload")


@pytest.mark.parametrize("beside_it", [[], ["root"]])
def test_the_devices_own_certificate_is_no_anchor(run, openssl, pki, tmp_path, beside_it):
    """Not even one that claims to be a CA: else whoever holds the device's key could pass for any server."""
    names = ["device-self-signed", *beside_it]
    (tmp_path / "cert.crt").write_bytes(b"".join(pki.leaf(name).read_bytes() for name in names))
    server = openssl(certificate="device-self-signed")
    result = run("--server", server.address, "--key", pki.key("device-self-signed"), "--server-name",
                 "device", *LEAVE)
    if beside_it:
        assert_fails(result, UNTRUSTED, "not", "trust")
    else:
        assert_fails(result, 78, "--ca")
    server.assert_received_nothing()


@pytest.fixture(name="former")
def fixture_former(pki, tmp_path):
    """A PKI of the certificate that the device had before ("former", without extensions, and of version 1
    where openssl(1) still makes such) and of what somebody can make who got hold of its key: a certificate
    for the server's name ("former-server")."""
    scratch = Pki(tmp_path / "former")
    scratch.directory.mkdir()

    def issue(name, subject, signer, *extensions):
        request = scratch.directory / f"{name}.csr"
        openssl_command("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", scratch.key(name), "-subj", f"/CN={subject}", "-out", request)
        openssl_command("x509", "-req", "-in", request, "-days", "9", *signer, *extensions, "-out",
                        scratch.leaf(name))

    issue("former", "device", ["-CA", pki.leaf("intermediate"), "-CAkey", pki.key("intermediate")])
    names = tmp_path / "names"
    names.write_text("extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1\n", encoding="ascii")
    issue("former-server", "server", ["-CA", scratch.leaf("former"), "-CAkey", scratch.key("former")],
          "-extfile", names)
    scratch.chain("former-server").write_bytes(scratch.leaf("former-server").read_bytes() +
                                               scratch.leaf("former").read_bytes())
    scratch.leaf("root").write_bytes(pki.leaf("root").read_bytes())
    return scratch


def test_a_former_certificate_beside_the_devices_own_is_no_anchor(run, peers, pki, former, tmp_path):
    """Else whoever has the device's former key passes for the server."""
    (tmp_path / "cert.crt").write_bytes(pki.bundle("device").read_bytes() +
                                        former.leaf("former").read_bytes())
    (tmp_path / "server").mkdir()
    server = peers.enter_context(OpensslServer(former, tmp_path / "server", certificate="former-server"))
    result = run("--server", server.address, "--key", pki.key("device"), *LEAVE)
    assert_fails(result, UNTRUSTED, "not", "trust")
    server.assert_received_nothing()


# The server does not trust us

@pytest.mark.parametrize("kind", ["openssl", "gnutls", "inboxd"])
def test_a_server_that_refuses_our_certificate_is_told_apart(run, request, kind, pki, tmp_path):
    server = request.getfixturevalue(kind)()
    result = run("--server", server.address, "--cert", pki.chain("device-unknown"), "--key",
                 pki.key("device-unknown"), "--ca", pki.leaf("root"), *LEAVE)
    assert_fails(result, UNTRUSTED, server.address, "this device's certificate", "alert")
    server.assert_received_nothing()


# What is negotiated

def test_dtls_1_0_is_refused(send, openssl):
    server = openssl("-cipher", "DEFAULT@SECLEVEL=0", version="-dtls1")
    assert_fails(send(server, *LEAVE), PROTOCOL, "alert")
    server.assert_received_nothing()


@pytest.mark.parametrize("suite, certificate", [
    ("ECDHE-ECDSA-AES128-SHA", "server"),
    ("ECDHE-ECDSA-AES128-SHA256", "server"),
    ("ECDHE-RSA-AES256-SHA384", "server-rsa"),
    ("AES128-GCM-SHA256", "server-rsa"),
    ("DHE-RSA-AES128-GCM-SHA256", "server-rsa"),
])
def test_weak_suites_are_refused(send, openssl, suite, certificate):
    """No CBC, no key exchange but ECDHE."""
    server = openssl("-cipher", f"{suite}@SECLEVEL=0", certificate=certificate)
    assert_fails(send(server, *LEAVE), PROTOCOL, "handshake")
    server.assert_received_nothing()


@pytest.mark.parametrize("suite, certificate", [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", "server"),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", "server"),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", "server"),
    ("ECDHE-ECDSA-AES128-CCM", "server"),
    ("ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0", "server"),
    ("ECDHE-RSA-AES128-GCM-SHA256", "server-rsa"),
    ("ECDHE-RSA-CHACHA20-POLY1305", "server-rsa"),
])
def test_good_suites_are_accepted(send, openssl, suite, certificate):
    server = openssl("-cipher", suite, certificate=certificate)
    assert_silent_success(send(server, *LEAVE))
    server.wait_for_payloads(b"secret payload")


@pytest.mark.parametrize("group", ["P-256", "X25519", "P-384"])
def test_good_groups_are_accepted(run, openssl, pki, group):
    # RSA on both sides, since OpenSSL applies the list to the certificates' keys too.
    server = openssl("-groups", group, certificate="server-rsa")
    assert_silent_success(run("--server", server.address, "--cert", pki.bundle("device-rsa"), "--key",
                              pki.key("device-rsa"), *LEAVE))
    server.wait_for_payloads(b"secret payload")


def test_sha1_signatures_are_refused(send, openssl):
    server = openssl("-sigalgs", "RSA+SHA1", "-cipher", "DEFAULT@SECLEVEL=0", certificate="server-rsa")
    assert_fails(send(server, *LEAVE), PROTOCOL)
    server.assert_received_nothing()


def parse_client_hello(datagram):
    """A ClientHello in one datagram (RFC 6347 section 4.3.2): version, suites, {extension: content}."""
    assert datagram[0] == 22 and datagram[13] == 1  # handshake, ClientHello
    body = datagram[25:]
    version = struct.unpack_from("!H", body)[0]
    at = 2 + 32
    at += 1 + body[at]  # session id
    at += 1 + body[at]  # cookie
    size = struct.unpack_from("!H", body, at)[0]
    suites = list(struct.unpack_from(f"!{size // 2}H", body, at + 2))
    at += 2 + size
    at += 1 + body[at]  # compression
    extensions = {}
    end = at + 2 + struct.unpack_from("!H", body, at)[0]
    at += 2
    while at < end:
        kind, size = struct.unpack_from("!HH", body, at)
        extensions[kind] = body[at + 4:at + 4 + size]
        at += 4 + size
    return version, suites, extensions


@pytest.fixture(name="hello")
def fixture_hello(begin, black_hole):
    """The client's first datagram, taken apart; for a host given by name or address."""

    def hello(host, *options):
        client = begin(black_hole.named(host), *options, "x", env=answering_names("127.0.0.1"))
        datagram = black_hole.wait_for_datagram()
        client.kill()
        return parse_client_hello(datagram)

    return hello


def test_only_aead_suites_with_forward_secrecy_are_offered(hello):
    good = {0xC02B, 0xC02C, 0xC02F, 0xC030,  # ECDHE with AES-GCM (RFC 5289)
            0xC0AC, 0xC0AD, 0xC0AE, 0xC0AF,  # with AES-CCM (RFC 7251)
            0xCCA8, 0xCCA9,                  # with ChaCha20-Poly1305 (RFC 7905)
            0x00FF}                          # no suite: secure renegotiation (RFC 5746)
    version, suites, _ = hello("localhost")
    assert version == 0xFEFD  # DTLS 1.2
    assert set(suites) <= good
    assert 0xC02B in suites and 0xC02F in suites


def test_the_short_tag_is_offered_last_and_the_full_one_before_it(hello):
    suites = [suite for suite in hello("localhost")[1] if suite != 0x00FF]
    assert suites[-2:] == [0xC0AC, 0xC0AE]  # ECDHE-ECDSA with AES-128-CCM, with AES-128-CCM-8


def test_cheap_groups_are_offered_first_and_sha1_never(hello):
    _, _, extensions = hello("localhost")
    groups = struct.unpack(f"!{len(extensions[10]) // 2}H", extensions[10])[1:]
    assert set(groups[:2]) == {23, 29}  # P-256 and X25519
    signatures = struct.unpack(f"!{len(extensions[13]) // 2}H", extensions[13])[1:]
    assert signatures and not [pair for pair in signatures if pair >> 8 in (1, 2, 3)]  # MD5, SHA-1, SHA-224


def test_the_servers_name_is_told_to_it(hello):
    """Server name indication (RFC 6066 section 3), without the trailing dot."""
    assert hello("server.test.")[2][0].endswith(b"\x00\x0bserver.test")


def test_server_name_is_what_is_indicated(hello):
    assert hello("localhost", "--server-name", "server.test")[2][0].endswith(b"\x00\x0bserver.test")


def test_an_address_is_not_indicated(hello):
    """RFC 6066 section 3 forbids it, and some servers refuse it."""
    assert 0 not in hello("127.0.0.1")[2]


@pytest.fixture(name="forged")
def fixture_forged(begin, openssl, peers):
    """A client that has sent its payload under the cipher suite and waits for a downlink, and its relay."""

    def forged(suite):
        server = openssl("-cipher", suite)
        relay = peers.enter_context(Forger(server))
        client = begin(relay, "--wait", "20", "--count", "1", "x")
        server.wait_for_payloads(b"x")
        return client, relay, server

    return forged


def test_under_a_short_tag_the_hundredth_forgery_ends_the_connection(forged):
    client, relay, _ = forged("ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0")
    relay.forge(99)
    assert client.running()
    relay.forge(1)
    assert_fails(client.finish(), PROTOCOL, relay.address)


def test_forgeries_count_in_an_association_that_was_kept_too(begin, send, openssl, peers, run_dir):
    server = openssl("-cipher", "ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0")
    relay = peers.enter_context(Forger(server))
    kept = ["--session", run_dir / "session", "--lease", "60"]
    client = begin(relay, *kept, "--wait", "2", "x")
    server.wait_for_payloads(b"x")
    relay.forge(60)
    assert_silent_success(client.finish())
    client = begin(relay, *kept, "--wait", "20", "-v", "y")
    server.wait_for_payloads(b"x", b"y")
    relay.forge(39)
    assert client.running()
    relay.forge(1)
    result = client.finish()
    assert result.status == PROTOCOL and "reused" in result.stderr, result


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_under_a_full_tag_nobody_without_keys_ends_it(forged, suite):
    client, relay, server = forged(suite)
    relay.forge(300)
    server.send(b"downlink")
    assert_silent_success(client.finish(), b"downlink\n")


def test_no_payload_is_readable_on_the_way(send, openssl, peers):
    server = openssl(reply=b"secret downlink")
    relay = peers.enter_context(Relay(server))
    assert_silent_success(send(relay, "--wait", "8", "--count", "1", "secret payload"), b"secret downlink\n")
    assert b"secret" not in b"".join(relay.up + relay.down)
