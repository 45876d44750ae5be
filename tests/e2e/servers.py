"""Servers and other peers for the client to meet, each on a port that the kernel picked."""

import contextlib
import os
import re
import select
import socket
import subprocess
import threading
import time
from pathlib import Path

from client import BUILD, SLOWNESS

PATIENCE = 10 * SLOWNESS  # seconds: how long an event may take on a busy machine


def wait_until(condition, what, patience=PATIENCE):
    """Waits for a condition that nobody announces; returns its value."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {patience} s"
        time.sleep(0.005)
    return value


def contents_of(paths):
    """What is in these files, in the order of their names; one that is renamed meanwhile is not there."""
    contents = []
    for path in sorted(paths):
        with contextlib.suppress(FileNotFoundError):
            contents.append(path.read_bytes())
    return contents


def udp_sockets_of(pid, families=("udp", "udp6")):
    """The UDP sockets of a process, IPv4 before IPv6: each the port and how many bytes wait to be read."""
    try:
        links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
        tables = [Path(f"/proc/net/{table}").read_text(encoding="ascii") for table in families]
    except OSError:  # it has just ended, or closed one
        return []
    sockets = []
    for line in [line for table in tables for line in table.splitlines()[1:]]:
        fields = line.split()
        if f"socket:[{fields[9]}]" in links:
            sockets.append((int(fields[1].rsplit(":", 1)[1], 16), int(fields[4].split(":")[1], 16)))
    return sockets


def state_of(pid):
    """As ps(1) has it: S for asleep."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return stat.rsplit(")", 1)[1].split()[0]


