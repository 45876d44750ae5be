"""The words and the program say the same: --help (from the option table), the man page, the README, the
completion."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from client import PROGRAM, WRAPPER, answering_names, environment

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAN = (ROOT / "src" / "man" / "dtls-send.1").read_text(encoding="utf-8")


def printed_help():
    """What --help says."""
    return subprocess.run([*WRAPPER, PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout


def options_of_help():
    """{long name: (letter, argument)}"""
    rows = re.findall(r"^  (?:-(.), |    )--([a-z0-9-]+)(?: (\S+))?", printed_help(), re.MULTILINE)
    return {name: (letter, argument) for letter, name, argument in rows}


def options_of_man():
    """The same, from the man page."""
    rows = re.findall(r"^\.It (?:Fl (\S) , )?Fl -(\S+)(?: Ar (\S+))?$", MAN, re.MULTILINE)
    return {name: (letter, argument) for letter, name, argument in rows}


def section_of_man(title):
    """The source of one section."""
    return re.search(rf"^\.Sh {title}\n(.*?)(?=^\.Sh |\Z)", MAN, re.MULTILINE | re.DOTALL)[1]


def unroff(text):
    """Undoes the escapes of the man page's examples."""
    return text.replace(r"\(dq", '"').replace(r"\e", "\\")


def examples():
    """Every command that a reader is shown, as pytest parameters."""
    for block in re.findall(r"^ *```(?:sh|crontab|console)\n(.*?)```", README, re.DOTALL | re.MULTILINE):
        for command in re.findall(r"^ *(?:\$ )?(.*\bdtls-send [-\"].*)$", block, re.MULTILINE):
            yield pytest.param(command, id=f"README: {command[:40]}")
    for line in re.findall(r"^\.Dl (?:\$ )?(.*)$", section_of_man("EXAMPLES"), re.MULTILINE):
        yield pytest.param(unroff(line), id=f"man: {line[:40]}")
    for line in printed_help().split("Examples:\n")[1].splitlines():
        yield pytest.param(line.strip(), id=f"help: {line.strip()[:40]}")


def test_the_man_page_has_every_option_with_its_letter_and_argument():
    assert options_of_man() == options_of_help()
    assert len(options_of_help()) == 33


@pytest.mark.parametrize("name", sorted(options_of_help()))
def test_every_option_in_the_help_is_known_to_the_program(name, run):
    letter, argument = options_of_help()[name]
    for form in filter(None, [f"--{name}", letter and f"-{letter}"]):
        result = run(form, timeout=None)
        assert result.status == {"help": 0, "version": 0, "lines": 66, "check": 78}.get(name, 64), result
        assert "unknown" not in result.stderr
        assert not argument or "needs a value" in result.stderr


def test_help_fits_an_eighty_column_terminal():
    assert max(map(len, printed_help().splitlines())) < 80


def test_the_readme_is_short_enough_to_be_read():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120 and "apt-get" not in line] == []


def test_help_man_page_and_readme_have_the_same_statuses():
    in_help = re.findall(r"^ +(\d+)  \S", printed_help(), re.MULTILINE)
    in_man = re.findall(r"^\.It (\d+)$", section_of_man("EXIT STATUS"), re.MULTILINE)
    in_readme = re.findall(r"^\| (\d+) \|", README, re.MULTILINE)
    assert in_help == in_man == in_readme
    assert in_help == "0 64 65 66 68 69 70 71 73 74 75 76 77 78".split()


@pytest.mark.parametrize("command", examples())
def test_the_examples_do_what_they_say(command, inboxd, pki, tmp_path):
    coaps = "coaps://" in command
    server = inboxd(*["--coap"] * coaps)
    server.queue(b"first", b"second")
    (tmp_path / "cert.crt").write_bytes(Path(pki.bundle("device")).read_bytes())
    (tmp_path / "key.pem").write_bytes(Path(pki.key("device")).read_bytes())
    (tmp_path / "readings.log").write_text("one\ntwo\n", encoding="ascii")
    programs = tmp_path / "bin"
    programs.mkdir()
    # The examples' server is not here, nor are their directories.
    address = server.named("localhost")
    names = answering_names("127.0.0.1")
    (programs / "dtls-send").write_text(
        f'#!/bin/sh\ncase " $* " in *" --server "* | *" -s "*) ;; *) set -- --server {address} "$@" ;; esac\n'
        f'exec {shlex.quote(str(PROGRAM))} "$@"\n', encoding="ascii")
    (programs / "read-sensor").write_text("#!/bin/sh\necho 21.5\n", encoding="ascii")
    for program in programs.iterdir():
        program.chmod(0o755)
    command = re.sub(r"^[0-9*/]+ (\S+ ){4}", "", command).replace("localhost:1234", address)
    command = command.replace("coaps://data.lab5e.com", f"coaps://{address}")
    for directory in ("/etc/dtls-send", "/var/log", "/run/dtls-send", "/var/lib/dtls-send"):
        command = command.replace(directory, str(tmp_path))

    if "--flush" in command:
        waiting = subprocess.run([PROGRAM, "--server", "127.0.0.1:1", "--queue", "queue", "it waited"],
                                 cwd=tmp_path, env=environment(), timeout=60, capture_output=True, check=False)
        assert waiting.returncode == 69

    path = f"{programs}:{environment()['PATH']}"
    result = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment({"PATH": path, **names}), timeout=60,
                            stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b""), command
    if "--check" in command:
        return
    assert server.received() or "--method get" in command, command
    printed = result.stdout + b"".join(path.read_bytes() for path in tmp_path.glob("downlinks"))
    assert b"first" in printed or b"Zmlyc3Q=" in printed, command
    assert ("--count 1 " in command) <= (b"second" not in printed), command
    assert ("--count 10" in command) <= (b"second" in printed), command
