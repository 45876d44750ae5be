"""--session, --lease and --confirm: a repeat run costs one datagram, never a payload and never a nonce."""

import contextlib
import os
import random
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import threading
import time

import pytest

import client
import servers

HANDSHAKE = 22  # the content type


class Nat(servers.Peer):
    """Passes datagrams between clients and a server and keeps them. Each client's port has one of its own on
    the far side, until rebind()."""

    def __init__(self, server):
        self.up, self.down = [], []
        self.up_times = []  # on time.monotonic()'s clock
        self.garbage = []  # comes down before each of the server's datagrams
        self.copies = 1  # of each that comes down
        self.swallows = lambda datagram: False  # what of the clients' is lost
        self._server = (server.host, server.port)
        self._near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._near.bind(("127.0.0.1", 0))
        self.port = self._near.getsockname()[1]
        self._far = {}
        self._forgotten = []  # closed by the thread, since it may be waiting for them
        self._lock = threading.Lock()
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._pass, daemon=True)
        self._thread.start()

    def _pass(self):
        while True:
            with self._lock:
                self._close_forgotten()
                clients = {far: near for near, far in self._far.items()}
            ready, _, _ = select.select([self._near, self._wake, *clients], [], [], 0.02)
            if self._wake in ready:
                return
            with self._lock:
                for end in ready:
                    self._pass_one(end, clients)

    def _pass_one(self, end, clients):
        if end is self._near:
            datagram, sender = end.recvfrom(65536)
            self.up.append(datagram)
            self.up_times.append(time.monotonic())
            if self.swallows(datagram) or not self.admits(sender):
                return
            if sender not in self._far:
                self._far[sender] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self._far[sender].connect(self._server)
            with contextlib.suppress(ConnectionRefusedError):
                self._far[sender].send(datagram)
        elif self._far.get(clients[end]) is end:
            try:
                datagram = end.recv(65536)
            except ConnectionRefusedError:
                return
            self.down.append(datagram)
            for reply in [*self.garbage, *[datagram] * self.copies]:
                self._near.sendto(reply, clients[end])

    def admits(self, _sender):
        """Whether the server reads what comes from there."""
        return True

    def rebind(self):
        """Forgets which client is which, as a NAT does after a while."""
        with self._lock:
            self._forgotten += self._far.values()
            self._far.clear()

    def _close_forgotten(self):
        while self._forgotten:
            self._forgotten.pop().close()

    def reset(self):
        """Counts anew."""
        with self._lock:
            self.up.clear()
            self.up_times.clear()
            self.down.clear()

    def stop(self):
        os.write(self._stop, b"x")
        self._thread.join()
        self.rebind()
        self._close_forgotten()
        os.close(self._wake)
        os.close(self._stop)
        self._near.close()


class OneClient(Nat):
    """Stands for a server that has connected its socket to its client, and hears no other until that one has
    said goodbye."""

    def __init__(self, server):
        self._inboxd = server
        self._client, self._goodbyes = None, 0
        super().__init__(server)

    def admits(self, sender):
        goodbyes = len(self._inboxd.events("closed"))
        if self._client is None or goodbyes > self._goodbyes:
            self._client, self._goodbyes = sender, goodbyes
        return sender == self._client


class AnsweringOpenssl(servers.OpensslServer):
    """`openssl s_server` that answers everything that comes."""

    def collected(self, chunk):
        self.send(b"answer")


class Gnutls(servers.GnutlsServer):
    """The same, for payloads without a newline, while the last client is still connected."""

    def wait_for_payloads(self, *payloads):
        def received(output):
            return re.findall(rb"^received\[\w+\]: (.*)\n", output, re.MULTILINE)
        self.wait_for_output(lambda output: len(received(output)) >= len(payloads), "payloads")
        self.settle()
        assert received(self.output) == list(payloads)


def handshakes(result):
    """The handshakes of a run with -v: "full" or "resumed"."""
    return re.findall(r"connected to \S+ (full|resumed) handshake", result.stderr)


def is_reuse(result):
    """Whether a run with -v had no need of any handshake."""
    return bool(re.search(r"association with \S+ reused", result.stderr)) and not handshakes(result)


def size(datagrams):
    """In bytes, UDP's headers not counted."""
    return sum(map(len, datagrams))


def records_in(path):
    """The lines of inboxd's --records about records, as lists of words."""
    lines = path.read_text(encoding="ascii").splitlines()
    return [line.split() for line in lines if not line.startswith("association")]


def ports_in(path):
    """The device's port in each association, in order."""
    lines = path.read_text(encoding="ascii").splitlines()
    return [int(line.rsplit(":", 1)[1]) for line in lines if line.startswith("association")]


def assert_no_number_twice(path, at_least):
    """The proof: under one key no record number was used for two records. `at_least` so many were seen."""
    tails = {}
    for _, _, epoch, sequence, _, association, tail in records_in(path):
        if epoch != "0" and association != "0":
            tails.setdefault((association, epoch, sequence), set()).add(tail)
    assert len(tails) >= at_least
    assert {number: seen for number, seen in tails.items() if len(seen) > 1} == {}


def assert_private(path):
    """A regular file, for its owner only."""
    status = os.lstat(path)
    assert stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600, oct(status.st_mode)


@pytest.fixture(name="saved")
def fixture_saved(run_dir):
    """Where the session is saved."""
    (run_dir / "run").mkdir()
    return run_dir / "run" / "session"


@pytest.fixture(name="repeat")
def fixture_repeat(send, saved):
    """repeat(server, payload, ...) is one of many runs: it ends with the first downlink."""
    def repeat(server, payload, *arguments, **options):
        return send(server, "--session", str(saved), "--count", "1", "-v", *arguments, payload, **options)
    return repeat


@pytest.fixture(name="answering", params=["inboxd", "openssl", "gnutls"])
def fixture_answering(request, pki, tmp_path, peers):
    """Each kind of server in turn, answering every payload."""
    kinds = {"inboxd": lambda: servers.Inboxd(pki, tmp_path, "--reply", "answer"),
             "openssl": lambda: AnsweringOpenssl(pki, tmp_path), "gnutls": lambda: Gnutls(pki, tmp_path)}
    return peers.enter_context(kinds[request.param]())