class Peer:
    """Anything with an address; servers are context managers, ended at the end of a test."""

    host = "127.0.0.1"
    port = 0

    @property
    def address(self):
        """For --server."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def named(self, name):
        """For --server, with a name instead of the address."""
        return f"{name}:{self.port}"

    def stop(self):
        """Releases all that it holds."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Process(Peer):
    """A server program, whose stdout is collected while it runs."""

    def __init__(self, command, **popen):
        self.output = b""
        self._changed = threading.Condition()
        self.errors = open(popen.pop("errors"), "w+b")  # pylint: disable=consider-using-with
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, bufsize=0, **popen)
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    def _collect(self):
        chunk = b"to begin with"
        while chunk:
            select.select([self.process.stdout], [], [])
            with self._changed:
                chunk = os.read(self.process.stdout.fileno(), 65536)
                self.output += chunk
                self._changed.notify_all()
            if chunk:
                self.collected(chunk)

    def collected(self, chunk):
        """Called for everything that it printed."""

    def complaints(self):
        """What it wrote to stderr."""
        return Path(self.errors.name).read_text(encoding="utf-8", errors="replace")

    def wait_for_output(self, condition, what):
        """Waits until condition(output), and returns its value."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while not (value := condition(self.output)):
                left = deadline - time.monotonic()
                assert left > 0 and self.process.poll() is None, \
                    f"no {what} from {self.process.args}: {self.output[-2000:]!r} {self.complaints()!r}"
                self._changed.wait(min(left, 0.1))
        return value

    def wait_for_port(self):
        """Waits until it has bound its socket. Asking the kernel for any port, and /proc for its number,
        leaves no gap in which another process could take it."""
        def bound():
            assert self.process.poll() is None, self.complaints()
            # gnutls-serv has an IPv6 socket too, with another port, and perhaps earlier.
            return next((port for port, _ in udp_sockets_of(self.process.pid, ["udp"]) if port), None)
        return wait_until(bound, f"port of {self.process.args}")

    def settle(self, patience=PATIENCE):
        """Waits until it has taken in all that was sent to it, and we all that it printed."""
        def settled():
            if self.process.poll() is not None:
                self._collector.join()
                return True
            if any(waiting for _, waiting in udp_sockets_of(self.process.pid)):
                return False
            with self._changed:  # so that nothing is on its way from the pipe to self.output
                return (state_of(self.process.pid) == "S" and
                        not select.select([self.process.stdout], [], [], 0)[0])
        wait_until(settled, f"peace of {self.process.args}", patience)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._collector.join()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            stream.close()


class Inboxd(Process):
    """The project's own server: what devices sent and what waits for them are files."""

    def __init__(self, pki, directory, *options, certificate="server", host="127.0.0.1", port=0):
        self.host = host
        self.state = Path(directory) / "state"
        self.state.mkdir()
        super().__init__([BUILD / "inboxd", "--address", host, "--port", port, "--cert",
                          pki.chain(certificate), "--key", pki.key(certificate), "--ca", pki.leaf("root"),
                          *options, self.state],
                         errors=Path(directory) / "inboxd.err")
        listening = self.wait_for_output(
            lambda output: re.search(rb"^listening \S+ (\d+)$", output, re.MULTILINE), "listening line")
        self.port = int(listening[1])

    def queue(self, *downlinks, device="device"):
        """Puts downlinks into the device's outbox, in this order."""
        outbox = self.state / "outbox" / device
        outbox.mkdir(parents=True, exist_ok=True)
        first = len(list(outbox.iterdir())) + 1
        for number, payload in enumerate(downlinks, first):
            (outbox / f"{number:06}.pending").write_bytes(payload)

    def sent(self, device="device"):
        """The downlinks that it sent."""
        return contents_of((self.state / "outbox" / device).glob("*.sent"))

    def pending(self, device="device"):
        """The downlinks that still wait."""
        return contents_of((self.state / "outbox" / device).glob("*.pending"))

    def received(self, device="device"):
        """The payloads that came from the device, in order."""
        inbox = self.state / "inbox" / device
        return [path.read_bytes() for path in sorted(inbox.glob("[0-9]*"))] if inbox.exists() else []

    def wait_for_payloads(self, *payloads, device="device"):
        """Waits until it has received this and nothing else."""
        self.wait_for_event("uplink", len(payloads))
        self.settle()
        assert self.received(device) == list(payloads)

    def events(self, kind):
        """What it printed about this kind of event, each as a list of words."""
        lines = self.output.decode().splitlines()
        return [line.split()[1:] for line in lines if line.split()[:1] == [kind]]

    def wait_for_event(self, kind, count=1):
        """Waits until an event was printed so often; returns the last one's words."""
        self.wait_for_output(lambda _: len(self.events(kind)) >= count, f"{kind} event")
        return self.events(kind)[-1]

    def assert_received_nothing(self):
        """From any device."""
        self.settle()
        assert not self.events("uplink")
        assert not [path for path in (self.state / "inbox").glob("*/*")]


class OpensslServer(Process):
    """`openssl s_server`, which demands a client certificate, or has a pre-shared key, (identity, hexkey).
    Serves one client at a time, prints what that sends, and answers whatever comes first with `reply`."""

    def __init__(self, pki, directory, *options, certificate="server", version="-dtls1_2", reply=None,
                 psk=None):
        self._reply = reply
        credentials = ["-cert", pki.leaf(certificate), "-cert_chain", pki.chain(certificate), "-key",
                       pki.key(certificate), "-CAfile", pki.leaf("root"), "-Verify", "4",
                       "-verify_return_error"]
        if psk:
            credentials = ["-nocert", "-psk_identity", psk[0], "-psk", psk[1]]
        # -brief: nothing but the clients' payloads on stdout; stdin is not searched for commands.
        super().__init__(["openssl", "s_server", version, "-accept", "127.0.0.1:0", *credentials, "-brief",
                          *options],
                         errors=Path(directory) / "openssl.err")
        self.port = self.wait_for_port()

    def collected(self, chunk):
        if self._reply is not None:
            self.send(self._reply)
            self._reply = None

    def send(self, downlink):
        """Sends a downlink to the client that is connected."""
        self.process.stdin.write(downlink)

    def wait_for_payloads(self, *payloads):
        """Waits until it has received this and nothing else. It prints no boundaries."""
        wanted = b"".join(payloads)
        self.wait_for_output(lambda output: len(output) >= len(wanted), f"{len(wanted)} bytes")
        self.settle()
        assert self.output == wanted

    def wait_for_complaint(self, words):
        """Waits until it has written that to stderr."""
        wait_until(lambda: words in self.complaints(), words)

    def assert_received_nothing(self):
        """From anyone."""
        self.settle()
        assert self.output == b""


