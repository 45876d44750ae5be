"""Runs the program under test, with a bound on everything."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

BUILD = Path(os.environ.get("BUILD") or Path(__file__).resolve().parents[2] / "build").absolute()
PROGRAM = BUILD / "dtls-send"
NAMES = BUILD / "tests" / "names.so"
TEN_LINES = BUILD / "tests" / "ten_lines"

# Whoever asks for none of these places of a configuration file gets one without options: the machine may have
# its own in /etc.
PLACES_OF_OPTIONS = {"DTLS_SEND_CONFIG", "XDG_CONFIG_HOME", "HOME"}
NO_OPTIONS = Path(__file__).resolve().with_name("no-options.conf")

# Valgrind, for example. It makes all slower, so what only bounds a run is stretched.
WRAPPER = shlex.split(os.environ.get("TEST_WRAPPER", ""))
SLOWNESS = 10 if WRAPPER else 1

SANITIZER_REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehaviorSanitizer|"
                              r"runtime error:|^==\d+==", re.MULTILINE)

# A shell's job in the background ignores it, and what is started from here would do so too.
with contextlib.suppress(ValueError):  # not the main thread's
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_tmpfs(path):
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, check=False).stdout.strip()
    return kind in (b"tmpfs", b"ramfs")


@contextlib.contextmanager
def tmpfs_directory():
    """A private directory on tmpfs, as /run is: nowhere else does a session file hold an association. None:
    this machine has no tmpfs that we can write to."""
    parents = [parent for parent in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR", ""))
               if os.access(parent, os.W_OK) and _is_tmpfs(parent)]
    if not parents:
        yield None
        return
    path = Path(tempfile.mkdtemp(prefix="dtls-send-", dir=parents[0]))
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Result:
    """How a run ended."""

    def __init__(self, arguments, status, stdout, stderr, seconds):
        self.arguments = arguments
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.seconds = seconds

    def __repr__(self):
        arguments = shlex.join(os.fsdecode(argument)[:200] for argument in self.arguments)
        return (f"<{arguments}: status {self.status} after {self.seconds:.2f} s, "
                f"stdout {self.stdout[:300]!r}, stderr {self.stderr[:1500]!r}>")


class Client:
    """A run that is under way."""

    def __init__(self, arguments, program=PROGRAM, preexec_fn=None, env=None, **popen):
        assert Path(program).exists(), f"{program} is not built"
        self.arguments = [os.fsencode(argument) for argument in arguments]
        self._started = time.monotonic()
        self._seconds = None
        # pylint: disable-next=consider-using-with,subprocess-popen-preexec-fn
        self.process = subprocess.Popen([*WRAPPER, program, *self.arguments], preexec_fn=preexec_fn,
                                        env=environment(env), **popen)
        self._ended = threading.Thread(target=self._note_end, daemon=True)
        self._ended.start()

    def _note_end(self):
        # Not when the pipes are empty, but when the process is gone; unless subprocess saw it first.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        self._seconds = time.monotonic() - self._started

    @property
    def pid(self):
        """Of the program; of the wrapper where that does not become the program."""
        return self.process.pid

    def running(self):
        """Whether it has not ended yet."""
        return self._ended.is_alive()

    def send_signal(self, number):
        """Sends it, and starts the clock of Result.seconds anew."""
        self._started = time.monotonic()
        self.process.send_signal(number)

    def finish(self, stdin=None, limit=20):
        """Waits for the end. Fails the test where that does not come, or comes by a crash."""
        try:
            stdout, stderr = self.process.communicate(stdin, timeout=limit * SLOWNESS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            stdout, stderr = self.process.communicate()
            raise AssertionError(f"{self.arguments} did not end within {limit * SLOWNESS} s; "
                                 f"stderr: {stderr!r}") from None
        self._ended.join()
        stderr = (stderr or b"").decode("utf-8", "backslashreplace")
        result = Result(self.arguments, self.process.returncode, stdout or b"", stderr, self._seconds)
        assert not SANITIZER_REPORT.search(result.stderr), result.stderr
        assert result.status >= 0, f"killed by {signal.Signals(-result.status).name}: {result}"
        return result

    def kill(self):
        """For teardown, where a test ended before its client did."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


def environment(extra=None):
    """Nothing of the caller's environment but what the sanitizers are told, and no options of the machine's."""
    env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8",
           "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}
    env.update((name, value) for name, value in os.environ.items() if name.endswith("SAN_OPTIONS"))
    env.update(extra or {})
    if not PLACES_OF_OPTIONS & env.keys():
        env["DTLS_SEND_CONFIG"] = str(NO_OPTIONS)
    if "LD_PRELOAD" in env:
        env["ASAN_OPTIONS"] = ":".join(filter(None, [env.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))
    return env


def answering_names(addresses):
    """An environment in which every host name has these addresses ("::1,127.0.0.1"), or that trouble
    ("hang", "again", "none")."""
    assert NAMES.exists(), f"{NAMES} is not built"
    return {"LD_PRELOAD": str(NAMES), "TEST_ADDRESSES": addresses}


def assert_fails(result, status, *words):
    """The manners of a failure: its status, nothing on stdout, and one line on stderr that says what."""
    assert result.status == status, result
    assert result.stdout == b"", result
    assert_one_line(result, *words)


def assert_one_line(result, *words):
    """One line on stderr, for people, with these words in it; a tuple are words that would do as well."""
    assert re.fullmatch(r"dtls-send: [^\n]+\n", result.stderr), result
    for word in words:
        any_of = word if isinstance(word, tuple) else (str(word),)
        assert any(wanted.lower() in result.stderr.lower() for wanted in any_of), f"no {word!r} in {result}"


def assert_silent_success(result, stdout=b""):
    """The manners of a success: cron has nothing to mail."""
    assert result.status == 0, result
    assert result.stdout == stdout, result
    assert result.stderr == "", result
