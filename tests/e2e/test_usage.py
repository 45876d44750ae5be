"""A command line that cannot be meant is refused with 64 and one line that names the option."""

import re

import pytest

from client import assert_fails, assert_one_line, assert_silent_success

USAGE = 64

BAD_NUMBERS = ["", "abc", "1e9", "-1", "0x10", "999999999999", "99999999999999999999999", "nan", "inf", "1s",
               " 1", "1 ", "1,5", "+1", "1.2.3", "1.", "٣"]

BAD_VALUES = {
    "--server": ["", "host:", ":1234", "host:0", "host:65536", "host:99999999999", "host:1e3", "host:0x10",
                 "host:-1", "host: 1", "host:+1", "host:12a", "[::1", "[::1]x", "[::1]1234", "[::1]:",
                 "[::1]:0", "[]:1", "[]", "x" * 300, "x" * 300 + ":1", "host/path", "host?query",
                 "dtls://", "dtls://host/path", "dtls://host?query", "dtls://me@host", "coap://host",
                 "http://host", "coaps://", "coaps:///path", "coaps://host#fragment", "coaps://me@host",
                 "coaps://host:0", "coaps://::1", "coaps://host/%", "coaps://host/%4x", "coaps://host/%00",
                 "coaps://host/a b", "coaps://host/" + "x" * 256, "coaps://host?" + "x" * 256,
                 "coaps://host" + "/abcdef" * 129],
    "--method": ["", "POST", "delete"],
    "--content-format": ["", "xml", "65536", "-1", "1.5"],
    "--server-name": [""],
    "--cert": [""],
    "--key": [""],
    "--passphrase-file": [""],
    "--ca": [""],
    "--wait": BAD_NUMBERS,
    "--count": [*BAD_NUMBERS, "0", "1.5"],
    "--output": ["", "xml", "TEXT", "jso", "text,json"],
    "--timeout": [*BAD_NUMBERS, "0"],
    "--mtu": [*BAD_NUMBERS, "0", "1.5", "99999"],
}

# Every option, with a value if it takes one.
OPTIONS = {
    "--server": "localhost", "-s": "localhost", "--server-name": "localhost", "--ipv4": None, "-4": None,
    "--ipv6": None, "-6": None, "--cert": "c", "-c": "c", "--key": "k", "-k": "k", "--passphrase-file": "p",
    "--ca": "a", "-C": "a", "--hex": None, "-x": None, "--wait": "1", "-w": "1", "--count": "1", "-n": "1",
    "--output": "raw", "-o": "raw", "--timeout": "1", "-t": "1", "--mtu": "500", "--quiet": None, "-q": None,
}
LONG = {"-s": "--server", "-4": "--ipv4", "-6": "--ipv6", "-c": "--cert", "-k": "--key", "-C": "--ca",
        "-x": "--hex", "-w": "--wait", "-n": "--count", "-o": "--output", "-t": "--timeout", "-q": "--quiet",
        "-f": "--file", "-l": "--lines"}


def words_of(option):
    """The option with its value, as on a command line."""
    return [option] if OPTIONS[option] is None else [option, OPTIONS[option]]


@pytest.mark.parametrize("option", BAD_VALUES)
def test_a_bad_value_is_refused(run, option):
    for value in BAD_VALUES[option]:
        assert_fails(run(option, value, "x", timeout=None), USAGE, option)


@pytest.mark.parametrize("option, value", [
    ("--server", "dtls://host"), ("--server", "coaps://[::1]:1/a//b?c&d"), ("--server", "COAPS://host"),
    ("--server", "host"), ("--server", "host:1"), ("--server", "host:65535"), ("--server", "[::1]"),
    ("--server", "[::1]:1"), ("--server", "::1"), ("--wait", "0"), ("--wait", "0.25"), ("--wait", "3600"),
    ("--count", "1"), ("--count", "1000000"), ("--timeout", "0.1"), ("--timeout", "86400"), ("--mtu", "1232"),
    ("--mtu", "512")])
