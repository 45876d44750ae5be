"""--check: who this device is, until when, and whom it trusts; without a network."""

import calendar
import os
import re
import shutil
import subprocess
import time

import pytest

from client import SLOWNESS, assert_fails, assert_one_line
from pki import Pki, openssl

UNUSABLE = 78
DAY = 86400

# In place of the C library's, so that the day can be picked.
CLOCK = """
#include <stdlib.h>
#include <time.h>
time_t time(time_t *result)
{
    time_t now = (time_t)atoll(getenv("TEST_TIME"));
    if (result)
        *result = now;
    return now;
}
"""


class Issuer(Pki):
    """The test's own, that issues further certificates with the PKI's authorities."""

    def __init__(self, pki, directory):
        super().__init__(directory)
        self.directory.mkdir()
        for name in ("root", "intermediate", "old-intermediate"):
            shutil.copy(pki.leaf(name), self.leaf(name))
            shutil.copy(pki.key(name), self.key(name))

    def device(self, issuer="intermediate", subject="device", **differences):
        """A device's certificate, by the name of `fresh`; `start` and `end` are days from now."""
        self._issue("fresh", subject, issuer, self._leaf_extensions("clientAuth", differences), differences)
        return ["--cert", self.bundle("fresh"), "--key", self.key("fresh")]

    def renew_old_intermediate(self, end):
        """Gives it another end."""
        self._issue("old-intermediate", "Old Intermediate", "root", "basicConstraints=critical,CA:TRUE\n"
                    "keyUsage=critical,keyCertSign,cRLSign", {"end": end})


@pytest.fixture(name="issuer")
def fixture_issuer(pki, tmp_path):
    """Issues certificates in the test's own directory."""
    return Issuer(pki, tmp_path / "issuer")


@pytest.fixture(name="check")
def fixture_check(run, black_hole):
    """Runs --check, with a server that sees every datagram, and asserts that it saw none."""

    def check(*options, **more):
        result = run("--check", "--server", black_hole.address, *options, **more)
        black_hole.assert_received_nothing()
        return result

    return check


@pytest.fixture(name="clock", scope="session")
def fixture_clock(tmp_path_factory):
    """The environment in which the time stands still, at that second of Unix time."""
    directory = tmp_path_factory.mktemp("clock")
    (directory / "clock.c").write_text(CLOCK, encoding="ascii")
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", directory / "clock.so",
                    directory / "clock.c"], check=True)
    return lambda seconds: {"LD_PRELOAD": str(directory / "clock.so"), "TEST_TIME": str(int(seconds))}


def seconds_of(certificate, field):
    """Its start or end in Unix time."""
    text = openssl("x509", "-in", certificate, "-noout", f"-{field}date").decode().split("=")[1].strip()
    return calendar.timegm(time.strptime(text, "%b %d %H:%M:%S %Y %Z"))