@pytest.fixture(name="nat")
def fixture_nat(peers):
    """Puts one in front of a server."""
    return lambda server: peers.enter_context(Nat(server))


@pytest.fixture(name="recording")
def fixture_recording(inboxd, tmp_path):
    """An inboxd that answers everything and keeps records, and where these are."""
    return inboxd("--reply", "answer", "--records", tmp_path / "records"), tmp_path / "records"


@pytest.fixture(name="has_ids")
def fixture_has_ids(run):
    """Whether the library has connection ids."""
    return b"mbed TLS 2." not in run("--version", timeout=None).stdout


# --- What a repeat run costs ---

@pytest.mark.smoke
@pytest.mark.parametrize("trust", [["--confirm"], ["--lease", "60"]], ids=["confirm", "lease"])
def test_a_repeat_run_is_one_datagram_up_and_one_down(answering, nat, repeat, trust):
    between = nat(answering)
    assert handshakes(repeat(between, "first", *trust)) == ["full"]
    for payload in ["second", "third"]:
        between.reset()
        result = repeat(between, payload, *trust)
        assert result.status == 0 and is_reuse(result), result
        assert len(between.up) == len(between.down) == 1
        assert size(between.up) <= len(payload) + 37 + 20  # GCM, and a connection id
    answering.wait_for_payloads(b"first", b"second", b"third")


@pytest.mark.parametrize("trust", [["--confirm"], ["--lease", "60"]], ids=["confirm", "lease"])
def test_a_repeat_run_is_known_by_its_port(answering, repeat, trust):
    for number, payload in enumerate(["first", "second", "third"]):
        result = repeat(answering, payload, *trust)
        assert result.status == 0 and is_reuse(result) == (number > 0), result
    answering.wait_for_payloads(b"first", b"second", b"third")


def test_a_repeat_run_is_known_by_its_port_over_ipv6(needs_ipv6, inboxd, repeat):
    # pylint: disable=unused-argument
    server = inboxd("--reply", "answer", host="::1")
    assert handshakes(repeat(server, "first", "--confirm")) == ["full"]
    result = repeat(server, "second", "--confirm")
    assert result.status == 0 and is_reuse(result), result
    server.wait_for_payloads(b"first", b"second")


def test_each_line_of_a_repeat_run_is_one_datagram(inboxd, nat, send, saved):
    server = inboxd("--reply", "answer")
    between = nat(server)
    for number in range(2):
        between.reset()
        result = send(between, "--session", str(saved), "--confirm", "--lines", "--wait", "0",
                      stdin=b"one\ntwo\nthree\n")
        client.assert_silent_success(result, b"answer\n" * 3)
    assert number == 1 and len(between.up) == len(between.down) == 3
    server.wait_for_payloads(*[b"one", b"two", b"three"] * 2)


@pytest.mark.smoke
def test_a_run_that_trusts_nothing_makes_an_abbreviated_handshake(answering, nat, repeat):
    between = nat(answering)
    assert handshakes(repeat(between, "first")) == ["full"]
    assert size(between.up) > 1000
    for payload in ["second", "third", "fourth"]:
        between.reset()
        result = repeat(between, payload)
        assert result.status == 0 and handshakes(result) == ["resumed"], result
        assert size(between.up) < 460 + 64  # with its goodbye, which is larger with a connection id
    answering.wait_for_payloads(b"first", b"second", b"third", b"fourth")
    if isinstance(answering, servers.Inboxd):
        assert [event[1] for event in answering.events("handshake")] == ["full"] + ["resumed"] * 3


def test_a_server_that_takes_the_sessions_suite_no_more_gets_another_in_the_same_run(openssl, repeat):
    first = openssl("-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305")
    repeat(first, "one")
    first.stop()
    second = openssl("-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256", "-accept", first.address)
    result = repeat(second, "two")
    assert handshakes(result) == ["full"] and "GCM" in result.stderr, result
    second.wait_for_payloads(b"two")


def suites_in(hello):
    """How many cipher suites a ClientHello offers."""
    place = 13 + 12 + 2 + 32  # behind record header, handshake header, version and random
    for _ in ("session id", "cookie"):
        place += 1 + hello[place]
    return int.from_bytes(hello[place:place + 2], "big") // 2


def test_a_server_that_says_nothing_to_the_sessions_suite_gets_others_offered(inboxd, nat, repeat):
    server = inboxd()
    between = nat(server)
    repeat(between, "one")
    server.stop()
    between.reset()
    assert repeat(between, "two", timeout=9).status == 75
    offered = [suites_in(datagram) for datagram in between.up if datagram[0] == 22]
    assert offered[0] < 4 <= offered[-1] == max(offered)


def test_a_lease_that_has_ended_costs_an_abbreviated_handshake(answering, repeat):
    assert handshakes(repeat(answering, "first", "--lease", "0.2")) == ["full"]
    time.sleep(0.3)
    result = repeat(answering, "second", "--lease", "0.2")
    assert result.status == 0 and handshakes(result) == ["resumed"], result
    answering.wait_for_payloads(b"first", b"second")


def test_a_lease_lasts_from_when_the_server_was_heard_and_not_from_the_end_of_the_run(inboxd, send, saved):
    server = inboxd("--reply", "answer")
    wait = client.SLOWNESS
    arguments = ["--session", str(saved), "--lease", str(1.5 * wait), "-v"]
    assert handshakes(send(server, *arguments, "--wait", str(wait), "first")) == ["full"]
    time.sleep(0.7 * wait)
    assert handshakes(send(server, *arguments, "--count", "1", "second")) == ["resumed"]
    assert is_reuse(send(server, *arguments, "--count", "1", "third"))
    server.wait_for_payloads(b"first", b"second", b"third")


def test_an_association_that_was_trusted_and_stayed_unheard_is_not_kept(inboxd, send, saved):
    server = inboxd()
    arguments = ["--session", str(saved), "--lease", "60", "--wait", "0", "-v"]
    assert handshakes(send(server, *arguments, "first")) == ["full"]
    assert is_reuse(send(server, *arguments, "second"))
    assert handshakes(send(server, *arguments, "third")) == ["resumed"]
    server.wait_for_payloads(b"first", b"second", b"third")


