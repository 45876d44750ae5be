"""The configuration file: where it is looked for, what it says, and what is wrong with it."""

import ctypes
import os
import subprocess

import pytest

from client import PROGRAM, SLOWNESS, WRAPPER, assert_fails, assert_silent_success

UNUSABLE = 78
SECRET = "00112233445566778899aabbccddeeff"
NAME = "dtls-send.conf"
UNSET = {"DTLS_SEND_CONFIG": ""}  # as if it were not there


@pytest.fixture(name="write")
def fixture_write(tmp_path):
    """Writes a file, and its directory, and returns its path."""

    def write(content, name="the.conf"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture(name="run_with")
def fixture_run_with(run, write):
    """run_with(content, ...) runs with this as the.conf, and without other options of its own."""

    def run_with(content, *arguments, **options):
        write(content)
        return run("--config", "the.conf", *arguments, **{"timeout": None, **options})

    return run_with


def without_capabilities():
    """Even root minds the mode of a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; without effect for others than root


def assert_faults(result, path, line, *words):
    """Status 78, and one line that begins with the place."""
    assert_fails(result, UNUSABLE, *words)
    assert result.stderr.startswith(f"dtls-send: {path}:{line}: "), result


# Where it is

@pytest.fixture(name="places")
def fixture_places(write, tmp_path):
    """All but /etc, best first. Each file has a mistake of its own, by which it is known."""
    paths = [write(f"from-{place}\n", name) for place, name in
             (("flag", "flag.conf"), ("variable", "variable.conf"), ("xdg", f"xdg/{NAME}"),
              ("home", f"home/.config/{NAME}"))]
    environment = {"DTLS_SEND_CONFIG": paths[1], "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
                   "HOME": str(tmp_path / "home")}
    return paths, environment


@pytest.mark.smoke
def test_the_flag_comes_before_all(run, places):
    paths, environment = places
    assert_faults(run("--config", "flag.conf", "x", env=environment), "flag.conf", 1, "from-flag")
    assert paths[0].endswith("flag.conf")


def test_then_comes_the_variable(run, places):
    paths, environment = places
    assert_faults(run("x", env=environment), paths[1], 1, "from-variable")


@pytest.mark.parametrize("empty", [{}, UNSET])
def test_then_comes_the_xdg_directory(run, places, empty):
    paths, environment = places
    del environment["DTLS_SEND_CONFIG"]
    assert_faults(run("x", env={**environment, **empty}), paths[2], 1, "from-xdg")


@pytest.mark.parametrize("base", [None, "", "xdg", "./xdg"])
def test_then_comes_the_home_directory_and_a_relative_xdg_directory_is_none(run, places, base):
    paths, environment = places
    environment = {"HOME": environment["HOME"], **({} if base is None else {"XDG_CONFIG_HOME": base})}
    assert_faults(run("x", env=environment), paths[3], 1, "from-home")


@pytest.fixture(name="none_in_etc")
def fixture_none_in_etc():
    """Skips the test where the machine has a file of its own."""
    if os.path.exists(f"/etc/{NAME}"):
        pytest.skip(f"there is a /etc/{NAME} here")


@pytest.mark.usefixtures("none_in_etc")
@pytest.mark.parametrize("environment", [UNSET, {"HOME": ""}, {"HOME": "home"}, {"HOME": "/nonexistent"}])
def test_without_any_file_nothing_is_wrong(run, places, environment):
    """What is missing then is the certificate."""
    assert_fails(run("x", env=environment), UNUSABLE, "cert.crt")
    assert places


@pytest.mark.usefixtures("none_in_etc")
def test_where_the_xdg_directory_is_set_the_home_directory_is_not_looked_at(run, places, tmp_path):
    _, environment = places
    (tmp_path / "empty").mkdir()
    result = run("x", env={"HOME": environment["HOME"], "XDG_CONFIG_HOME": str(tmp_path / "empty")})
    assert_fails(result, UNUSABLE, "cert.crt")


def in_etc(start, content, *arguments, **options):
    """Runs in a mount namespace of its own, where /etc has nothing but this file."""
    script = f'mount -t tmpfs none /etc && printf %s "$0" > /etc/{NAME} && exec "$@"'
    client = start("--mount", "sh", "-c", script, content, *WRAPPER, PROGRAM, *arguments, timeout=None,
                   program="/usr/bin/unshare", **options)
    return client.finish()


@pytest.fixture(name="needs_namespaces")
def fixture_needs_namespaces():
    """Skips the test where /etc cannot be replaced, for this test's process alone."""
    try_it = ["/usr/bin/unshare", "--mount", "mount", "-t", "tmpfs", "none", "/etc"]
    done = subprocess.run(try_it, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no mount namespace: {done.stderr.decode().strip()}")


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.skipif(bool(WRAPPER), reason="the wrapper may need /etc")
def test_etc_comes_last(start, places, tmp_path):
    paths, environment = places
    assert_faults(in_etc(start, "from-etc\n", "x", env=UNSET), f"/etc/{NAME}", 1, "from-etc")
    (tmp_path / "empty").mkdir()
    nowhere = {"HOME": "/nonexistent", "XDG_CONFIG_HOME": str(tmp_path / "empty")}
    assert_faults(in_etc(start, "from-etc\n", "x", env=nowhere), f"/etc/{NAME}", 1, "from-etc")
    assert_faults(in_etc(start, "from-etc\n", "x", env={"HOME": environment["HOME"]}), paths[3], 1)


def test_verbose_tells_which_file_it_was(run_with):
    result = run_with("server 127.0.0.1:9\n", "-v", "x")
    assert "dtls-send: options from the.conf\n" in result.stderr


# Files that are none

@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_file_that_was_named_must_exist(run, how):
    if how == "flag":
        result = run("--config", "missing.conf", "x")
    else:
        result = run("x", env={"DTLS_SEND_CONFIG": "missing.conf"})
    assert_fails(result, UNUSABLE, "missing.conf", "No such file")


def test_a_directory_is_none(run, write, tmp_path):
    assert_fails(run("--config", tmp_path, "x"), UNUSABLE, tmp_path, "directory")
    write("", f"xdg/{NAME}/file")
    result = run("x", env={"XDG_CONFIG_HOME": str(tmp_path / "xdg")})
    assert_fails(result, UNUSABLE, f"xdg/{NAME}", "directory")


def test_a_file_that_is_there_and_cannot_be_read_is_told(run, write, tmp_path):
    """Not passed over: what it says may matter."""
    for path, arguments, environment in (
            (write("", "named.conf"), ["--config", "named.conf"], {}),
            (write("", f"xdg/{NAME}"), [], {"XDG_CONFIG_HOME": str(tmp_path / "xdg")})):
        os.chmod(path, 0)
        result = run(*arguments, "x", env=environment, preexec_fn=without_capabilities)
        assert_fails(result, UNUSABLE, path.rsplit("/", 1)[1], "Permission denied")


@pytest.mark.usefixtures("none_in_etc")
def test_a_directory_that_cannot_be_searched_has_no_file(run, write, tmp_path):
    """A service without a home does not fail by that."""
    write("from-xdg", f"closed/xdg/{NAME}")
    (tmp_path / "closed").chmod(0)
    result = run("x", env={"XDG_CONFIG_HOME": str(tmp_path / "closed/xdg")}, preexec_fn=without_capabilities)
    (tmp_path / "closed").chmod(0o700)
    assert_fails(result, UNUSABLE, "cert.crt")


def test_a_huge_file_is_refused_at_once(run, tmp_path):
    with open(tmp_path / "huge.conf", "wb") as file:
        file.truncate(1 << 30)
    result = run("--config", "huge.conf", "x")
    assert_fails(result, UNUSABLE, "huge.conf")
    assert result.seconds < 3 * SLOWNESS


def test_an_empty_file_says_nothing(run):
    assert_fails(run("--config", "/dev/null", "x"), UNUSABLE, "cert.crt")


@pytest.mark.parametrize("option", ["--help", "-h", "--version", "-V"])
@pytest.mark.parametrize("content", ["frobnicate\n", b"\0\1\2", "quiet\nquiet\n"])
def test_help_and_version_work_whatever_the_file_says(run, write, option, content):
    for arguments, environment in ((["--config", write(content)], {}),
                                   ([], {"DTLS_SEND_CONFIG": write(content)}),
                                   (["--config", "missing.conf"], {})):
        result = run(*arguments, option, env=environment, timeout=None)
        assert result.status == 0 and result.stdout and not result.stderr, result


# Lines that are wrong

WRONG = {
    "unknown option": ("frobnicate 1\n", 1, ["frobnicate", "unknown"]),
    "abbreviation": ("serv localhost\n", 1, ["serv:", "unknown"]),
    "upper case": ("Server localhost\n", 1, ["unknown"]),
    "with dashes": ("--server localhost\n", 1, ["unknown", "without its dashes"]),
    "a letter": ("s localhost\n", 1, ["unknown"]),
    "equals sign without value": ("server =\n", 1, ["server", "needs a value"]),
    "equals sign without name": ("= localhost\n", 1, ["unknown"]),
    "equals sign and a switch": ("confirm=yes\n", 1, ["confirm", "takes no value"]),
    "missing value": ("# one\n\nconfirm\nserver\n", 4, ["server", "needs a value", "SERVER"]),
    "missing value before blanks": ("server \t \r\n", 1, ["server", "needs a value"]),
    "value where none belongs": ("confirm yes\n", 1, ["confirm", "takes no value"]),
    "comment behind a switch": ("confirm # always\n", 1, ["comment", "a line of its own"]),
    "comment behind a value": ("wait 1\nserver localhost # ours\n", 2, ["comment", "a line of its own"]),
    "bad value": ("wait 1\ncount none\n", 2, ["count"]),
    "bad format": ("output xml", 1, ["output"]),
    "doubled line": ("wait 1\n\nwait 1\n", 3, ["wait", "twice"]),
    "doubled switch": ("confirm\nconfirm\n", 2, ["confirm", "twice"]),
    "families": ("ipv4\nipv6\n", 2, ["ipv4", "ipv6"]),
    "noise": ("quiet\nverbose\n", 2, ["quiet", "verbose"]),
    "sources": ("lines\nfile a\n", 2, ["lines", "file", "one payload source"]),
    "check and a source": ("flush\ncheck\n", 2, ["flush", "check"]),
    "psk and cert": ("psk a\ncert b\n", 2, ["psk", "cert"]),
    "key and psk": ("key a\nca b\npsk c\n", 3, ["psk", "ca"]),
    "get and a source": ("server coaps://h\nmethod get\nlines\n", 3, ["method get", "lines"]),
    "lease and queue": ("lines\nsession s\nqueue q\nlease 9\n", 4, ["lease", "queue", "promise"]),
    "limit of no queue": ("lines\nqueue-limit 9\n", 2, ["queue-limit", "queue"]),
    "format of no coaps": ("lines\nserver h\ncontent-format json\n", 3, ["content-format", "coaps"]),
    "config": ("config other.conf\n", 1, ["config"]),
    "help": ("help\n", 1, ["help"]),
    "version": ("wait 1\nversion\n", 2, ["version"]),
    "line too long": ("wait 1\nfile " + "x" * 4092 + "\n", 2, ["too long"]),
    "endless line": ("file " + "x" * 60000, 1, ["too long"]),
    "NUL": (b"wait 1\nserver a\0b\n", 2, ["text"]),
    "control character": (b"\n\nserver \x1b[2Ja\n", 3, ["text"]),
    "binary": (bytes(i * 167 % 256 for i in range(4000)), 1, []),
    "a key": ("-----BEGIN " + "PRIVATE KEY-----\nMIG\n", 1, ["unknown"]),
}


@pytest.mark.parametrize("content, line, words", WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_named_with_its_number(run_with, content, line, words):
    assert_faults(run_with(content), "the.conf", line, *words)


@pytest.mark.parametrize("content", [
    f"sensor:{SECRET}", SECRET, f"{SECRET} sensor", f"confirm {SECRET}", f"psk sensor:{SECRET}",
    f"--psk sensor:{SECRET}", f"psk=sensor:{SECRET}", f"psk a\npsk {SECRET}", f"psk a\ncert {SECRET}",
    f"wait sensor:{SECRET}", f"server sensor:{SECRET}", f"output {SECRET}", f"sensor:{SECRET}\0",
    f"passphrase {SECRET}", f"{SECRET * 200}", f"wait=sensor:{SECRET}", f"psk = sensor:{SECRET} # mine",
    f"sensor:{SECRET} = 1"])
def test_a_secret_in_the_wrong_place_is_never_quoted(run_with, content):
    result = run_with(content, "x")
    assert_fails(result, UNUSABLE)
    assert SECRET not in result.stderr and "sensor:" not in result.stderr


# What it says

@pytest.mark.smoke
def test_the_options_are_those_of_the_file(run_with, pki, inboxd):
    server = inboxd("--reply", "ack")
    result = run_with(f"""# of this test
        server {server.address}
        cert   {pki.bundle("device")}
        key    {pki.key("device")}
        confirm
        count 1
        timeout 20
        output hex
        """, "x")
    assert_silent_success(result, b"61636b\n")
    server.wait_for_payloads(b"x")


@pytest.mark.parametrize("content", [
    b"server SERVER\nfile reading\n", b"server SERVER\r\nfile reading\r\n",
    b"server\tSERVER\nfile\t \treading",
    b" \t server   SERVER \t\n\tfile reading\t\n",
    b"#\n# server nowhere\n  # file x\n\n \t\nserver SERVER\nfile reading",
    b"\r\n\r\nfile reading\r\nserver SERVER\r\n\r\n", b"server = SERVER\nfile=reading\n"],
    ids=["plain", "CRLF", "tabs", "indented", "comments and blanks", "blank lines", "equals signs"])
def test_blanks_comments_and_line_ends_say_nothing(run_with, write, credentials, inboxd, content):
    server = inboxd()
    write("21.5", "reading")
    result = run_with(content.replace(b"SERVER", server.address.encode()), *credentials, "--wait", "0")
    assert_silent_success(result)
    server.wait_for_payloads(b"21.5")


@pytest.mark.parametrize("name", ["my reading", "reading#1", "a#", "a  b\tc", "für heute", "x=y", '"q"'])
def test_a_value_may_hold_blanks_and_any_sign(run_with, write, inboxd, credentials, name):
    write("21.5", name)
    server = inboxd()
    result = run_with(f"server {server.address}\nfile {name} \n", *credentials, "--wait", "0")
    assert_silent_success(result)
    server.wait_for_payloads(b"21.5")


def test_a_line_may_have_4096_characters(run_with):
    line = "wait 1"
    assert_fails(run_with(line + " " * (4096 - len(line)) + "\n", "x"), UNUSABLE, "cert.crt")
    assert_faults(run_with(line + " " * (4097 - len(line)) + "\n", "x"), "the.conf", 1, "too long")


def test_quiet_and_verbose_hold(run_with, refused):
    result = run_with(f"quiet\nserver {refused.address}\n", "x")
    assert (result.status, result.stderr) == (UNUSABLE, "")
    assert len(run_with(f"verbose\nserver {refused.address}\n", "x").stderr.splitlines()) > 1


def test_a_check_may_stand_in_it(run_with, credentials):
    result = run_with("check\nrenew-days 40\n", *credentials)
    assert result.status == UNUSABLE and b"days left" in result.stdout, result
    assert "in less than" in result.stderr


# A flag beats it

def test_a_flag_beats_a_value(run_with, credentials, black_hole, refused):
    result = run_with(f"server {refused.address}\ntimeout 9\n", "--server", black_hole.address, "--timeout",
                      "0.5", *credentials, "x")
    assert_fails(result, 75, black_hole.address)
    black_hole.wait_for_datagram()


@pytest.mark.parametrize("line", ["file no-such-file", "lines", "flush", "check"])
def test_a_payload_beats_its_source(run_with, credentials, inboxd, line):
    server = inboxd()
    result = run_with(f"{line}\nserver {server.address}\n", *credentials, "--wait", "0", "from the flag")
    assert_silent_success(result)
    server.wait_for_payloads(b"from the flag")


def test_a_check_beats_a_payload_source(run_with, credentials):
    result = run_with("file no-such-file\n", "--check", *credentials)
    assert (result.status, result.stderr) == (0, ""), result
    assert b"days left" in result.stdout


@pytest.mark.parametrize("line, flag, address", [("ipv4", "-6", "[::1]"), ("ipv6", "-4", "127.0.0.1")])
def test_a_family_beats_the_other(run_with, credentials, line, flag, address):
    """Or else there would be no such address (68)."""
    result = run_with(f"{line}\nserver {address}:9\n", flag, *credentials, "--timeout", "1", "x")
    assert result.status in (69, 75), result
    assert f"{address}:9" in result.stderr


def test_quiet_beats_verbose_and_the_other_way_round(run_with):
    assert run_with("verbose\n", "-q", "x").stderr == ""
    assert len(run_with("quiet\n", "-v", "x").stderr.splitlines()) > 1


def test_certificates_beat_a_pre_shared_key_and_the_other_way_round(run_with):
    assert_fails(run_with("psk no.psk\n", "--cert", "no.crt", "x"), UNUSABLE, "no.crt")
    assert_fails(run_with("cert no.crt\nkey no.key\nca no.ca\n", "--psk", "no.psk", "x"), UNUSABLE, "no.psk")


def test_a_certificate_on_the_command_line_leaves_the_files_key(run_with, pki):
    result = run_with(f"cert no.crt\nkey {pki.key('device')}\n", "--cert", pki.bundle("device"), "--check")
    assert result.status == 0, result


def test_a_mistake_is_one_though_a_flag_beats_the_line(run_with):
    """In how a line is written, that is: its value is not looked at."""
    assert_faults(run_with("server\n", "--server", "localhost", "x"), "the.conf", 1, "needs a value")


@pytest.mark.parametrize("flag", [["--confirm"], ["--queue", "queue"], ["--server", "coaps://127.0.0.1:9"]])
def test_a_flag_takes_the_meaning_of_what_the_file_says(run_with, flag):
    """And does not make it a mistake: it is the certificate that is missing then."""
    lines = "server 127.0.0.1:9\nsession session\nlease 600\n"
    assert_fails(run_with(lines, *flag, "x"), UNUSABLE, "cert.crt")


def test_the_file_of_a_payload_may_be_that_of_a_check(run_with, credentials):
    lines = "server h\nfile reading\nhex\nsession s\nlease 600\nsplay 300\nrenew-days 9\n"
    result = run_with(lines, "--check", *credentials)
    assert b"days left" in result.stdout, result


def test_the_session_does_not_replace_the_file(run, write, refused, credentials):
    path = write(f"server {refused.address}\n")
    os.chmod(path, 0o600)
    result = run("--config", path, "--session", path, *credentials, "x")
    assert_fails(result, 64, "--session")
    assert os.path.exists(path)