def test_a_good_value_is_taken(run, option, value):
    """The missing certificate is then what ends the run."""
    assert_fails(run(option, value, "x", timeout=None), 78, "cert.crt")


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_given_twice_is_refused(run, option):
    result = run(*words_of(option), *words_of(option), "x", timeout=None)
    assert_fails(result, USAGE, LONG.get(option, option), "twice")


def test_an_option_given_twice_in_both_notations_is_refused(run):
    assert_fails(run("-w", "1", "--wait=2", "x", timeout=None), USAGE, "--wait")


@pytest.mark.parametrize("pair", [("--ipv4", "--ipv6"), ("-6", "-4"), ("--quiet", "--verbose"), ("-v", "-q")])
def test_options_that_exclude_each_other_are_refused(run, pair):
    result = run(*pair, "x", timeout=None)
    assert result.status == USAGE
    for option in pair:
        name = {**LONG, "-v": "--verbose"}.get(option, option)
        assert name in result.stderr or "-q" in pair, result


def test_two_payload_sources_are_refused_and_both_are_named(run, tmp_path):
    (tmp_path / "payload").touch()
    for arguments, words in (
            (["one", "--file", "payload"], ["PAYLOAD", "--file"]),
            (["--lines", "one"], ["PAYLOAD", "--lines"]),
            (["--lines", "--file", "payload"], ["--file", "--lines"]),
            (["-f", "payload", "-f", "payload"], ["--file"]),
            (["-l", "-l"], ["--lines"]),
            (["", "--lines"], ["PAYLOAD", "--lines"]),
            (["one", "two"], ["PAYLOAD"])):
        assert_fails(run(*arguments, timeout=None), USAGE, *words)


COAPS = ["--server", "coaps://localhost"]


@pytest.mark.parametrize("arguments, words", [
    (["--lease", "9", "x"], ["--lease", "--session"]),
    (["--session", "s", "--lease", "9", "--queue", "q", "x"], ["--lease", "--queue", "promise"]),
    (["--session", "s", "--lease", "9", "--confirm", "x"], ["--lease", "--confirm"]),
    (["--session", "s", "--lease", "9", *COAPS, "x"], ["--lease", "coaps"]),
    (["--queue-limit", "9", "x"], ["--queue-limit", "--queue"]),
    (["--flush"], ["--flush", "--queue"]),
    (["--renew-days", "9", "x"], ["--renew-days", "--check"]),
    (["--method", "put", "x"], ["--method", "coaps"]),
    (["--content-format", "json", "x"], ["--content-format", "coaps"]),
    ([*COAPS, "--method", "get", "--content-format", "json"], ["--content-format", "get"]),
    ([*COAPS, "--method", "get", "--queue", "q"], ["--queue", "get"]),
    ([*COAPS, "--method", "get", "--confirm"], ["--confirm", "get"]),
    ([*COAPS, "--method", "get", "x"], ["--method get", "PAYLOAD"]),
    ([*COAPS, "--method", "get", "--lines"], ["--method get", "--lines"]),
    (["--hex", "--check"], ["--hex", "--check"])])
def test_an_option_without_meaning_is_refused_and_both_are_named(run, arguments, words, tmp_path):
    assert_fails(run(*arguments, timeout=None), USAGE, *words)
    assert not list(tmp_path.iterdir())


def test_the_session_does_not_replace_the_payload(run, start, tmp_path):
    (tmp_path / "reading").write_text("21.5", encoding="ascii")
    (tmp_path / "link").symlink_to("reading")
    for session, payload in (("reading", "reading"), ("./reading", "reading"), ("link", "reading"),
                             ("missing", "missing")):
        assert_fails(run("--session", session, "--file", payload, timeout=None), USAGE, "--session", "payload")
    with open(tmp_path / "reading", "rb") as reading:
        running = start("--session", "reading", "--lines", timeout=None, stdin=reading)
        assert_fails(running.finish(), USAGE, "--session")
    assert (tmp_path / "reading").read_text(encoding="ascii") == "21.5"