def date(seconds):
    """As the report writes it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def report(result):
    """The report in paragraphs: {title: [lines]}."""
    paragraphs = {}
    for line in result.stdout.decode().splitlines():
        if line.startswith("  "):
            paragraphs[title].append(line.strip())
        else:
            title = line
            paragraphs[title] = []
    return paragraphs


def assert_usable(result):
    """Status 0, and nothing for cron to mail."""
    assert (result.status, result.stderr) == (0, ""), result


def assert_unusable(result, *words):
    """Status 78, and one line that says why; the report may be there all the same."""
    assert result.status == UNUSABLE, result
    assert_one_line(result, *words)


# The report

@pytest.mark.smoke
@pytest.mark.parametrize("name, kind", [("device", "EC, 256 bits"), ("device-p384", "EC, 384 bits"),
                                        ("device-rsa", "RSA, 2048 bits")])
def test_the_report_tells_everything(check, pki, name, kind):
    result = check("--cert", pki.bundle(name), "--key", pki.key(name))
    assert_usable(result)
    told = report(result)
    own = told[f"certificate: {pki.bundle(name)}"]
    serial = openssl("x509", "-in", pki.leaf(name), "-noout", "-serial").decode().strip().split("=")[1]
    start, end = (seconds_of(pki.leaf(name), field) for field in ("start", "end"))
    assert re.sub(r"\s+", " ", own[0]) == f"subject: CN={name}"
    assert re.sub(r"\s+", " ", own[1]) == "issuer: CN=Test Intermediate"
    assert own[2].split()[1].replace(":", "") == serial
    assert re.fullmatch(rf"valid: +{date(start)} to {date(end)}, (29|30) days left", own[3])
    key = [re.sub(r"\s+", " ", line) for line in told[f"key: {pki.key(name)}"]]
    assert key[:2] == [f"kind: {kind}", "matches: the certificate"]
    assert [line.split("CN=")[1] for line in told[f"intermediates sent with it: {pki.bundle(name)}"]
            if "CN=" in line] == ["Test Intermediate"]
    assert {line.split("CN=")[1] for line in told[f"trust anchors: {pki.bundle(name)}"]
            if "CN=" in line} == {"Test Root", "Test Intermediate"}


def test_the_report_tells_where_other_anchors_come_from(check, pki, credentials):
    told = report(check(*credentials, "--ca", pki.leaf("impostor-root")))
    anchors = told[f"trust anchors: {pki.leaf('impostor-root')}"]
    assert len([line for line in anchors if "subject:" in line]) == 1


def test_the_report_says_that_there_are_no_intermediates(check, pki):
    result = check("--cert", pki.leaf("device"), "--key", pki.key("device"), "--ca", pki.leaf("root"))
    assert_usable(result)
    assert "intermediates sent with it: none" in report(result)


def test_the_default_files_are_checked(check, pki, tmp_path):
    shutil.copy(pki.bundle("device"), tmp_path / "cert.crt")
    shutil.copy(pki.key("device"), tmp_path / "key.pem")
    told = report(check())
    assert "certificate: cert.crt" in told and "key: key.pem" in told


@pytest.mark.parametrize("mode, warned", [(0o644, True), (0o640, True), (0o604, True), (0o600, False),
                                          (0o400, False)])
def test_a_key_that_others_can_read_is_a_warning_and_no_failure(check, pki, tmp_path, mode, warned):
    shutil.copy(pki.key("device"), tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(mode)
    result = check("--cert", pki.bundle("device"), "--key", "key.pem")
    assert_usable(result)
    told = report(result)["key: key.pem"]
    assert any("warning" in line and f"{mode:04o}" in line for line in told) == warned


def test_of_the_default_key_too(check, pki, tmp_path):
    """As the service's own tool writes it."""
    shutil.copy(pki.bundle("device"), tmp_path / "cert.crt")
    shutil.copy(pki.key("device"), tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o644)
    result = check()
    assert_usable(result)
    assert "warning:  others than its owner can read it (mode 0644)" in report(result)["key: key.pem"]


def test_nothing_secret_is_in_the_report(check, pki, tmp_path):
    (tmp_path / "passphrase").write_text("open sesame", encoding="ascii")
    openssl("pkey", "-in", pki.key("device"), "-traditional", "-aes128", "-passout",
            f"file:{tmp_path / 'passphrase'}", "-out", tmp_path / "the.key")
    result = check("-vv", "--cert", pki.bundle("device"), "--key", "the.key", "--passphrase-file",
                   "passphrase")
    assert result.status == 0, result
    said = re.sub(r"[^0-9a-f]", "", (result.stdout.decode() + result.stderr).lower())
    private = re.search(r"priv:\s*([0-9a-f:\s]+?)pub:", openssl("pkey", "-in", pki.key("device"), "-noout",
                                                               "-text").decode())[1]
    private = re.sub(r"[^0-9a-f]", "", private)
    assert len(private) >= 62 and private[-32:] not in said
    assert "sesame" not in result.stdout.decode() + result.stderr


def test_a_name_cannot_drive_the_terminal(check, issuer):
    result = check(*issuer.device(subject="de\x1b[31mvice"))
    assert_usable(result)
    assert b"\x1b" not in result.stdout and b"vice" in result.stdout


# Whole days

@pytest.mark.parametrize("left, days", [(5 * DAY + 1, "5 days"), (5 * DAY, "5 days"), (5 * DAY - 1, "4 days"),
                                        (1, "0 days"), (DAY, "1 day")])
def test_days_are_counted_down_to_the_second(check, issuer, clock, left, days):
    fresh = issuer.device(end=29)
    result = check(*fresh, "--renew-days", "0", env=clock(seconds_of(issuer.leaf("fresh"), "end") - left))
    assert_usable(result)
    assert report(result)[f"certificate: {issuer.bundle('fresh')}"][3].endswith(f", {days} left")


@pytest.mark.parametrize("left, renew_days, enough", [
    (5 * DAY, ["--renew-days", "5"], True), (5 * DAY - 1, ["--renew-days", "5"], False),
    (3 * DAY, [], True), (3 * DAY - 1, [], False), (1, ["--renew-days", "0"], True),
    (28 * DAY, ["--renew-days", "36500"], False)])