@pytest.mark.parametrize("kept", [False, True], ids=["after each answer", "after the second"])
def test_with_a_lease_nothing_is_lost_to_a_server_that_closes_after_its_answer(inboxd, repeat, kept):
    server = inboxd("--reply", "answer", "--close", *(["--drop-uplinks", "1"] if kept else []))
    payloads = [b"payload %d" % number for number in range(10)]
    for number, payload in enumerate(payloads):
        # Waits in vain for an answer that is dropped.
        result = repeat(server, payload, "--lease", "60", "--wait", "0.2" if kept and number == 0 else "8")
        assert result.status == 0, result
        assert is_reuse(result) == (kept and number == 1), result
    server.wait_for_event("closed")
    server.settle()
    assert server.received() == payloads[kept:]


def test_a_server_without_session_ids_is_asked_for_a_ticket_from_the_second_run_on(pki, tmp_path, peers, nat,
                                                                                   repeat):
    # inboxd gives an id even where it cannot resume by it.
    server = peers.enter_context(AnsweringOpenssl(pki, tmp_path, "-no_cache"))
    between = nat(server)
    made, asked = [], []
    for payload in ["first", "second", "third", "fourth"]:
        between.reset()
        result = repeat(between, payload)
        assert result.status == 0, result
        made += handshakes(result)
        hellos = [datagram for datagram in between.up if datagram[0] == HANDSHAKE and datagram[13] == 1]
        assert hellos
        asked.append(any(b"\0\x23\0\0" in hello for hello in hellos))  # by an empty extension
    assert asked[:2] == [False, True]
    assert made == ["full", "full", "resumed", "resumed"]
    server.wait_for_payloads(b"first", b"second", b"third", b"fourth")


def test_a_server_with_session_ids_is_never_asked_for_a_ticket(inboxd, nat, repeat):
    between = nat(inboxd("--reply", "answer", "--tickets"))
    for payload in ["first", "second", "third"]:
        assert repeat(between, payload).status == 0
    hellos = [datagram for datagram in between.up if datagram[0] == HANDSHAKE and datagram[13] == 1]
    assert hellos and not any(b"\0\x23\0\0" in hello for hello in hellos)


def test_with_a_connection_id_a_nat_may_rebind_between_runs(has_ids, inboxd, nat, repeat):
    if not has_ids:
        pytest.skip("this mbed TLS has no connection ids")
    server = inboxd("--reply", "answer")
    between = nat(server)
    repeat(between, "first", "--confirm")
    for payload in ["second", "third"]:
        between.reset()
        between.rebind()
        result = repeat(between, payload, "--confirm")
        assert result.status == 0 and is_reuse(result), result
        assert len(between.up) == len(between.down) == 1
    server.wait_for_payloads(b"first", b"second", b"third")


def test_without_a_connection_id_a_nat_that_rebinds_costs_a_handshake(inboxd, nat, repeat):
    server = inboxd("--reply", "answer", "--no-cid")
    between = nat(server)
    repeat(between, "first", "--confirm")
    between.rebind()
    result = repeat(between, "second", "--confirm")
    assert result.status == 0 and result.stdout == b"answer\n" and len(handshakes(result)) == 1, result
    server.wait_for_payloads(b"first", b"second")


def test_a_port_that_another_process_has_meanwhile_costs_a_handshake(inboxd, tmp_path, repeat):
    records = tmp_path / "records"
    server = inboxd("--no-cid", "--reply", "answer", "--records", records)
    repeat(server, "first", "--confirm")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", ports_in(records)[0]))
        result = repeat(server, "second", "--confirm")
    assert result.status == 0 and handshakes(result) == ["resumed"], result
    server.wait_for_payloads(b"first", b"second")


def test_with_a_connection_id_a_port_that_another_process_has_meanwhile_costs_nothing(has_ids, recording,
                                                                                      repeat):
    if not has_ids:
        pytest.skip("this mbed TLS has no connection ids")
    server, records = recording
    repeat(server, "first", "--confirm")
    server.settle()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", ports_in(records)[0]))
        assert is_reuse(repeat(server, "second", "--confirm"))
    server.wait_for_payloads(b"first", b"second")
    assert_no_number_twice(records, 2)


@pytest.mark.parametrize("trusts", [[True] * 5, [True, False, True, False, False]], ids=["always", "not always"])
def test_a_server_that_has_connected_its_socket_hears_every_run(trusts, recording, peers, repeat):
    """Whether it gives connection ids or not."""
    server, records = recording
    between = peers.enter_context(OneClient(server))
    for number, trust in enumerate(trusts):
        result = repeat(between, f"{number}", *(["--confirm"] if trust else []))
        assert result.status == 0 and result.stdout == b"answer\n", result
        assert is_reuse(result) == (trust and number > 0 and trusts[number - 1]), result
    server.wait_for_payloads(*[b"%d" % number for number in range(len(trusts))])
    assert_no_number_twice(records, len(trusts))


# --- Never twice the same number under one key ---

@pytest.mark.parametrize("arguments", [["--confirm"], ["--lease", "60"]], ids=["confirm", "lease"])
def test_no_number_is_used_twice_in_runs_one_after_another(recording, repeat, arguments):
    server, records = recording
    runs = 60 if client.SLOWNESS == 1 else 5
    for number in range(runs):
        result = repeat(server, f"payload {number}", *arguments)
        assert result.status == 0 and is_reuse(result) == (number > 0), result
    server.wait_for_payloads(*(b"payload %d" % number for number in range(runs)))
    assert len(server.events("handshake")) == 1
    assert_no_number_twice(records, runs)


def test_no_number_is_used_twice_where_trust_changes_from_run_to_run(recording, repeat):
    server, records = recording
    chance = random.Random(3)
    ways = [["--confirm"], ["--lease", "60"], [], ["--lease", "0.01"]]
    payloads = [f"payload {number}" for number in range(40 if client.SLOWNESS == 1 else 4)]
    for payload in payloads:
        assert repeat(server, payload, *chance.choice(ways)).status == 0
    server.wait_for_payloads(*map(str.encode, payloads))
    assert_no_number_twice(records, len(payloads))


