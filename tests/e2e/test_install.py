"""make install and uninstall, and what they put beside the program: completion and systemd units."""

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from client import BUILD, PROGRAM, SLOWNESS, assert_fails, assert_silent_success, environment
from test_documents import MAN, README, options_of_help

ROOT = Path(__file__).resolve().parents[2]
COMPLETION = ROOT / "src" / "completion" / "dtls-send.bash"
SERVICE = (ROOT / "src" / "systemd" / "dtls-send@.service").read_text(encoding="utf-8")
TIMER = (ROOT / "src" / "systemd" / "dtls-send@.timer").read_text(encoding="utf-8")

INSTALLED = {
    "bin/dtls-send": 0o755,
    "share/man/man1/dtls-send.1": 0o644,
    "share/bash-completion/completions/dtls-send": 0o644,
    "lib/systemd/system/dtls-send@.service": 0o644,
    "lib/systemd/system/dtls-send@.timer": 0o644,
}


def make(*arguments, **options):
    """Runs make on the build that is tested, which it takes as it is: nothing is to be compiled."""
    command = ["make", "-C", ROOT, "CC=true", f"BUILD={BUILD}", "-o", PROGRAM, *arguments]
    return subprocess.run(command, check=True, env=environment(), capture_output=True, text=True, **options)


def files_in(directory):
    """{path: mode} of all files below."""
    return {str(path.relative_to(directory)): path.stat().st_mode & 0o7777
            for path in Path(directory).rglob("*") if not path.is_dir()}


# make install

@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("options, prefix", [([], "usr/local"), (["PREFIX=/usr"], "usr"),
                                             (["PREFIX=/opt/dtls"], "opt/dtls")])
def test_the_five_files_are_installed_and_nothing_else(tmp_path, options, prefix, umask):
    make("install", f"DESTDIR={tmp_path}", *options, umask=umask)
    assert files_in(tmp_path) == {f"{prefix}/{name}": mode for name, mode in INSTALLED.items()}


def test_what_is_installed_is_what_was_built(tmp_path):
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    for name, source in (("bin/dtls-send", PROGRAM),
                         ("share/man/man1/dtls-send.1", ROOT / "src/man/dtls-send.1"),
                         ("share/bash-completion/completions/dtls-send", COMPLETION),
                         ("lib/systemd/system/dtls-send@.timer", ROOT / "src/systemd/dtls-send@.timer")):
        assert (tmp_path / "usr" / name).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("prefix", ["/usr/local", "/usr", "/opt/with.dots"])
def test_the_service_runs_the_program_where_it_is(tmp_path, prefix):
    make("install", f"DESTDIR={tmp_path}", f"PREFIX={prefix}")
    unit = (tmp_path / prefix[1:] / "lib/systemd/system/dtls-send@.service").read_text(encoding="utf-8")
    assert unit == SERVICE.replace("/usr/local/bin/", f"{prefix}/bin/")
    assert f"ExecStart={prefix}/bin/dtls-send " in unit
    assert str(tmp_path) not in unit


def test_installing_again_changes_nothing(tmp_path):
    for _ in range(2):
        make("install", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    assert files_in(tmp_path / "usr") == INSTALLED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install for someone else")
@pytest.mark.parametrize("embed, owner", [([], 65534), (["EMBED=keys"], 0)], ids=["plain", "with a key"])
def test_what_root_built_belongs_to_the_owner_of_the_checkout_unless_it_holds_a_key(tmp_path, embed, owner):
    """So that `make test` works after `sudo make install`."""
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "keys").mkdir()
    for name in ("cert.crt", "key.pem"):
        (tmp_path / "keys" / name).touch()
    os.chown(tmp_path, 65534, 65534)
    (tmp_path / "build/tests").mkdir(parents=True)
    shutil.copy(PROGRAM, tmp_path / "build")
    subprocess.run(["make", "-C", tmp_path, "CC=true", "-o", "build/dtls-send", f"DESTDIR={tmp_path}/root", *embed,
                    "install"], check=True, env=environment(), capture_output=True)
    built = [tmp_path / "build", *(tmp_path / "build").rglob("*")]
    assert len(built) > 2 and {path.stat().st_uid for path in built} == {owner}
    assert (tmp_path / "root/usr/local/bin/dtls-send").stat().st_uid == 0