def test_fewer_days_than_asked_for_are_a_failure(check, issuer, clock, left, renew_days, enough):
    fresh = issuer.device(end=29)  # before its issuer
    end = seconds_of(issuer.leaf("fresh"), "end")
    result = check(*fresh, *renew_days, env=clock(end - left))
    if enough:
        assert_usable(result)
    else:
        assert_unusable(result, "fresh.bundle: expires", date(end), "new certificate")
        assert b"days left" in result.stdout


@pytest.mark.parametrize("left, words", [(DAY - 1, "in less than 1 day;"), (DAY, "in less than 2 days;")])
def test_one_day_is_no_days(check, issuer, clock, left, words):
    fresh = issuer.device(end=29)
    assert_unusable(check(*fresh, env=clock(seconds_of(issuer.leaf("fresh"), "end") - left)), words)


def test_without_check_few_days_are_enough(run, inboxd, issuer):
    server = inboxd()
    result = run("--server", server.address, *issuer.device(end=1), "--wait", "0", "x")
    assert (result.status, result.stderr) == (0, ""), result


def test_an_intermediate_that_expires_first_is_told(check, issuer):
    """With its date: the server would refuse the chain by then."""
    issuer.renew_old_intermediate(end=2.5)
    end = seconds_of(issuer.leaf("old-intermediate"), "end")
    fresh = issuer.device(issuer="old-intermediate")
    assert_unusable(check(*fresh), "fresh.bundle", "intermediate", date(end))
    assert_usable(check(*fresh, "--renew-days", "2"))


def test_an_intermediate_that_has_expired_is_told_as_such(check, pki):
    name = pki.directory / "server-old-intermediate"
    result = check("--cert", f"{name}.bundle", "--key", f"{name}.key", "--renew-days", "0")
    assert_unusable(result, "intermediate", "expired", pki.end_date("old-intermediate"))


@pytest.mark.parametrize("value", ["-1", "1.5", "x", "", "36501", "3d"])
def test_days_are_a_whole_number(check, credentials, value):
    assert_fails(check(*credentials, "--renew-days", value), 64, "--renew-days")


# What is unusable

def test_an_expired_certificate(check, pki):
    result = check("--cert", pki.bundle("device-expired"), "--key", pki.key("device"))
    assert_unusable(result, "device-expired.bundle", "expired", pki.end_date("device-expired"))
    assert b"  valid: " in result.stdout and b", expired\n" in result.stdout


@pytest.mark.parametrize("after, words", [(0, None), (2, ["expired"])])
def test_a_certificate_lasts_to_its_last_second(check, issuer, clock, after, words):
    fresh = issuer.device(end=29)
    env = clock(seconds_of(issuer.leaf("fresh"), "end") + after)
    result = check(*fresh, "--renew-days", "0", env=env)
    if words:
        assert_unusable(result, *words)
    else:
        assert_usable(result)


def test_a_certificate_of_the_future(check, pki):
    result = check("--cert", pki.bundle("device-not-yet-valid"), "--key", pki.key("device-not-yet-valid"))
    assert_unusable(result, "not valid before", pki.start_date("device-not-yet-valid"))
    assert b", not yet valid\n" in result.stdout


def test_a_key_of_another(check, pki):
    result = check("--cert", pki.bundle("device"), "--key", pki.key("device-rsa"))
    assert_unusable(result, "device-rsa.key", "fits no certificate", "device.bundle")
    assert "matches:  no certificate" in result.stdout.decode()


@pytest.mark.parametrize("option", ["--cert", "--key", "--ca", "--passphrase-file"])
def test_a_missing_file(check, credentials, option):
    given = dict(zip(credentials[::2], credentials[1::2]))
    given[option] = "no-such-file"
    result = check(*[word for pair in given.items() for word in pair])
    assert_unusable(result, "no-such-file", "No such file", option)


def test_an_encrypted_key_without_its_passphrase(check, pki, tmp_path):
    openssl("pkey", "-in", pki.key("device"), "-traditional", "-aes128", "-passout", "pass:sesame", "-out",
            tmp_path / "the.key")
    assert_unusable(check("--cert", pki.bundle("device"), "--key", "the.key"), "the.key", "--passphrase-file")


def test_no_anchor(check, pki):
    assert_unusable(check("--cert", pki.leaf("device"), "--key", pki.key("device")), "--ca")


# The clock

def test_a_clock_before_the_build_is_named_as_the_cause(check, credentials, clock):
    result = check(*credentials, env=clock(calendar.timegm((2001, 9, 9, 0, 0, 0))))
    assert_unusable(result, "not yet valid", "clock", "before the day this program was built")
    assert b"clock" in result.stdout