class GnutlsServer(Process):
    """`gnutls-serv --udp --echo`, which demands a client certificate, or has a pre-shared key, (identity,
    hexkey), and sends every payload back."""

    def __init__(self, pki, directory, *options, certificate="server", psk=None):
        credentials = ["--require-client-cert", "--verify-client-cert",
                       "--x509cafile", pki.leaf("root"), "--x509certfile", pki.chain(certificate),
                       "--x509keyfile", pki.key(certificate)]
        if psk:
            passwords = Path(directory) / "gnutls.psk"
            passwords.write_text(":".join(psk) + "\n", encoding="ascii")
            # Without a word about key exchanges it has none for these.
            credentials = ["--pskpasswd", passwords, "--priority", "NORMAL:-KX-ALL:+ECDHE-PSK:+PSK"]
        super().__init__(["stdbuf", "-oL", "gnutls-serv", "--udp", "--port", "0", "--echo", *credentials,
                          *options],
                         errors=Path(directory) / "gnutls.err")
        self.port = self.wait_for_port()

    def wait_for_payloads(self, *payloads):
        """Waits until it has told of this and nothing else."""
        def received(output):
            return re.findall(rb"^received\[\w+\]: (.*?)\n(?=received|EOF|\n)", output,
                              re.MULTILINE | re.DOTALL)
        self.wait_for_output(lambda output: len(received(output)) >= len(payloads), "payloads")
        self.settle()
        assert received(self.output) == list(payloads)

    def assert_received_nothing(self):
        """From anyone."""
        with contextlib.suppress(AssertionError):  # once it has refused a client it never comes to rest
            self.settle(patience=1)
        assert b"received[" not in self.output


