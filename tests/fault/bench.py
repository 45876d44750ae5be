"""A server, a queue and a session file for thousands of runs, each of which meets one fault."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import client
import servers

FAULTS = client.BUILD / "tests" / "faults.so"
TIMEOUT = 4  # seconds: --timeout of a run that meets a fault
PATIENT = 30  # of one that meets none
DISTRESS = 10 * client.SLOWNESS  # seconds beyond it after which a run is taken for hung

STATUSES = {0, 64, 65, 66, 68, 69, 70, 71, 73, 74, 75, 76, 77, 78}
NOT_ACCEPTED = {64, 65, 66, 73}
NUMBERED = re.compile(r"\d{16}c?(-\d+)?")


def memory_directory(otherwise):
    """Where files cost no disk; what is at stake is what the program does, not what the disk does."""
    shared = Path("/dev/shm")
    return tempfile.mkdtemp(prefix="dtls-send-", dir=shared if os.access(shared, os.W_OK) else otherwise)


def write_private(path, payload):
    """As the program writes a payload into the queue."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(payload)


class Outcome(client.Result):
    """How a run ended, and what befell it: a line of faults.c, or "" where that did not come to pass."""

    def __init__(self, fault, befell, *rest):
        super().__init__(*rest)
        self.fault = fault
        self.befell = befell

    def __repr__(self):
        return f"<{self.fault} ({self.befell.strip()}): {super().__repr__()}>"

    @property
    def struck(self):
        """Whether the call came at all."""
        return self.befell != ""

    @property
    def refused(self):
        """Whether it said that what it was given was not accepted; it reads its options before that."""
        return self.status in NOT_ACCEPTED or (self.status == 78 and client.NO_OPTIONS.name in self.stderr)

    def assert_manners(self):
        """It ended in time, with a status of the table, and said in one line why."""
        assert self.status in STATUSES, self
        assert not client.SANITIZER_REPORT.search(self.stderr), self
        assert self.seconds < TIMEOUT + 1.5 * client.SLOWNESS, self
        lasting = "+" in self.fault  # then several things may fail, each with its line
        own_words_fail = re.match(r"write \d+ 2:", self.befell) or (lasting and self.fault.startswith("write"))
        if self.stderr != "":
            line = r"dtls-send: [^\n]+\n"
            assert re.fullmatch(rf"({line})+" if lasting else line, self.stderr) or own_words_fail, self
        else:
            assert self.status == 0 or own_words_fail, self