@pytest.mark.smoke
def test_no_payload_source_is_refused_and_standard_input_is_not_read(run):
    assert_fails(run(timeout=None, stdin=b"not asked for"), USAGE, "PAYLOAD", "--file", "--lines")


def test_a_payload_is_never_quoted(run):
    """It may be confidential, and cron mails what is printed."""
    result = run("secret-one", "secret-two", timeout=None)
    assert_fails(result, USAGE)
    assert "secret" not in result.stderr


@pytest.mark.parametrize("option", ["--nonsense", "--nonsense=1", "--servers", "-Z", "-vZ", "--hep", "-?"])
def test_an_unknown_option_is_named(run, option):
    named = option.split("=", maxsplit=1)[0]
    assert_fails(run(option, "x", timeout=None), USAGE, "Z" if "Z" in named else named)


@pytest.mark.parametrize("option", ["--insecure", "--no-verify", "--no-check-certificate"])
def test_no_option_turns_verification_off(run, option):
    assert_fails(run(option, "x", timeout=None), USAGE, option)


@pytest.mark.parametrize("option", ["--server", "-s", "--wait", "-w", "--output", "--file", "-f", "--mtu"])
def test_a_missing_value_is_told(run, option):
    assert_fails(run("x", option, timeout=None), USAGE, LONG.get(option, option))


@pytest.mark.parametrize("option", ["--lines=yes", "--hex=1", "--help=yes", "--quiet=no", "--version=1"])
def test_a_value_for_an_option_without_one_is_refused(run, option):
    assert_fails(run(option, timeout=None), USAGE, option.split("=", maxsplit=1)[0])


def test_the_command_line_is_judged_before_any_file_is_opened(run, tmp_path):
    (tmp_path / "cert.crt").mkdir()
    assert_fails(run("--wait", "1e9", "--file", "missing", timeout=None), USAGE, "--wait")


def test_quiet_is_quiet_about_failures(run):
    assert_silent_failure(run("--quiet", "x", timeout=None), 78)


def assert_silent_failure(result, status):
    """The status says it all."""
    assert (result.status, result.stdout, result.stderr) == (status, b"", ""), result


# --help and --version

@pytest.mark.smoke
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_on_stdout_and_names_all_options(run, option):
    result = run(option, timeout=None)
    assert_silent_success(result, result.stdout)
    text = result.stdout.decode()
    more = ["--file", "-f", "--lines", "-l", "--verbose", "-v", "--help", "-h", "--version", "-V"]
    for name in [*OPTIONS, *more]:
        assert re.search(rf"(^|[\s,]){re.escape(name)}\b", text), name


def test_help_tells_the_exit_statuses(run):
    text = run("--help", timeout=None).stdout.decode()
    told = [int(status) for status in re.findall(r"^ +(\d+)  ", text, re.MULTILINE)]
    assert set(told) >= {0, 64, 65, 66, 68, 69, 70, 71, 74, 75, 76, 77, 78}


def test_help_fits_eighty_columns_and_two_screens(run):
    lines = run("--help", timeout=None).stdout.decode().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 72


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_is_on_stdout_and_names_the_library(run, option):
    result = run(option, timeout=None)
    assert_silent_success(result, result.stdout)
    assert re.fullmatch(rb"dtls-send \d+\.\d+\.\d+\S* .*[Mm]bed TLS [23]\.\d+\.\d+.*\n", result.stdout)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_cannot_be_printed_is_a_failure(run, option):
    with open("/dev/full", "wb") as full:
        assert_one_line_and_status(run(option, timeout=None, stdout=full), 74)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_needs_no_working_credentials_nor_payload(run, option, tmp_path):
    (tmp_path / "cert.crt").mkdir()
    assert run(option, timeout=None).status == 0


def assert_one_line_and_status(result, status):
    """For runs whose stdout is not collected."""
    assert result.status == status, result
    assert_one_line(result)