def test_no_number_is_used_twice_by_runs_at_once(recording, begin, saved):
    server, records = recording
    chance = random.Random(1)
    payloads = []
    for _ in range(4):
        crowd = []
        for _ in range(10):
            payloads.append(f"payload {len(payloads)}")
            crowd.append(begin(server, "--session", str(saved), "--confirm", "--count", "1", payloads[-1],
                               timeout=30))
            time.sleep(chance.random() * 0.01)
        for member in crowd:
            client.assert_silent_success(member.finish(limit=40), b"answer\n")
    server.settle()
    assert set(server.received()) == set(map(str.encode, payloads))
    assert_no_number_twice(records, len(payloads))
    assert_private(saved)
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("seed", range(2))
def test_no_number_is_used_twice_by_runs_that_are_killed(recording, begin, saved, seed):
    server, records = recording
    chance = random.Random(seed)
    killed = 0
    for number in range(60 if client.SLOWNESS == 1 else 4):
        crowd = [begin(server, "--session", str(saved), "--confirm", "--count", "1", f"{number} {member}",
                       timeout=30) for member in range(1 + (number % 3 == 0))]
        if chance.random() < 0.6:  # at all moments of a reused run, and of some handshakes
            time.sleep(chance.random() * chance.choice([0, 0.004, 0.02]) * client.SLOWNESS)
            crowd[0].process.send_signal(signal.SIGKILL)
        for member in crowd:
            member.process.communicate()
            killed += member.process.returncode == -signal.SIGKILL
            assert member.process.returncode in (0, -signal.SIGKILL)
    server.settle()
    assert killed > 0
    assert_no_number_twice(records, 20 if client.SLOWNESS == 1 else 2)


@pytest.mark.parametrize("earlier", [False, True], ids=["at once", "from the run before"])
def test_a_downlink_that_is_replayed_over_a_reused_association_is_not_printed(earlier, inboxd, nat, send,
                                                                                    saved):
    between = nat(inboxd("--reply", "answer"))
    arguments = ["--session", str(saved), "--lease", "60", "--wait", "0.3", "-v"]
    assert send(between, *arguments, "first").stdout == b"answer\n"
    if earlier:
        between.garbage = between.down[-1:]
    else:
        between.copies = 3
    result = send(between, *arguments, "second")
    assert result.status == 0 and is_reuse(result) and result.stdout == b"answer\n", result


# --- How long it is good ---

def times_in(saved, since):
    """All in the file's header that may be a time since then."""
    header = saved.read_bytes()[:256]
    return [value for value in struct.unpack("=32q", header) if int(since) <= value <= time.time()]


def test_an_abbreviated_handshake_does_not_make_the_session_younger(inboxd, repeat, saved):
    server = inboxd("--reply", "answer")
    time.sleep(1.1)  # so that nothing else has the time of the handshake
    began = time.time()
    assert handshakes(repeat(server, "first")) == ["full"]
    made = times_in(saved, began)
    assert len(made) == 1
    time.sleep(1.1)
    assert handshakes(repeat(server, "second")) == ["resumed"]
    assert times_in(saved, began) == made


@pytest.mark.parametrize("abbreviated", [False, True], ids=["full", "abbreviated"])
def test_nothing_is_used_past_the_end_of_our_own_certificate(abbreviated, inboxd, run, pki, saved):
    server = inboxd("--reply", "answer")
    device = f"device-of-a-moment-{abbreviated}"
    pki.issue_device(device, 4 * client.SLOWNESS / 86400)
    end = time.time() + 4 * client.SLOWNESS
    arguments = ["--server", server.address, "--cert", pki.bundle(device), "--key", pki.key(device),
                 "--session", str(saved), "--count", "1", "-v"]
    assert handshakes(run(*arguments, "--confirm", "first")) == ["full"]
    if abbreviated:
        assert handshakes(run(*arguments, "second")) == ["resumed"]
        assert handshakes(run(*arguments, "--confirm", "once more")) == ["resumed"]
    assert is_reuse(run(*arguments, "--confirm", "third"))
    received = len(server.received())
    time.sleep(max(0, end - time.time()) + 1)
    result = run(*arguments, "--confirm", "last")
    assert result.status == 78 and "expired" in result.stderr, result
    server.settle()
    assert len(server.received()) == received


# --- A copy from before, and another boot ---

@pytest.fixture(name="elsewhere")
def fixture_elsewhere(send, tmp_path, saved):
    """elsewhere(script, server, ...) runs the client after a shell script, as root, in a mount namespace of
    its own; what is mounted there is gone after it."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace may be made here")

    def elsewhere(script, server, *arguments, after="exit $status", **options):
        inner = (f"{script} || exit 99\n{shlex.quote(str(client.PROGRAM))} \"$@\"\n"
                 f"status=$?\n{after}\n")
        program = tmp_path / "elsewhere"
        program.write_text(f"#!/bin/sh\nexec unshare -m sh -c {shlex.quote(inner)} sh \"$@\"\n",
                           encoding="utf-8")
        program.chmod(0o755)
        result = send(server, "--session", str(saved), "--count", "1", *arguments, program=program, **options)
        if result.status == 99:
            pytest.skip(f"not possible here: {result.stderr}")
        return result

    return elsewhere


@pytest.fixture(name="other_boot")
def fixture_other_boot(tmp_path):
    """A script that makes it another boot; one for each content of the boot id's file."""
    def other_boot(content):
        (tmp_path / "boot_id").write_text(content, encoding="ascii")
        return f"mount --bind {shlex.quote(str(tmp_path / 'boot_id'))} /proc/sys/kernel/random/boot_id"
    return other_boot


OTHER_BOOT = "01234567-89ab-cdef-0123-456789abcdef\n"


@pytest.mark.parametrize("trust", [["--confirm"], ["--lease", "600"]], ids=["confirm", "lease"])
def test_a_copy_put_back_in_another_boot_never_brings_the_association_back(recording, repeat, elsewhere,
                                                                           other_boot, saved, trust):
    server, records = recording
    repeat(server, "first", *trust)
    copy = saved.with_name("copy")
    shutil.copy2(saved, copy)
    assert is_reuse(repeat(server, "second", *trust))
    os.replace(copy, saved)
    result = elsewhere(other_boot(OTHER_BOOT), server, "-v", *trust, "third")
    assert result.status == 0 and len(handshakes(result)) == 1 and not is_reuse(result), result
    assert "of another boot" in result.stderr, result
    server.wait_for_payloads(b"first", b"second", b"third")
    assert len(server.events("handshake")) == 2
    assert_no_number_twice(records, 3)