def test_a_clock_after_the_build_is_not_blamed(check, pki):
    result = check("--cert", pki.bundle("device-not-yet-valid"), "--key", pki.key("device-not-yet-valid"))
    assert "clock" not in result.stderr


def test_a_run_with_such_a_clock_names_it_before_anything_is_sent(send, black_hole, clock):
    result = send(black_hole, "x", env=clock(calendar.timegm((2001, 9, 9, 0, 0, 0))))
    assert_fails(result, UNUSABLE, "not valid before", "clock")
    black_hole.assert_received_nothing()


def test_such_a_clock_is_named_where_the_servers_certificate_seems_not_yet_valid(run, inboxd, issuer, clock):
    server = inboxd()
    long_ago = issuer.device(start=-13000)
    result = run("--server", server.address, *long_ago, "x",
                 env=clock(calendar.timegm((2001, 9, 9, 0, 0, 0))))
    assert_fails(result, 77, "not yet valid", "clock")
    server.assert_received_nothing()


# With a pre-shared key

@pytest.fixture(name="psk")
def fixture_psk(tmp_path):
    """Writes a file for --psk."""

    def write(content, mode=0o600):
        (tmp_path / "psk").write_text(content, encoding="ascii")
        (tmp_path / "psk").chmod(mode)
        return "psk"

    return write


@pytest.mark.parametrize("size, warned", [(16, False), (32, False), (15, True), (1, True)])
def test_of_a_pre_shared_key_sizes_are_told_and_nothing_else(check, psk, size, warned):
    key = ("c0ffee" * 32)[:2 * size]
    result = check("-vv", "--psk", psk(f"my-device:{key}\n"))
    assert result.status == 0, result
    told = report(result)["pre-shared key: psk"]
    assert [line.split(maxsplit=1)[1] for line in told[:2]] == ["9 bytes", f"{8 * size} bits"]
    assert any("warning" in line for line in told) == warned
    for said in (result.stdout.decode(), result.stderr):
        assert "my-device" not in said and "c0ff" not in said and "certificate" not in said


@pytest.mark.parametrize("content, mode", [("id:0g", 0o600), ("id", 0o600), ("id:00112233", 0o644)])
def test_an_unusable_pre_shared_key(check, psk, content, mode):
    assert_fails(check("--psk", psk(content, mode)), UNUSABLE, "psk")


# Manners

def test_no_socket_is_made(run, credentials, refused):
    """An unknown name, and a port where nobody listens, do no harm."""
    assert_usable(run("--check", "--server", refused.address, *credentials))
    assert_usable(run("--check", "--server", "no-such-name.invalid:1", *credentials))
    assert_usable(run("--check", *credentials))


def test_it_needs_no_payload_and_takes_none(check, credentials, tmp_path):
    (tmp_path / "file").touch()
    for source in (["x"], ["--file", "file"], ["--lines"], ["--flush", "--queue", "q"]):
        assert_fails(check(*credentials, *source), 64, "--check")


def test_a_report_that_cannot_be_written_is_told(start, credentials):
    with open("/dev/full", "wb") as full:
        result = start("--check", *credentials, stdout=full).finish()
    assert_fails(result, 74, "standard output")


def test_an_unusable_certificate_is_told_though_the_report_cannot_be_written(start, pki):
    with open("/dev/full", "wb") as full:
        result = start("--check", "--cert", pki.bundle("device-expired"), "--key", pki.key("device"),
                       stdout=full).finish()
    assert result.status in (74, UNUSABLE), result
    assert "expired" in result.stderr


def test_quiet_leaves_the_status_alone(check, pki):
    result = check("--quiet", "--cert", pki.bundle("device-expired"), "--key", pki.key("device"))
    assert (result.status, result.stderr) == (UNUSABLE, "")


def test_the_session_is_left_alone(check, credentials, tmp_path):
    (tmp_path / "session").write_bytes(b"kept")
    (tmp_path / "session").chmod(0o600)
    assert_usable(check(*credentials, "--session", "session", "--queue", "queue"))
    assert (tmp_path / "session").read_bytes() == b"kept"
    assert not (tmp_path / "queue").exists()


@pytest.mark.parametrize("option", ["--cert", "--key", "--psk"])
def test_a_check_ends_at_the_timeout(run, pki, tmp_path, option):
    """Of a daily line in a crontab none must pile up on a dead file system."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    files = {"--cert": pki.bundle("device"), "--key": pki.key("device"), option: "fifo"}
    if option == "--psk":
        files = {"--psk": "fifo"}
    result = run("--check", *[word for pair in files.items() for word in pair], timeout=0.5, limit=8)
    assert result.status in (75, UNUSABLE), result
    assert result.seconds < 5 * SLOWNESS