class Bench:
    """Keeps account of every payload. Those over coaps are confirmed without an option."""

    def __init__(self, pki, directory, *options, coaps=False):
        self._pki = pki
        self.directory = Path(memory_directory(directory))
        self.queue = self.directory / "queue"
        self.session = self.directory / "run" / "session"
        self.session.parent.mkdir()
        self.server = servers.Inboxd(pki, self.directory, *(["--coap"] if coaps else ["--reply", "ok"]), *options)
        self.uri = ("coaps://" if coaps else "dtls://") + self.server.address
        self.confirm = [] if coaps else ["--confirm"]
        self._read = 0
        self._made = 0
        self.arrived = {}  # payload: how often

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()
        shutil.rmtree(self.directory)

    # --- Payloads ---

    def payload(self):
        """One that never was before."""
        self._made += 1
        return b"%d.%d" % (os.getpid(), self._made)

    def look(self):
        """Takes in what the server has received since."""
        inbox = self.server.state / "inbox" / "device"
        while (file := inbox / f"{self._read + 1:06}").exists():
            self._read += 1
            payload = file.read_bytes()
            self.arrived[payload] = self.arrived.get(payload, 0) + 1

    def has_arrived(self, payload):
        """So far."""
        self.look()
        return payload in self.arrived

    def wait_for(self, payload, run):
        """Waits until the server has it."""
        deadline = time.monotonic() + servers.PATIENCE
        while not self.has_arrived(payload):
            assert time.monotonic() < deadline, f"{payload} is lost after {run}"
            time.sleep(0.0005)

    # --- The queue ---

    def put_in_queue(self, payload):
        """As an older run would have."""
        self.queue.mkdir(mode=0o700, exist_ok=True)
        number = 1 + max((int(path.name[:16]) for path in self.queue.glob("[0-9]*")), default=1000)
        write_private(self.queue / f"{number:016}", payload)

    def waiting(self):
        """What waits in the queue: name and payload."""
        waiting = {}
        for path in sorted(self.queue.iterdir()) if self.queue.exists() else []:
            if NUMBERED.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # another run has just sent it
                    waiting[path.name] = path.read_bytes()
        return waiting

    def set_aside(self):
        """What lies in failed/."""
        return [path.read_bytes() for path in self.queue.glob("failed/*")]

    def strange_names(self):
        """What is neither a payload nor one of the queue's own names."""
        if not self.queue.exists():
            return []
        return [path.name for path in self.queue.iterdir()
                if not NUMBERED.fullmatch(path.name) and path.name not in (".last", "failed")]

    def temporary_sessions(self):
        """What a run has left beside the session file."""
        return [path.name for path in self.session.parent.iterdir() if path != self.session]

    def reset(self):
        """Forgets the queue; the session stays."""
        shutil.rmtree(self.queue, ignore_errors=True)
        for path in self.session.parent.iterdir():
            if path != self.session:
                path.unlink()

    def forget(self):
        """Makes the server forget its associations. Else it takes a new client at the port of one that was
        killed in its handshake for that one, and a run takes seconds to find that out."""
        self.session.unlink(missing_ok=True)
        self.server.process.send_signal(signal.SIGUSR1)
        servers.wait_until(lambda: not self._has_pending_signal(), "server that forgets")

    def _has_pending_signal(self):
        status = Path(f"/proc/{self.server.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"ShdPnd:\s+(\w+)", status)[1], 16) >> (signal.SIGUSR1 - 1) & 1 == 1

    # --- Runs ---

    def command(self, *arguments, timeout=TIMEOUT):
        """The program, as the good device, to the bench's server."""
        words = [client.PROGRAM, "--server", self.uri, "--cert", self._pki.bundle("device"), "--key",
                 self._pki.key("device"), "--timeout", str(timeout), "--count", "1", *arguments]
        return [os.fsencode(word) for word in words]

    def run(self, *arguments, fault=None, stdin=None, timeout=TIMEOUT):
        """Runs the program; `fault` is what FAULT shall be."""
        note = self.directory / "note"
        note.unlink(missing_ok=True)
        env = {"LD_PRELOAD": str(FAULTS), "FAULT_NOTE": str(note), "FAULT": fault} if fault else None
        command = self.command(*arguments, timeout=timeout)
        started = time.monotonic()
        done = subprocess.run(command, cwd=self.directory, check=False, capture_output=True,
                              env=client.environment(env), timeout=timeout + DISTRESS,
                              **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}))
        seconds = time.monotonic() - started
        befell = note.read_text(encoding="utf-8") if note.exists() else ""
        return Outcome(fault, befell, command[1:], done.returncode, done.stdout,
                       done.stderr.decode("utf-8", "backslashreplace"), seconds)

    def run_clean(self, *arguments, **options):
        """One that meets no fault, and succeeds."""
        outcome = self.run(*arguments, timeout=PATIENT, **options)
        assert outcome.status == 0 and outcome.stderr == "", outcome
        return outcome

    def ensure_session(self):
        """A kept association for the next run."""
        if not self.session.exists():
            self.run_clean("--session", self.session, *self.confirm, self.payload())

    def flush(self, after):
        """Delivers what waits, and sees it arrive."""
        waiting = self.waiting()
        if waiting:
            self.run_clean("--session", self.session, *self.confirm, "--queue", self.queue, "--flush")
            assert self.waiting() == {}, after
            for payload in waiting.values():
                self.wait_for(payload, after)