def test_within_another_boot_an_association_is_kept_as_in_any(recording, elsewhere, other_boot):
    server, records = recording
    assert handshakes(elsewhere(other_boot(OTHER_BOOT), server, "-v", "--confirm", "first")) == ["full"]
    assert is_reuse(elsewhere(other_boot(OTHER_BOOT), server, "-v", "--confirm", "second"))
    server.wait_for_payloads(b"first", b"second")
    assert_no_number_twice(records, 2)


@pytest.mark.parametrize("content", ["", "0123\n"], ids=["empty", "short"])
def test_without_a_boot_id_no_association_is_kept(recording, elsewhere, other_boot, content):
    server, records = recording
    for payload in ["first", "second", "third"]:
        result = elsewhere(other_boot(content), server, "-v", "--confirm", payload)
        assert result.status == 0 and len(handshakes(result)) == 1, result
    server.wait_for_payloads(b"first", b"second", b"third")
    assert_no_number_twice(records, 3)


# --- Where it lies ---

def test_on_a_disk_the_session_alone_is_kept_and_that_is_told(recording, send, tmp_path):
    server, records = recording
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, check=True).stdout
    if kind.strip() in (b"tmpfs", b"ramfs"):
        pytest.skip("no disk here")
    arguments = ["--session", "session", "--count", "1", "-v", "--confirm"]
    for number, kept in enumerate(["full", "resumed", "resumed"]):
        result = send(server, *arguments, f"{number}")
        assert result.status == 0 and handshakes(result) == [kept], result
        assert re.search("session: the association is not kept: .*tmpfs", result.stderr), result
    server.wait_for_payloads(b"0", b"1", b"2")
    assert_no_number_twice(records, 3)


def test_a_copy_that_is_put_back_never_brings_the_association_back(recording, repeat, saved):
    server, records = recording
    repeat(server, "first", "--confirm")
    copy = saved.with_name("copy")
    shutil.copy2(saved, copy)
    assert is_reuse(repeat(server, "second", "--confirm"))
    os.replace(copy, saved)
    result = repeat(server, "third", "--confirm")
    assert result.status == 0 and handshakes(result) == ["resumed"], result
    assert "is a copy" in result.stderr, result
    server.wait_for_payloads(b"first", b"second", b"third")
    assert_no_number_twice(records, 3)


def test_a_second_name_or_descriptor_that_was_kept_shows_nothing(recording, repeat, saved):
    server, _ = recording
    repeat(server, "first", "--confirm")
    with open(saved, "rb") as held:
        assert is_reuse(repeat(server, "second", "--confirm"))
        assert held.read() == b""


# --- What it is bound to ---

@pytest.mark.parametrize("change", ["port", "host", "server name", "ca", "certificate", "key", "family"])
def test_a_session_is_for_one_server_and_one_set_of_credentials(change, inboxd, nat, run, pki,
                                                                tmp_path, saved):
    server = inboxd("--reply", "answer")
    between, other = nat(server), nat(server)
    address = f"127.0.0.1:{between.port}"
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.write_bytes(pki.bundle("device").read_bytes())
    key.write_bytes(pki.key("device").read_bytes())
    common = ["--cert", str(cert), "--key", str(key), "--session", str(saved), "--count", "1", "--confirm",
              "-v"]
    assert handshakes(run("--server", address, *common, "first")) == ["full"]
    assert is_reuse(run("--server", address, *common, "second"))

    changed = {"port": ["--server", f"127.0.0.1:{other.port}"],
               "host": ["--server", f"localhost:{between.port}"],
               "server name": ["--server-name", "server.test"],
               "ca": ["--ca", str(pki.leaf("root"))],
               "family": ["-4"]}.get(change, [])
    if change in ("certificate", "key"):  # the same, in other bytes
        with open(cert if change == "certificate" else key, "ab") as file:
            file.write(b"\n")
    if "--server" not in changed:
        changed += ["--server", address]
    names = client.answering_names("127.0.0.1")
    result = run(*changed, *common, "third", env=names)
    assert result.status == 0 and result.stdout == b"answer\n", result
    assert handshakes(result) == ["full"] and not is_reuse(result), result
    assert re.search("another server|other credentials", result.stderr), result
    server.wait_for_payloads(b"first", b"second", b"third")
    assert [event[1] for event in server.events("handshake")] == ["full", "full"]
    assert is_reuse(run(*changed, *common, "fourth", env=names))


# --- Any file at all ---

def chmod_0644(saved):
    """Others can read it."""
    saved.chmod(0o644)


def chmod_0400(saved):
    """Not writable."""
    saved.chmod(0o400)


def link_symbolically(saved):
    """What is meant lies elsewhere."""
    os.rename(saved, saved.parents[1] / "elsewhere")
    saved.symlink_to(saved.parents[1] / "elsewhere")


def link_dangling(saved):
    """To nowhere."""
    saved.unlink()
    saved.symlink_to(saved.parents[1] / "nowhere")


def give_second_name(saved):
    """Which would let it be taken twice."""
    (saved.parents[1] / "second name").unlink(missing_ok=True)
    os.link(saved, saved.parents[1] / "second name")


def empty(saved):
    """Of the same mode."""
    saved.write_bytes(b"")


def fill_with_garbage(saved):
    """As long as before."""
    saved.write_bytes(random.Random(5).randbytes(saved.stat().st_size))


def fill_with_zeros(saved):
    """As a file system may after a crash."""
    saved.write_bytes(b"\0" * saved.stat().st_size)


def append(saved):
    """A byte too many."""
    saved.write_bytes(saved.read_bytes() + b"\0")


def double(saved):
    """Twice the same."""
    saved.write_bytes(saved.read_bytes() * 2)


def grow(saved):
    """Larger than any session."""
    saved.write_bytes(saved.read_bytes() + b"x" * (1 << 20))


def truncate(saved, part):
    """To a part of its length."""
    os.truncate(saved, int(saved.stat().st_size * part))


