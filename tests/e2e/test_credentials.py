"""Whose credentials are unusable learns so before anything is sent: which file, why, and what to do."""

import os
import shutil
import time

import pytest

from client import SLOWNESS, answering_names, assert_fails, assert_silent_success
from pki import openssl as openssl_command

UNUSABLE = 78
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(name="try_with")
def fixture_try_with(run, black_hole, pki):
    """Runs with these credentials (default: good ones) against a server that sees every datagram, and asserts
    that it saw none."""

    def try_with(*options, cert=None, key=None, **more):
        result = run("--server", black_hole.address, "--cert", cert or pki.bundle("device"), "--key",
                     key or pki.key("device"), *options, "x", **more)
        black_hole.assert_received_nothing()
        return result

    return try_with


@pytest.fixture(name="deliver")
def fixture_deliver(run, openssl, pki):
    """Runs with these credentials (default: good ones) against a server that demands good ones, and asserts
    that it received the payload."""

    def deliver(*options, cert=None, key=None, **more):
        server = openssl()
        result = run("--server", server.address, "--cert", cert or pki.bundle("device"), "--key",
                     key or pki.key("device"), *options, "--wait", "0", "x", **more)
        assert_silent_success(result)
        server.wait_for_payloads(b"x")

    return deliver


# Files that are none

def make_missing(_path):
    """Nothing there."""


def make_empty(path):
    path.touch()


def make_text(path):
    path.write_text("This is no certificate, nor a key.\n" * 20, encoding="ascii")


def make_binary(path):
    path.write_bytes(bytes(i * 167 % 256 for i in range(4000)))


def make_der_like(path):
    """Says that 4 GB follow."""
    path.write_bytes(b"\x30\x84\xff\xff\xff\xff" + b"\x30\x82\xff\xff" * 10)


def make_bare_pem(path):
    path.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
                    "-----BEGIN " + "PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", encoding="ascii")


def make_unended_pem(path):
    path.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n", encoding="ascii")


def make_huge(path):
    """Sparse, and larger than any credential."""
    with open(path, "wb") as file:
        file.truncate(1 << 30)


def make_directory(path):
    path.mkdir()


NOT_CREDENTIALS = [make_missing, make_empty, make_text, make_binary, make_der_like, make_bare_pem,
                   make_unended_pem, make_huge, make_directory]


@pytest.mark.parametrize("make", NOT_CREDENTIALS)
@pytest.mark.parametrize("option", ["--cert", "--key", "--ca"])
def test_a_file_that_is_no_credential_is_named(try_with, run, black_hole, pki, tmp_path, option, make):
    make(tmp_path / "not-a-credential")
    if option == "--ca":
        result = try_with("--ca", "not-a-credential")
    else:
        result = try_with(**{option[2:]: "not-a-credential"})
    assert_fails(result, UNUSABLE, "not-a-credential")
    assert result.seconds < 3 * SLOWNESS


@pytest.mark.parametrize("make", [make_missing, make_huge, make_directory])
def test_a_passphrase_file_that_is_none_is_named(try_with, tmp_path, make):
    make(tmp_path / "not-a-passphrase")
    assert_fails(try_with("--passphrase-file", "not-a-passphrase"), UNUSABLE, "not-a-passphrase")


def test_the_default_files_are_named_when_they_are_missing(run, black_hole, pki, tmp_path):
    assert_fails(run("--server", black_hole.address, "x"), UNUSABLE, "cert.crt")
    shutil.copy(pki.bundle("device"), tmp_path / "cert.crt")
    assert_fails(run("--server", black_hole.address, "x"), UNUSABLE, "key.pem")
    black_hole.assert_received_nothing()


def test_a_key_is_no_certificate_and_a_certificate_no_key(try_with, pki):
    assert_fails(try_with(cert=pki.key("device")), UNUSABLE, "device.key")
    assert_fails(try_with(key=pki.bundle("device")), UNUSABLE, "device.bundle")


def test_a_damaged_certificate_among_good_ones_is_not_passed_over(try_with, pki, tmp_path):
    text = pki.bundle("device").read_text(encoding="ascii")
    (tmp_path / "damaged.crt").write_text(text.replace("MII", "MIQ", 1), encoding="ascii")
    assert_fails(try_with(cert="damaged.crt"), UNUSABLE, "damaged.crt")