def _free_pair_of_ports():
    """The first of two neighbours that are free: libcoap's server does without DTLS on one and with it on the next."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
            first.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", first.getsockname()[1] + 1))
                return first.getsockname()[1]


class LibcoapServer(Process):
    """libcoap's `coap-server`, which demands a client certificate, or has a pre-shared key, which is text, for any
    identity. What is put to a path is there to get."""

    def __init__(self, pki, directory, library, key):
        credentials = ["-k", key, "-h", "hint"] if key else \
            ["-c", pki.chain("server"), "-j", pki.key("server"), "-C", pki.leaf("root"), "-R", pki.leaf("root")]
        # A port that somebody else has taken meanwhile is no reason to fail.
        for _ in range(5):
            port = _free_pair_of_ports()
            super().__init__([f"coap-server-{library}", "-A", "127.0.0.1", "-p", port, "-d", "10", *credentials],
                             errors=Path(directory) / "libcoap.err")
            self.port = port + 1

            def bound():
                ports = [number for number, _ in udp_sockets_of(self.process.pid, ["udp"])]
                return self.process.poll() is not None or {self.port - 1, self.port} <= set(ports)
            wait_until(bound, f"ports of {self.process.args}")
            if self.process.poll() is None:
                return
            self.stop()
        raise AssertionError(self.complaints())


class BlackHole(Peer):
    """A UDP socket that takes datagrams and never answers."""

    def __init__(self, host="127.0.0.1", port=0):
        self.host = host
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, port))
        self.port = self.socket.getsockname()[1]

    def datagrams(self):
        """What has come so far, and was not yet returned."""
        datagrams = []
        while select.select([self.socket], [], [], 0)[0]:
            datagrams.append(self.socket.recv(65536))
        return datagrams

    def wait_for_datagram(self):
        """Waits for the next one, and returns it."""
        ready, _, _ = select.select([self.socket], [], [], PATIENCE)
        assert ready, "no datagram came"
        return self.socket.recv(65536)

    def assert_received_nothing(self):
        """Not one datagram."""
        assert self.datagrams() == []

    def stop(self):
        self.socket.close()


class RefusedPort(BlackHole):
    """A port where nobody listens. It is held, so that nobody else can begin to: a socket connected
    elsewhere, so that the kernel refuses all other senders."""

    def __init__(self, host="127.0.0.1", port=0):
        super().__init__(host, port)
        # The discard port; nothing is sent there.
        self.socket.connect((host, 9))


class Impostor(BlackHole):
    """A peer that answers each datagram with whatever `answer(datagram)` yields."""

    def __init__(self, answer, host="127.0.0.1"):
        super().__init__(host)
        self.answered = 0
        self._thread = threading.Thread(target=self._serve, args=(answer,), daemon=True)
        self._thread.start()

    def _serve(self, answer):
        while True:
            datagram, sender = self.socket.recvfrom(65536)
            if datagram == b"stop":
                return
            self.answered += 1  # before the client can end by the answer
            for reply in answer(datagram):
                # A client that has ended refuses the rest.
                with contextlib.suppress(ConnectionRefusedError):
                    self.socket.sendto(reply, sender)

    def stop(self):
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as own:
            own.sendto(b"stop", (self.host, self.port))
        self._thread.join()
        super().stop()


class Relay(Peer):
    """Passes datagrams between one client and a server, and keeps them."""

    def __init__(self, server):
        self.up, self.down = [], []
        self._client = None
        self._near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._near.bind(("127.0.0.1", 0))
        self._far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._far.connect((server.host, server.port))
        self.port = self._near.getsockname()[1]
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._pass, daemon=True)
        self._thread.start()

    def passes(self, _client):
        """Called for each datagram that comes up; whether the server gets it."""
        return True

    def returns(self, _datagram):
        """Called for each datagram that comes down; whether the client gets it."""
        return True

    def _pass(self):
        while True:
            ready, _, _ = select.select([self._near, self._far, self._wake], [], [])
            if self._wake in ready:
                return
            if self._near in ready:
                datagram, self._client = self._near.recvfrom(65536)
                self.up.append(datagram)
                if self.passes(self._client):
                    self._far.send(datagram)
            if self._far in ready:
                datagram = self._far.recv(65536)
                self.down.append(datagram)
                if self.returns(datagram):
                    self._near.sendto(datagram, self._client)

    def stop(self):
        os.write(self._stop, b"x")
        self._thread.join()
        os.close(self._wake)
        os.close(self._stop)
        self._near.close()
        self._far.close()


class Forger(Relay):
    """A relay that can send its client records that nobody encrypted."""

    sent = 0

    def forge(self, count):
        """Sends so many, each with a record number of its own, and waits until the client has read them."""
        for self.sent in range(self.sent + 1, self.sent + count + 1):
            header = b"\x17\xfe\xfd\x00\x01" + (1000 + self.sent).to_bytes(6, "big") + b"\x00\x20"
            self._near.sendto(header + bytes(32), self._client)
            if self.sent % 20 == 0:  # no more than its socket holds
                self._wait_until_read()
        self._wait_until_read()

    def _wait_until_read(self):
        """Until nothing waits at the client's port, or the client is gone."""
        def is_read():
            for line in Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                port, waiting = (int(fields[i].rsplit(":", 1)[1], 16) for i in (1, 4))
                if port == self._client[1] and waiting:
                    return False
            return True
        wait_until(is_read, "peace at the client's port")