def flip(saved, part):
    """A bit, at that part of its length."""
    content = bytearray(saved.read_bytes())
    content[int((len(content) - 1) * part)] ^= 0x10
    saved.write_bytes(content)


def remove(saved):
    """As a reboot does in /run."""
    saved.unlink()


SPOILED = [chmod_0644, chmod_0400, link_symbolically, link_dangling, give_second_name, empty,
           fill_with_garbage, fill_with_zeros, append, double, grow, remove]


def name_of(spoil):
    """For pytest."""
    return spoil.__name__.replace("_", " ")


def is_silent_but_for_steps(result):
    """With -v there is nothing about a failure to save."""
    return "is not saved" not in result.stderr


@pytest.mark.parametrize("spoil", SPOILED, ids=name_of)
def test_a_file_that_is_not_a_sound_session_of_ours_alone_costs_a_handshake_only(spoil, recording, repeat,
                                                                                 send, saved):
    server, records = recording
    repeat(server, "first", "--confirm")
    spoil(saved)
    result = repeat(server, "second", "--confirm")
    assert result.status == 0 and result.stdout == b"answer\n" and handshakes(result) == ["full"], result
    assert "no saved session" in result.stderr and is_silent_but_for_steps(result), result
    assert is_reuse(repeat(server, "third", "--confirm"))

    spoil(saved)
    result = send(server, "--session", str(saved), "--confirm", "--count", "1", "fourth")
    client.assert_silent_success(result, b"answer\n")
    server.wait_for_payloads(b"first", b"second", b"third", b"fourth")
    assert_private(saved)
    assert_no_number_twice(records, 4)


@pytest.mark.parametrize("part", [n / 12 for n in range(12)], ids=lambda part: f"{part:.2f}")
@pytest.mark.parametrize("damage", [truncate, flip], ids=name_of)
def test_a_damaged_file_costs_a_handshake_only(damage, part, recording, repeat, saved):
    server, records = recording
    repeat(server, "first", "--confirm")
    damage(saved, part)
    result = repeat(server, "second", "--confirm")
    assert result.status == 0 and result.stdout == b"answer\n" and handshakes(result) == ["full"], result
    assert "no saved session" in result.stderr and is_silent_but_for_steps(result), result
    server.wait_for_payloads(b"first", b"second")
    assert_private(saved)
    assert_no_number_twice(records, 2)


@pytest.mark.parametrize("mask", [0, 0o077, 0o777], ids=oct)
def test_the_file_is_private_whatever_the_umask(mask, inboxd, repeat, saved):
    server = inboxd("--reply", "answer")
    result = repeat(server, "first", preexec_fn=lambda: os.umask(mask))
    assert result.status == 0 and is_silent_but_for_steps(result), result
    assert_private(saved)
    assert os.listdir(saved.parent) == [saved.name]


def test_a_file_of_another_user_is_not_used(recording, repeat, saved):
    server, records = recording
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    repeat(server, "first", "--confirm")
    os.chown(saved, 65534, 65534)
    result = repeat(server, "second", "--confirm")
    assert result.status == 0 and handshakes(result) == ["full"], result
    assert "another user" in result.stderr, result
    server.wait_for_payloads(b"first", b"second")
    assert_no_number_twice(records, 2)


# --- Where it cannot be saved ---

def assert_delivered_but_not_saved(result, saved, *words):
    """The payload's status, and one line about the file."""
    assert result.status == 0 and result.stdout == b"answer\n", result
    client.assert_one_line(result, str(saved), "not saved", *words)


def make_directory(saved):
    """Not empty, for good measure."""
    (saved / "within").mkdir(parents=True)
    return lambda: (saved / "within").is_dir()


def make_fifo(saved):
    """Nobody reads it, nobody writes."""
    os.mkfifo(saved)
    return lambda: stat.S_ISFIFO(os.lstat(saved).st_mode)