def test_a_truncated_key_is_refused(try_with, pki, tmp_path):
    text = pki.key("device-rsa").read_bytes()
    (tmp_path / "cut.pem").write_bytes(text[:len(text) // 2])
    assert_fails(try_with(cert=pki.bundle("device-rsa"), key="cut.pem"), UNUSABLE, "cut.pem")


def test_an_empty_directory_holds_no_anchors(try_with, tmp_path):
    (tmp_path / "anchors").mkdir()
    assert_fails(try_with("--ca", "anchors"), UNUSABLE, "anchors")


def test_a_certificate_file_without_ca_asks_for_one(try_with, pki):
    assert_fails(try_with(cert=pki.leaf("device")), UNUSABLE, "device.crt", "--ca")


def test_a_message_about_a_strange_file_name_stays_one_line(try_with):
    assert_fails(try_with(cert="no\nsuch\x1b[2Jfile"), UNUSABLE)


# Keys that do not fit

@pytest.mark.parametrize("key", ["device-p384", "device-rsa", "server", "intermediate"])
def test_a_key_that_does_not_match_is_found_before_anything_is_sent(try_with, pki, key):
    result = try_with(key=pki.key(key), cert=pki.chain("device-unknown"))
    assert_fails(result, UNUSABLE, f"{key}.key", "device-unknown.chain")


def test_a_key_from_a_pipe_that_does_not_match_is_told_as_that(try_with, pki):
    """It cannot be read twice, so it is not."""
    reading, writing = os.pipe()
    os.write(writing, pki.key("device-rsa").read_bytes())
    os.close(writing)
    result = try_with(key=f"/dev/fd/{reading}", pass_fds=[reading])
    os.close(reading)
    assert_fails(result, UNUSABLE, "fits no certificate")


@pytest.mark.parametrize("first", ["cert.crt", "key.pem"])
def test_a_run_in_the_midst_of_a_renewal_does_not_fail(start, openssl, pki, tmp_path, first):
    """Whichever of the two files is replaced first."""
    new = {"cert.crt": pki.bundle("device-rsa"), "key.pem": pki.key("device-rsa")}
    old = {"cert.crt": pki.bundle("device"), "key.pem": pki.key("device")}
    last, = new.keys() - {first}
    shutil.copy(new[first], tmp_path / first)
    shutil.copy(old[last], tmp_path / last)
    shutil.copy(new[last], tmp_path / "new")
    server = openssl()
    client = start("--server", server.address, "--wait", "0", "x")
    time.sleep(0.05)  # the first of the two steps is over, and the second to come
    (tmp_path / "new").rename(tmp_path / last)
    assert_silent_success(client.finish())
    server.wait_for_payloads(b"x")


def test_the_devices_certificate_is_the_one_that_fits_the_key(deliver, pki, tmp_path):
    """Wherever it stands, and whatever other devices' certificates are with it."""
    names = ["root", "device-rsa", "intermediate", "device", "device-p384"]
    (tmp_path / "many.crt").write_bytes(b"".join(pki.leaf(name).read_bytes() for name in names))
    deliver(cert="many.crt")
    deliver(cert="many.crt", key=pki.key("device-rsa"))


@pytest.mark.parametrize("order", [("root", "intermediate", "device"), ("intermediate", "device", "root"),
                                   ("device", "root", "intermediate")])
def test_certificates_may_stand_in_any_order(deliver, pki, tmp_path, order):
    (tmp_path / "order.crt").write_bytes(b"".join(pki.leaf(name).read_bytes() for name in order))
    deliver(cert="order.crt")


def test_words_between_the_certificates_do_no_harm(deliver, pki, tmp_path):
    """`openssl x509 -text` writes such files."""
    text = b"".join(b"Certificate:\r\n    Data: \xc3\xa5\r\n" + pki.leaf(name).read_bytes()
                    for name in ("device", "intermediate", "root"))
    (tmp_path / "talkative.crt").write_bytes(text)
    deliver(cert="talkative.crt")


def test_windows_line_ends_do_no_harm(deliver, pki, tmp_path):
    for source, target in ((pki.bundle("device"), "cert.crt"), (pki.key("device"), "key.pem")):
        (tmp_path / target).write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    deliver(cert="cert.crt", key="key.pem")


# Dates

@pytest.mark.smoke
def test_an_expired_certificate_is_named_with_its_date(try_with, pki):
    result = try_with(cert=pki.bundle("device-expired"))
    assert_fails(result, UNUSABLE, "device-expired.bundle", "expired", pki.end_date("device-expired"))


def test_a_certificate_of_the_future_is_named_with_its_date(try_with, pki):
    result = try_with(cert=pki.bundle("device-not-yet-valid"), key=pki.key("device-not-yet-valid"))
    assert_fails(result, UNUSABLE, "device-not-yet-valid.bundle", "not valid before",
                 pki.start_date("device-not-yet-valid"))


@pytest.mark.parametrize("order", [("device-expired", "device"), ("device", "device-expired")])
def test_a_renewed_certificate_beside_the_expired_one_wins(deliver, pki, tmp_path, order):
    names = [*order, "intermediate", "root"]
    (tmp_path / "renewed.crt").write_bytes(b"".join(pki.leaf(name).read_bytes() for name in names))
    deliver(cert="renewed.crt")


# Notations

def write_key(pki, path, name, notation):
    """Writes the key in one of its notations."""
    standard, encoding = notation.split("-")
    form = ["-traditional"] if standard == "traditional" else []
    openssl_command("pkey", "-in", pki.key(name), *form, "-outform", encoding, "-out", path)
    if encoding == "PEM":
        algorithm = {"pkcs8": "", "traditional": "RSA " if "rsa" in name else "EC "}[standard]
        assert f"BEGIN {algorithm}PRIVATE KEY" in path.read_text(encoding="ascii")


@pytest.mark.parametrize("notation", ["pkcs8-PEM", "pkcs8-DER", "traditional-PEM", "traditional-DER"])
@pytest.mark.parametrize("name", ["device", "device-p384", "device-rsa"])
def test_every_kind_and_notation_of_a_key_is_read(deliver, pki, tmp_path, name, notation):
    write_key(pki, tmp_path / "the.key", name, notation)
    deliver(cert=pki.bundle(name), key="the.key")


def test_an_ec_key_may_follow_its_parameters(deliver, pki, tmp_path):
    """As `openssl ecparam -genkey` writes it."""
    parameters = openssl_command("ecparam", "-name", "prime256v1")
    write_key(pki, tmp_path / "bare.key", "device", "traditional-PEM")
    (tmp_path / "the.key").write_bytes(parameters + (tmp_path / "bare.key").read_bytes())
    deliver(key="the.key")


def test_certificates_may_be_der_one_behind_the_other(deliver, pki, tmp_path):
    der = [pki.der(name) for name in ("device", "intermediate", "root")]
    (tmp_path / "cert.der").write_bytes(b"".join(der))
    deliver(cert="cert.der")


def test_a_single_der_certificate_with_a_der_anchor(deliver, pki, tmp_path):
    (tmp_path / "cert.der").write_bytes(pki.der("device"))
    (tmp_path / "intermediate.der").write_bytes(pki.der("intermediate"))
    (tmp_path / "both.der").write_bytes(pki.der("device") + pki.der("intermediate"))
    deliver("--ca", "intermediate.der", cert="both.der")


def test_certificate_and_key_may_share_one_file(deliver, pki, tmp_path):
    (tmp_path / "all.pem").write_bytes(pki.key("device").read_bytes() + pki.bundle("device").read_bytes())
    deliver(cert="all.pem", key="all.pem")


def test_a_key_may_come_through_a_pipe(run, openssl, pki):
    """As in --key <(pass show device-key)."""
    reading, writing = os.pipe()
    os.write(writing, pki.key("device").read_bytes())
    os.close(writing)
    server = openssl()
    result = run("--server", server.address, "--cert", pki.bundle("device"), "--key", f"/dev/fd/{reading}",
                 "--wait", "0", "x", pass_fds=[reading])
    os.close(reading)
    assert_silent_success(result)
    server.wait_for_payloads(b"x")


# Passphrases

@pytest.fixture(name="encrypted")
def fixture_encrypted(pki, tmp_path):
    """Writes the passphrase to `passphrase` and the device's key, encrypted so, to `the.key`."""

    def encrypt(kind, name="device"):
        (tmp_path / "passphrase").write_text(PASSPHRASE + "\n", encoding="ascii")
        secret = ["-passout", f"file:{tmp_path / 'passphrase'}", "-in", pki.key(name), "-out",
                  tmp_path / "the.key"]
        command = {"pkcs8-3des": ["pkcs8", "-topk8", "-v2", "des3"],
                   "pkcs8-3des-der": ["pkcs8", "-topk8", "-v2", "des3", "-outform", "DER"],
                   "pkcs8-aes": ["pkcs8", "-topk8", "-v2", "aes-256-cbc"],
                   "traditional-aes": ["pkey", "-traditional", "-aes128"],
                   "traditional-3des": ["pkey", "-traditional", "-des3"]}[kind]
        openssl_command(*command, *secret)

    return encrypt


READABLE = ["pkcs8-3des", "pkcs8-3des-der", "traditional-aes", "traditional-3des"]


@pytest.mark.parametrize("name", ["device", "device-rsa"])
@pytest.mark.parametrize("kind", READABLE)
def test_an_encrypted_key_is_read_with_its_passphrase(deliver, encrypted, pki, kind, name):
    encrypted(kind, name)
    deliver("--passphrase-file", "passphrase", cert=pki.bundle(name), key="the.key")


@pytest.mark.parametrize("ending", [b"", b"\r\n", b"\nanother line\n"])
def test_the_passphrase_is_the_first_line(deliver, encrypted, tmp_path, ending):
    encrypted("traditional-aes")
    (tmp_path / "passphrase").write_bytes(PASSPHRASE.encode() + ending)
    deliver("--passphrase-file", "passphrase", key="the.key")


@pytest.mark.parametrize("kind", READABLE)
def test_a_wrong_passphrase_is_told_and_not_shown(try_with, encrypted, tmp_path, kind):
    encrypted(kind)
    (tmp_path / "wrong").write_text("hunter2 is not it\n", encoding="ascii")
    result = try_with("--passphrase-file", "wrong", key="the.key")
    assert_fails(result, UNUSABLE, "the.key", "passphrase")
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize("kind", ["pkcs8-3des", "traditional-aes"])
def test_an_encrypted_key_without_a_passphrase_names_the_option(try_with, encrypted, kind):
    encrypted(kind)
    assert_fails(try_with(key="the.key"), UNUSABLE, "the.key", "--passphrase-file")


def test_an_empty_passphrase_file_does_not_decrypt(try_with, encrypted, tmp_path):
    encrypted("traditional-aes")
    (tmp_path / "empty").touch()
    assert_fails(try_with("--passphrase-file", "empty", key="the.key"), UNUSABLE, "passphrase")


def test_a_passphrase_that_is_not_needed_does_no_harm(deliver, tmp_path):
    (tmp_path / "passphrase").write_text("not needed\n", encoding="ascii")
    deliver("--passphrase-file", "passphrase")


def test_an_encryption_that_the_library_lacks_comes_with_the_way_out(run, try_with, deliver, encrypted):
    """mbed TLS 3.6 reads AES in PKCS#8, which is what openssl(1) writes; 2.28 does not."""
    encrypted("pkcs8-aes")
    if b"mbed tls 2." in run("--version").stdout.lower():
        result = try_with("--passphrase-file", "passphrase", key="the.key")
        assert_fails(result, UNUSABLE, "the.key", "openssl pkey")
        assert PASSPHRASE not in result.stderr
    else:
        deliver("--passphrase-file", "passphrase", key="the.key")


def test_credentials_are_judged_before_the_name_is_looked_up(run, pki):
    """A device that is offline still learns that its certificate is missing."""
    result = run("--server", "does-not-matter.test:1", "--cert", "missing.crt", "--key", pki.key("device"),
                 "x", env=answering_names("hang"))
    assert_fails(result, UNUSABLE, "missing.crt")
