"""make EMBED=DIR: certificate and key are built into the program."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from client import WRAPPER, assert_fails, assert_silent_success, environment

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(bool(WRAPPER), reason="takes its time, and is tested without a wrapper")


def make(*arguments):
    """Runs make, without the flags of the make that runs the tests. Not optimised, for speed."""
    return subprocess.run(["make", "-C", ROOT, "-j4", "CFLAGS=-O0", *arguments], env=environment(),
                          capture_output=True, text=True, check=False)


def put_credentials(pki, directory, name):
    """Puts a device's credentials where EMBED= can name them."""
    directory.mkdir(exist_ok=True)
    shutil.copy(pki.bundle(name), directory / "cert.crt")
    shutil.copy(pki.key(name), directory / "key.pem")


@pytest.fixture(name="shared_build", scope="session")
def fixture_shared_build(tmp_path_factory, worker_id, pki):
    """Builds once, whichever worker comes first; (BUILD, EMBED), which nobody changes."""
    base = tmp_path_factory.getbasetemp()
    base = (base if worker_id == "master" else base.parent) / "embedded"
    base.mkdir(exist_ok=True)
    with open(base / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "complete").exists():
            put_credentials(pki, base / "credentials", "device")
            done = make(f"BUILD={base / 'build'}", f"EMBED={base / 'credentials'}", "all")
            assert done.returncode == 0, done.stderr
            (base / "complete").touch()
    return base / "build", base / "credentials"


@pytest.fixture(name="embedded")
def fixture_embedded(shared_build):
    """The program with the device's credentials in it."""
    return shared_build[0] / "dtls-send"


@pytest.fixture(name="build")
def fixture_build(shared_build, tmp_path):
    """A copy of that build and of its credentials; build(...) is make there."""

    class Build:
        """What it is made of, and where it is."""

        directory, credentials = tmp_path / "build", tmp_path / "credentials"
        program = directory / "dtls-send"

        def __call__(self, *arguments, embed=credentials):
            return make(f"BUILD={self.directory}", *([f"EMBED={embed}"] if embed else []), *arguments, "all")

    for source, target in zip(shared_build, (Build.directory, Build.credentials)):
        shutil.copytree(source, target)
    return Build()


def certificate_of(program, run):
    """The subject that --check tells."""
    result = run("--check", program=program)
    assert result.status == 0, result
    assert b"certificate: built in\n" in result.stdout and b"key: built in\n" in result.stdout
    return result.stdout.decode().split("CN=")[1].split("\n")[0]


def test_it_sends_without_any_file(run, embedded, inboxd, tmp_path):
    (tmp_path / "empty").mkdir(mode=0o500)
    server = inboxd("--reply", "ack")
    result = run("--server", server.address, "--count", "1", "--wait", "8", "x", program=embedded,
                 cwd=tmp_path / "empty")
    assert_silent_success(result, b"ack\n")
    server.wait_for_payloads(b"x")


def test_files_of_the_default_names_are_not_looked_at(run, embedded, inboxd, tmp_path):
    (tmp_path / "cert.crt").write_text("none", encoding="ascii")
    (tmp_path / "key.pem").write_text("none", encoding="ascii")
    server = inboxd()
    assert_silent_success(run("--server", server.address, "--wait", "0", "x", program=embedded))
    server.wait_for_payloads(b"x")


def test_the_version_says_so(run, embedded):
    assert b"built-in credentials" in run("--version", program=embedded).stdout
    assert b"built-in" not in run("--version").stdout


def test_the_report_says_so(run, embedded):
    assert certificate_of(embedded, run) == "device"


def test_certificate_and_key_from_files_still_win(run, embedded, inboxd, pki):
    server = inboxd()
    assert_silent_success(run("--server", server.address, "--cert", pki.bundle("device-rsa"), "--key",
                              pki.key("device-rsa"), "--wait", "0", "x", program=embedded))
    server.wait_for_payloads(b"x", device="device-rsa")
    result = run("--server", server.address, "--cert", "no-such.crt", "x", program=embedded)
    assert_fails(result, 78, "no-such.crt")
    result = run("--server", server.address, "--key", "no-such.key", "x", program=embedded)
    assert_fails(result, 78, "no-such.key")


def test_a_renewed_certificate_goes_with_the_key_in_the_program(run, embedded, inboxd, pki):
    server = inboxd()
    assert_silent_success(run("--server", server.address, "--cert", pki.bundle("device"), "--wait", "0", "x",
                              program=embedded))
    server.wait_for_payloads(b"x")


def test_a_pre_shared_key_still_wins(run, embedded, inboxd, tmp_path):
    (tmp_path / "psk").write_text("sensor:00112233445566778899aabbccddeeff\n", encoding="ascii")
    (tmp_path / "psk").chmod(0o600)
    server = inboxd("--psk", "sensor:00112233445566778899aabbccddeeff")
    assert_silent_success(run("--server", server.address, "--psk", "psk", "--wait", "0", "x",
                              program=embedded))
    server.wait_for_payloads(b"x", device="sensor")