def test_uninstall_removes_those_and_leaves_its_neighbours(tmp_path):
    neighbours = {name.replace("dtls-send", "neighbour") for name in INSTALLED}
    neighbours |= {"bin/dtls-send2", "lib/systemd/system/dtls-send@.service.d/mine.conf"}
    for name in neighbours:
        (tmp_path / "usr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "usr" / name).touch()
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    assert set(files_in(tmp_path / "usr")) == neighbours | set(INSTALLED)
    for _ in range(2):  # what is not there cannot be removed
        make("uninstall", f"DESTDIR={tmp_path}", "PREFIX=/usr")
        assert set(files_in(tmp_path / "usr")) == neighbours


def test_uninstall_of_another_prefix_leaves_it_alone(tmp_path):
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    make("uninstall", f"DESTDIR={tmp_path}")
    assert files_in(tmp_path / "usr") == INSTALLED


# Completion

HARNESS = """
source "$0" || exit
compopt() { printf 'compopt %s\\n' "$*"; }  # knows only completions that readline asked for
function=$(complete -p dtls-send | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
COMP_WORDS=(dtls-send "$@") COMP_CWORD=$# COMP_LINE="dtls-send $*" COMP_POINT=${#COMP_LINE}
COMPREPLY=(left over)
"$function" dtls-send "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
[ ${#COMPREPLY[@]} = 0 ] || printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(name="complete")
def fixture_complete(tmp_path):
    """complete(word, ...) is what a real bash offers for the last of these words. Two files, a directory and
    a host are there."""
    directory = tmp_path / "there"
    (directory / "a directory").mkdir(parents=True)
    (directory / "a file").touch()
    (directory / "dtls.conf").touch()
    (tmp_path / "hosts").write_text("192.0.2.1 alpha.test beta.test\n", encoding="ascii")

    def complete(*words):
        done = subprocess.run(["bash", "--noprofile", "--norc", "-c", HARNESS, COMPLETION, *words],
                              cwd=directory, env=environment({"HOSTFILE": str(tmp_path / "hosts")}),
                              capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if not line.startswith("compopt ")]

    return complete


def forms(name):
    """The ways to write an option."""
    letter, _ = options_of_help()[name]
    return [f"--{name}"] + ([f"-{letter}"] if letter else [])


FILES = {"a file", "a directory", "dtls.conf"}
WORDS = {"output": {"text", "raw", "hex", "base64", "json"}, "method": {"post", "put", "get"},
         "content-format": {"text", "json", "cbor", "octets"}}
KINDS = {"FILE": FILES, "FILE|DIR": FILES, "DIR": {"a directory"},
         "SECONDS": set(), "N": set(), "BYTES": set()}
VALUED = sorted(name for name, (_, argument) in options_of_help().items() if argument)


def test_the_completed_options_are_those_of_the_help(complete):
    assert complete("--") == [f"--{name}" for name in options_of_help()]


def test_an_option_is_completed_by_its_beginning(complete):
    assert complete("--re") == ["--renew-days"]
    assert complete("--wait", "1", "--ver") == ["--verbose", "--version"]
    assert complete("--frob") == []


@pytest.mark.parametrize("name", VALUED)
def test_a_value_is_completed_as_its_kind(complete, name):
    _, argument = options_of_help()[name]
    for form in forms(name):
        if name in ("server", "server-name"):
            assert set(complete(form, "al")) == {"alpha.test"}
        else:
            assert set(complete(form, "")) == (WORDS.get(name) or KINDS[argument]), form
            assert complete(form, "--") == [], form


def test_values_are_completed_by_their_beginning(complete):
    assert complete("--output", "j") == ["json"]
    assert complete("-o", "xml") == []
    assert complete("--cert", "a f") == ["a file"]
    assert complete("--queue", "a") == ["a directory"]


@pytest.mark.parametrize("name", sorted(set(options_of_help()) - set(VALUED)))
def test_behind_a_switch_comes_another_option(complete, name):
    for form in forms(name):
        assert complete(form, "--vers") == ["--version"]


def test_readline_takes_it(tmp_path):
    """In a bash at a terminal; file names with spaces are quoted."""
    (tmp_path / "a file").touch()
    terminal, own = pty.openpty()
    env = environment({"TERM": "dumb", "PS1": "", "INPUTRC": "/dev/null"})
    # pylint: disable-next=consider-using-with
    bash = subprocess.Popen(["bash", "--noprofile", "--norc", "-i"], stdin=own, stdout=own, stderr=own,
                            cwd=tmp_path, env=env, start_new_session=True)
    try:
        os.close(own)
        os.write(terminal, f"source {shlex.quote(str(COMPLETION))}\n"
                           "dtls-send() { printf '<%s>' \"$@\"; echo END; }\n"
                           "dtls-send --outp\tj\t --cert a\t\n".encode())
        shown = b""
        while b"END\r\n" not in shown.replace(b"echo END", b""):
            assert select.select([terminal], [], [], 10 * SLOWNESS)[0], shown
            shown += os.read(terminal, 65536)
        assert b"<--output><json><--cert><a file>END" in shown
    finally:
        bash.kill()
        bash.wait()
        os.close(terminal)


# systemd

def setting(unit, name):
    """All values of a setting."""
    joined = unit.replace("\\\n", " ")
    return re.findall(rf"^{name}=(.*)$", joined, re.MULTILINE)


@pytest.fixture(name="units")
def fixture_units(tmp_path):
    """The directory of the units, installed where they think that they are."""
    make("install", f"PREFIX={tmp_path}")
    return tmp_path / "lib/systemd/system"


def analyze(*arguments):
    """Runs systemd-analyze(1), of Debian's package systemd; skips the test where there is none."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    return subprocess.run(["systemd-analyze", *map(str, arguments)], env=environment(), capture_output=True,
                          text=True, check=False)