def make_device(saved):
    """Another /dev/null, which for root is as easily lost as the one."""
    try:
        os.mknod(saved, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError as error:
        pytest.skip(f"no device may be made here: {error}")
    return lambda: stat.S_ISCHR(os.lstat(saved).st_mode)


def make_socket(saved):
    """Some other program's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(saved))
    return lambda: stat.S_ISSOCK(os.lstat(saved).st_mode)


@pytest.mark.parametrize("make", [make_directory, make_fifo, make_device, make_socket], ids=name_of)
def test_what_is_no_file_is_left_in_place(make, inboxd, send, saved):
    is_in_place = make(saved)
    server = inboxd("--reply", "answer")
    result = send(server, "--session", str(saved), "--count", "1", "first")
    server.wait_for_payloads(b"first")
    assert is_in_place()
    assert_delivered_but_not_saved(result, saved)
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("name", ["missing/session", "file/session", "x" * 300, "run/"],
                         ids=["no directory", "a file for a directory", "name too long", "a directory"])
def test_a_name_that_cannot_be_is_told_in_one_line(name, inboxd, send, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    server = inboxd("--reply", "answer")
    assert_delivered_but_not_saved(send(server, "--session", name, "--count", "1", "first"), name)
    server.wait_for_payloads(b"first")


def test_a_read_only_directory_is_told_and_what_cannot_be_removed_is_not_used(recording, repeat, elsewhere,
                                                                              saved):
    server, records = recording
    repeat(server, "first", "--confirm")
    directory = shlex.quote(str(saved.parent))
    read_only = f"mount --bind {directory} {directory} && mount -o remount,ro,bind {directory}"
    for payload in ["second", "third"]:
        result = elsewhere(read_only, server, "--confirm", payload)
        assert_delivered_but_not_saved(result, saved, "read-only")
    server.wait_for_payloads(b"first", b"second", b"third")
    assert len(server.events("handshake")) == 3
    assert_no_number_twice(records, 3)


def test_a_full_disk_is_told_and_nothing_half_written_remains(recording, elsewhere, saved, tmp_path):
    server, _ = recording
    directory = shlex.quote(str(saved.parent))
    listing = tmp_path / "listing"
    full = (f"mount -t tmpfs -o size=4k tmpfs {directory} && "
            f"{{ head -c 9999 /dev/zero >{directory}/fill 2>/dev/null || true; }}")
    result = elsewhere(full, server, "first",
                       after=f"ls -A {directory} >{shlex.quote(str(listing))}; exit $status")
    assert_delivered_but_not_saved(result, saved, "space")
    assert listing.read_text(encoding="ascii") == "fill\n"
    server.wait_for_payloads(b"first")


# --- A server that is not as it was ---

@pytest.mark.parametrize("ids", [[], ["--no-cid"]], ids=["as built", "without connection ids"])
def test_a_server_that_forgot_gets_the_payload_by_a_new_handshake_from_another_port(ids, inboxd, repeat,
                                                                                    tmp_path):
    records = tmp_path / "records"
    server = inboxd("--reply", "answer", "--records", records, *ids)
    repeat(server, "first", "--confirm")
    server.process.send_signal(signal.SIGUSR1)
    server.settle()
    result = repeat(server, "second", "--confirm")
    assert result.status == 0 and result.stdout == b"answer\n" and handshakes(result) == ["resumed"], result
    server.wait_for_payloads(b"first", b"second")
    first, second = ports_in(records)
    assert first != second
    assert is_reuse(repeat(server, "third", "--confirm"))
    assert_no_number_twice(records, 3)


def test_a_run_that_trusts_nothing_makes_its_handshake_from_another_port(recording, repeat):
    server, records = recording
    for payload in ["first", "second", "third"]:
        assert repeat(server, payload).status == 0
    server.settle()
    ports = ports_in(records)
    assert len(ports) == 3 and ports[0] != ports[1]


@pytest.mark.parametrize("certificate", ["server", "server-p384", "server-rsa"])
def test_a_server_that_restarted_with_another_certificate_gets_the_payload(certificate, inboxd, pki, tmp_path,
                                                                           peers, repeat):
    first = inboxd("--reply", "answer")
    repeat(first, "first", "--confirm")
    first.stop()
    (tmp_path / "anew").mkdir()
    second = peers.enter_context(servers.Inboxd(pki, tmp_path / "anew", "--reply", "answer", port=first.port,
                                                certificate=certificate))
    result = repeat(second, "second", "--confirm")
    assert result.status == 0 and handshakes(result) == ["full"], result
    second.wait_for_payloads(b"second")
    assert is_reuse(repeat(second, "third", "--confirm"))


def test_a_server_that_restarted_untrusted_does_not_get_the_payload(inboxd, pki, tmp_path, peers, repeat,
                                                                    saved):
    first = inboxd("--reply", "answer")
    repeat(first, "first", "--confirm")
    first.stop()
    (tmp_path / "anew").mkdir()
    second = peers.enter_context(servers.Inboxd(pki, tmp_path / "anew", "--reply", "answer", port=first.port,
                                                certificate="server-wrong-ca"))
    assert repeat(second, "second", "--confirm").status == 77
    second.assert_received_nothing()
    assert not saved.exists()


def test_garbage_before_each_answer_changes_nothing(inboxd, nat, repeat):
    server = inboxd("--reply", "answer")
    between = nat(server)
    chance = random.Random(7)
    between.garbage = [b"x", chance.randbytes(100), b"\x17\xfe\xfd" + b"\0" * 200]
    repeat(between, "first", "--confirm")
    between.reset()
    result = repeat(between, "second", "--confirm")
    assert result.status == 0 and result.stdout == b"answer\n" and is_reuse(result), result
    assert len(between.up) == 1
    server.wait_for_payloads(b"first", b"second")


@pytest.mark.parametrize("garbage", [b"", b"x", b"\x17\xfe\xfd\0\1\0\0\0\0\0\1\0\x30" + b"y" * 48,
                                     b"\x15\xfe\xfd\0\0\0\0\0\0\0\1\0\2\2\x28"],
                         ids=["nothing", "a byte", "a forged record", "an alert in the clear"])
def test_a_server_that_answers_with_garbage_confirms_nothing(garbage, inboxd, peers, repeat):
    server = inboxd("--reply", "answer")
    repeat(server, "first", "--confirm")
    server.stop()
    impostor = servers.BlackHole(port=server.port)
    peers.enter_context(impostor)
    stopped = threading.Event()

    def answer():
        while not stopped.is_set():
            if select.select([impostor.socket], [], [], 0.05)[0]:
                _, sender = impostor.socket.recvfrom(65536)
                impostor.socket.sendto(garbage, sender)
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    result = repeat(server, "second", "--confirm", timeout=3)
    stopped.set()
    thread.join()
    assert result.status in (75, 76) and result.stdout == b"", result
    assert result.seconds < 3.5 * client.SLOWNESS, result


@pytest.mark.parametrize("trust", [["--confirm"], ["--lease", "60"], []], ids=["confirm", "lease", "nothing"])
def test_a_server_that_is_gone_is_told_in_the_status(trust, inboxd, send, saved):
    server = inboxd("--reply", "answer")
    arguments = ["--session", str(saved), "--count", "1", *trust]
    assert send(server, *arguments, "first").status == 0
    server.stop()
    result = send(server, *arguments, "second", timeout=3)
    assert result.seconds < 3.5 * client.SLOWNESS, result
    client.assert_fails(result, 69, server.address)


@pytest.mark.parametrize("name, status", [("none", 68), ("again", 75), ("127.0.0.1", 69)])
def test_server_and_name_that_are_gone_are_told_in_the_status(name, status, inboxd, send, saved, tmp_path):
    server = inboxd("--reply", "answer")
    arguments = ["--session", str(saved), "--confirm"]
    address = server.named("server.test")
    assert send(address, *arguments, "first", env=client.answering_names("127.0.0.1")).status == 0
    server.stop()
    result = send(address, *arguments, "second", timeout=2, env=client.answering_names(name),
                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)))
    client.assert_fails(result, status, address)
    assert not list(tmp_path.glob("core*"))


def test_an_association_that_the_server_closed_is_not_kept(inboxd, nat, send, saved):
    server = inboxd("--reply", "answer", "--close")
    between = nat(server)
    for number, payload in enumerate(["first", "second", "third"]):
        between.reset()
        # Waits for more than the answer, and so sees the close.
        result = send(between, "--session", str(saved), "--lease", "60", "-v", payload)
        assert result.status == 0 and result.stdout == b"answer\n", result
        assert handshakes(result) == ["resumed" if number else "full"], result
        assert "reused" not in result.stderr, result
    server.wait_for_payloads(b"first", b"second", b"third")


# --- Goodbyes, and failures ---

def test_without_a_session_file_the_server_is_told_goodbye(inboxd, send):
    server = inboxd("--reply", "answer")
    assert send(server, "--count", "1", "first").status == 0
    server.wait_for_event("closed")


def test_no_goodbye_is_said_while_the_association_is_kept(inboxd, nat, repeat):
    server = inboxd("--reply", "answer")
    between = nat(server)
    for payload in ["first", "second", "third"]:
        assert repeat(between, payload, "--confirm").status == 0
    server.settle()
    assert server.events("closed") == []
    assert len(server.events("handshake")) == 1


def test_goodbye_is_said_where_the_next_run_cannot_trust_what_was_kept(inboxd, repeat):
    """Needless where the server knows clients by a connection id: it does not wait for the one to leave."""
    server = inboxd("--reply", "answer", "--no-cid")
    repeat(server, "first", "--confirm")
    server.settle()
    assert server.events("closed") == []
    assert handshakes(repeat(server, "second")) == ["resumed"]
    server.wait_for_event("closed", 2)  # the kept one before its handshake, its own at its end
    server.settle()
    assert len(server.events("closed")) == 2


def test_after_a_goodbye_a_server_of_one_client_is_given_time_to_listen_again(pki, tmp_path, peers, nat,
                                                                            repeat):
    server = peers.enter_context(AnsweringOpenssl(pki, tmp_path))
    between = nat(server)
    repeat(between, "first", "--confirm")
    between.reset()
    assert handshakes(repeat(between, "second")) == ["resumed"]
    goodbye, hello = between.up[:2]
    assert goodbye[0] == 21 and hello[0] == HANDSHAKE
    assert between.up_times[1] - between.up_times[0] >= 0.19
    server.wait_for_payloads(b"first", b"second")


def test_a_run_that_cannot_print_leaves_the_file_alone(recording, repeat):
    server, records = recording
    repeat(server, "first", "--confirm")
    with open("/dev/full", "wb") as full:
        assert repeat(server, "second", "--confirm", stdout=full).status == 74
    assert is_reuse(repeat(server, "third", "--confirm"))
    server.wait_for_payloads(b"first", b"third")
    assert_no_number_twice(records, 2)


def test_nothing_is_kept_of_a_server_that_is_not_trusted(inboxd, repeat, saved):
    server = inboxd(certificate="server-wrong-ca")
    assert repeat(server, "first").status == 77
    assert os.listdir(saved.parent) == []


@pytest.fixture(name="fragile")
def fixture_fragile(recording, nat, repeat):
    """fragile(payload, lost) is a run, through which nothing comes where it is lost. Returns its handshakes."""
    server, records = recording
    between = nat(server)

    def fragile(payload, lost):
        between.swallows = lambda datagram: lost
        result = repeat(between, payload, "--confirm", timeout=0.5 if lost else 10)
        assert result.status == (75 if lost else 0), result
        return handshakes(result)

    yield fragile
    assert_no_number_twice(records, 2)


def test_a_run_that_failed_puts_the_session_back_but_never_the_association(fragile):
    assert fragile("first", False) == ["full"]
    for _ in range(3):  # not in a row
        assert fragile("lost", True) == []
        assert fragile("next", False) == ["resumed"]
        assert fragile("another", False) == []


def test_a_session_that_two_runs_in_a_row_failed_with_is_dropped(fragile, saved):
    assert fragile("first", False) == ["full"]
    assert fragile("lost", True) == []
    assert saved.exists()
    assert fragile("lost too", True) == []
    assert os.listdir(saved.parent) == []
    assert fragile("second", False) == ["full"]


def test_of_a_run_that_was_not_confirmed_the_session_alone_is_kept(inboxd, repeat):
    server = inboxd("--reply", "answer", "--drop-uplinks", "1")
    assert repeat(server, "first", "--confirm", timeout=1.5).status == 75
    server.wait_for_event("closed")
    assert handshakes(repeat(server, "second", "--confirm")) == ["resumed"]


def test_nothing_is_kept_of_a_run_that_a_signal_ended(recording, begin, repeat, saved):
    server, records = recording
    repeat(server, "first", "--confirm")
    running = begin(server, "--session", str(saved), "--confirm", "--wait", "9", "second")
    server.wait_for_event("uplink", 2)
    running.send_signal(signal.SIGTERM)
    assert running.finish().status == 128 + signal.SIGTERM
    assert os.listdir(saved.parent) == []
    server.wait_for_event("closed")
    assert handshakes(repeat(server, "third", "--confirm")) == ["full"]
    assert_no_number_twice(records, 3)


def test_bad_usage_and_unusable_credentials_leave_the_file_alone(inboxd, repeat, run, saved):
    server = inboxd("--reply", "answer")
    repeat(server, "first", "--confirm")
    assert run("--server", server.address, "--session", str(saved), "--cert", "missing", "--key", "missing",
               "second").status == 78
    assert run("--server", server.address, "--session", str(saved), "--count", "none", "second").status == 64
    assert is_reuse(repeat(server, "third", "--confirm"))


@pytest.mark.parametrize("option", ["--cert", "--key", "--ca", "--passphrase-file", "--file"])
def test_another_file_of_the_run_is_never_taken_for_a_session(option, inboxd, run, pki, tmp_path):
    server = inboxd()
    files = {"--cert": pki.bundle("device"), "--key": pki.key("device"), "--ca": pki.leaf("root"),
             "--passphrase-file": pki.key("device"), "--file": pki.key("device")}
    arguments = []
    for name, source in files.items():
        copy = tmp_path / name.strip("-")
        shutil.copyfile(source, copy)
        copy.chmod(0o600)
        arguments += [name, copy]
    precious = tmp_path / option.strip("-")
    before = precious.read_bytes()
    result = run("--server", server.address, *arguments, "--session", precious)
    client.assert_fails(result, 64, "--session")
    assert precious.read_bytes() == before
    server.assert_received_nothing()