def test_a_certificate_that_does_not_fit_the_key_in_the_program_is_told(run, embedded, black_hole, pki):
    result = run("--server", black_hole.address, "--cert", pki.bundle("device-rsa"), "x", program=embedded)
    assert_fails(result, 78, "built-in", "device-rsa.bundle")
    black_hole.assert_received_nothing()


def test_a_repeat_run_makes_no_handshake(run, embedded, inboxd, run_dir):
    server = inboxd("--reply", "ack")
    again = ["--server", server.address, "--session", run_dir / "session", "--confirm", "--count", "1",
             "--wait", "8", "x"]
    assert_silent_success(run(*again, program=embedded), b"ack\n")
    result = run(*again, "-v", program=embedded)
    assert result.status == 0 and "reused: no handshake" in result.stderr, result


def test_all_can_run_it_and_none_but_its_owner_can_read_the_key(shared_build):
    build, credentials = shared_build
    assert (build / "dtls-send").stat().st_mode & 0o7777 == 0o711
    key = b"".join((credentials / "key.pem").read_bytes().splitlines()[1:2])
    holders = [path for path in build.rglob("*") if path.is_file() and key in path.read_bytes()]
    assert build / "dtls-send" in holders and len(holders) >= 2
    assert not [path for path in holders if path.stat().st_mode & 0o066]


def test_nothing_is_made_again_without_need(build):
    assert "LINK" in build().stdout  # the copies have other names
    done = build()
    assert (done.returncode, "LINK" in done.stdout, "CC" in done.stdout) == (0, False, False), done


def test_another_file_is_taken_up(build, pki, run):
    put_credentials(pki, build.credentials, "device-p384")
    done = build()
    assert done.returncode == 0 and done.stdout.count("  CC ") == 1, done
    assert certificate_of(build.program, run) == "device-p384"


def test_another_directory_is_taken_up_and_none_too(build, pki, run, tmp_path):
    put_credentials(pki, tmp_path / "other", "device-rsa")
    for path in (tmp_path / "other").iterdir():  # older than what was made
        os.utime(path, (0, 0))
    assert build(embed=tmp_path / "other").returncode == 0
    assert certificate_of(build.program, run) == "device-rsa"
    assert build(embed=None).returncode == 0
    assert b"built-in" not in run("--version", program=build.program).stdout
    assert build.program.stat().st_mode & 0o7777 == 0o755
    assert build().returncode == 0
    assert certificate_of(build.program, run) == "device"
    assert build.program.stat().st_mode & 0o7777 == 0o711


@pytest.mark.parametrize("name", ["cert.crt", "key.pem"])
def test_a_missing_file_is_an_error_of_make(build, name):
    (build.credentials / name).unlink()
    done = build()
    assert done.returncode != 0
    assert name in done.stderr


def test_a_path_may_have_spaces(build, pki, run, tmp_path):
    put_credentials(pki, tmp_path / "a directory of mine", "device-rsa")
    done = build(embed=tmp_path / "a directory of mine")
    assert done.returncode == 0, done.stderr
    assert certificate_of(build.program, run) == "device-rsa"
    assert "CC" not in build(embed=tmp_path / "a directory of mine").stdout
    put_credentials(pki, tmp_path / "a directory of mine", "device-p384")
    assert build(embed=tmp_path / "a directory of mine").returncode == 0
    assert certificate_of(build.program, run) == "device-p384"
    done = build(embed=tmp_path / "no such directory")
    assert done.returncode != 0 and "no such directory" in done.stderr


def test_a_path_may_be_relative(build, run):
    relative = os.path.relpath(build.credentials, ROOT)
    done = build(embed=relative)
    assert done.returncode == 0, done.stderr
    assert certificate_of(build.program, run) == "device"


def test_all_that_holds_the_key_is_its_owners_alone_though_it_was_others_before(build):
    """An archive of the modules as well, which the fuzzers are linked from."""
    archive = build.directory / "modules.a"
    assert build(archive, embed=None).returncode == 0
    assert archive.stat().st_mode & 0o044  # what follows is no feat of the tests' umask
    assert build(archive).returncode == 0
    key = b"".join((build.credentials / "key.pem").read_bytes().splitlines()[1:2])
    holders = [path for path in build.directory.rglob("*") if path.is_file() and key in path.read_bytes()]
    assert archive in holders and build.directory / "src/credentials/embedded.o" in holders
    assert not [path for path in holders if path.stat().st_mode & 0o066]


def test_flags_of_the_users_do_not_undo_it(build, run):
    (build.directory / "src" / "credentials" / "embedded.o").unlink()
    assert build("CPPFLAGS=-DMINE").returncode == 0
    assert certificate_of(build.program, run) == "device"


def test_it_is_installed_so_that_its_owner_alone_can_read_it(build, tmp_path):
    done = make(f"BUILD={build.directory}", f"EMBED={build.credentials}", f"DESTDIR={tmp_path / 'root'}",
                "install")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "root/usr/local/bin/dtls-send").stat().st_mode & 0o7777 == 0o711