@pytest.mark.parametrize("kind", ["service", "timer"])
def test_systemd_finds_no_fault_with_the_units(units, kind):
    done = analyze("verify", "--man=no", units / f"dtls-send@.{kind}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done


def test_the_service_is_hardened(units):
    done = analyze("security", "--offline=yes", "--no-pager", units / "dtls-send@.service")
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+) ", done.stdout)
    assert exposure, done
    assert float(exposure[1]) < 2.0


def test_the_service_leaves_no_core_file():
    assert setting(SERVICE, "LimitCORE") == ["0"]


def test_the_timer_fires_every_ten_minutes_each_device_at_its_own(units):
    assert units.exists()
    assert setting(TIMER, "OnCalendar") == ["*:0/10"]
    assert int(setting(TIMER, "RandomizedDelaySec")[0]) > 0
    done = analyze("calendar", "--iterations=3", setting(TIMER, "OnCalendar")[0])
    minutes = re.findall(r"(?:Next elapse|Iter\. #\d|Iteration #\d): .*?:(\d\d):00", done.stdout)
    assert len(minutes) == 3 and all(minute.endswith("0") for minute in minutes), done.stdout


def test_a_run_ends_by_its_own_timeout_and_systemd_never_ends_it_before():
    assert setting(SERVICE, "TimeoutStartSec") == ["infinity"]
    assert not setting(SERVICE, "RuntimeMaxSec")


def test_the_readme_tells_the_paths_of_the_unit():
    part = README.split("### From a systemd timer")[1].split("\n### ")[0]
    for credential in setting(SERVICE, "LoadCredential"):
        name, path = credential.split(":")
        assert path == "/etc/dtls-send/" + {"dtls-send.conf": "%i.conf"}.get(name, name)
        assert Path(path.replace("%i", "NAME")).name in part
        assert f"%d/{name}" in setting(SERVICE, "ExecStart")[0]
    assert "`/etc/dtls-send`" in part and "/etc/dtls-send/NAME.conf" in part
    assert "dtls-send@NAME.timer" in part
    assert setting(SERVICE, "RuntimeDirectory") == setting(SERVICE, "StateDirectory") == ["dtls-send/%i"]


def test_the_service_does_with_its_directories_what_it_says(run, inboxd, pki, tmp_path, run_dir):
    """ExecStart as systemd would run it, with the README's example: the options are known, credentials are
    found, session and queue are left where they should be."""
    for place, name in (("credentials", "cert.crt"), ("credentials", "key.pem"), ("run", "dtls-send/pi"),
                        ("lib", "dtls-send/pi")):
        path = (run_dir if place == "run" else tmp_path / place) / name
        if place == "credentials":
            path.parent.mkdir(exist_ok=True)
            shutil.copy(pki.bundle("device") if name == "cert.crt" else pki.key("device"), path)
        else:
            path.mkdir(parents=True, mode=0o700)
    server = inboxd("--reply", "ack")
    (tmp_path / "reading").write_text("21.5", encoding="ascii")
    example = README.split("### From a systemd timer")[1].split("```conf\n")[1].split("```")[0]
    example = example.replace("/run/sensor/reading", str(tmp_path / "reading"))
    (tmp_path / "credentials/dtls-send.conf").write_text(example + f"server {server.address}\ncount 1\n",
                                                    encoding="ascii")
    program, *arguments = shlex.split(
        setting(SERVICE, "ExecStart")[0].replace("%i", "pi").replace("%d", str(tmp_path / "credentials"))
        .replace("%t", str(run_dir)).replace("%S", str(tmp_path / "lib")))
    assert program == "/usr/local/bin/dtls-send"
    assert {word[2:] for word in arguments if word.startswith("--")} <= set(options_of_help())
    for _ in range(2):
        assert_silent_success(run(*arguments), b"ack\n")
    assert len(server.events("handshake")) <= 1
    server.wait_for_payloads(b"21.5", b"21.5")
    assert (run_dir / "dtls-send/pi/session").exists()
    assert (tmp_path / "lib/dtls-send/pi/queue").is_dir()


# The examples of configuration files

@pytest.mark.parametrize("example", [
    *re.findall(r"```conf\n(.*?)```", README, re.DOTALL),
    *re.findall(r"^\.Bd -literal.*?\n(# /etc.*?)^\.Ed", MAN, re.MULTILINE | re.DOTALL),
    *re.findall(r"^# .*for example\n((?:#     .*\n)+)", SERVICE, re.MULTILINE)])
def test_the_example_files_hold_options(run, tmp_path, example):
    """They lead to files that are not here."""
    (tmp_path / "example.conf").write_text(example.replace("#     ", ""), encoding="ascii")
    payload = [] if "file " in example else ["x"]
    result = run("--config", "example.conf", *payload, timeout=None)
    assert result.status in (66, 78), result
    assert_fails(result, result.status, "No such file")
    assert "example.conf" not in result.stderr
