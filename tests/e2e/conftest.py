"""What every test starts from: the PKI, a directory of its own, and servers that end with it."""

import contextlib
import fcntl
import os
import socket
import subprocess

import pytest

import raw_coap
import servers
from client import SLOWNESS, Client, tmpfs_directory
from pki import Pki


def pytest_configure(config):
    config.addinivalue_line("markers", "smoke: a dozen tests of everything, few enough for valgrind")


@pytest.fixture(scope="session")
def pki(tmp_path_factory, worker_id):
    """One PKI for the whole run, whichever worker comes first."""
    base = tmp_path_factory.getbasetemp()
    return Pki.shared((base if worker_id == "master" else base.parent) / "pki")


@pytest.fixture(scope="session")
def worker_id(request):
    """As pytest-xdist has it; and without pytest-xdist too."""
    return getattr(request.config, "workerinput", {}).get("workerid", "master")


@pytest.fixture(name="run_dir")
def fixture_run_dir():
    """A private directory on tmpfs, as /run is: nowhere else does a session file hold an association."""
    with tmpfs_directory() as path:
        if path is None:
            pytest.skip("no tmpfs here: neither /dev/shm nor $XDG_RUNTIME_DIR")
        yield path


@pytest.fixture(name="start")
def fixture_start(tmp_path):
    """Starts the client in the test's own directory. --timeout is set, so that nothing outlives the test;
    timeout=None leaves it out. Standard input is empty, as under cron; stdout and stderr are collected."""
    clients = []

    def start(*arguments, timeout=10, **popen):
        if timeout is not None:
            arguments = ("--timeout", str(timeout * SLOWNESS), *arguments)
        popen = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                 "stderr": subprocess.PIPE, **popen}
        clients.append(Client(arguments, **popen))
        return clients[-1]

    yield start
    for client in clients:
        client.kill()


@pytest.fixture(name="run")
def fixture_run(start):
    """Runs the client to its end; `stdin` are the bytes that it can read."""

    def run(*arguments, stdin=None, limit=20, **options):
        if stdin is None:
            return start(*arguments, **options).finish(limit=limit)
        return start(*arguments, stdin=subprocess.PIPE, **options).finish(stdin, limit=limit)

    return run


@pytest.fixture(name="credentials")
def fixture_credentials(pki):
    """The options of a device that has all it needs."""
    return ["--cert", str(pki.bundle("device")), "--key", str(pki.key("device"))]


@pytest.fixture(name="send")
def fixture_send(run, credentials):
    """send(server, ...) runs the client as the good device, to that server."""

    def send(server, *arguments, **options):
        address = server if isinstance(server, str) else server.address
        return run("--server", address, *credentials, *arguments, **options)

    return send


@pytest.fixture(name="begin")
def fixture_begin(start, credentials):
    """The same, without waiting for the end."""

    def begin(server, *arguments, **options):
        address = server if isinstance(server, str) else server.address
        return start("--server", address, *credentials, *arguments, **options)

    return begin


@pytest.fixture(name="peers")
def fixture_peers():
    """Keeps what the test starts until it ends."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(name="inboxd")
def fixture_inboxd(pki, tmp_path, peers):
    """Starts an inboxd."""
    return lambda *options, **more: peers.enter_context(servers.Inboxd(pki, tmp_path, *options, **more))


@pytest.fixture(name="openssl")
def fixture_openssl(pki, tmp_path, peers):
    """Starts an OpenSSL server."""
    return lambda *options, **more: peers.enter_context(
        servers.OpensslServer(pki, tmp_path, *options, **more))


@pytest.fixture(name="gnutls")
def fixture_gnutls(pki, tmp_path, peers):
    """Starts a GnuTLS server."""
    return lambda *options, **more: peers.enter_context(
        servers.GnutlsServer(pki, tmp_path, *options, **more))


@pytest.fixture(name="server", params=["inboxd", "openssl", "gnutls"])
def fixture_server(request):
    """Each kind of server in turn."""
    return request.getfixturevalue(request.param)()


@pytest.fixture(name="coap_server")
def fixture_coap_server(inboxd):
    """An inboxd that speaks CoAP."""
    return inboxd("--coap")


@pytest.fixture(name="scripted")
def fixture_scripted(pki, tmp_path, peers):
    """Starts a CoAP server with a script."""
    return lambda answer: peers.enter_context(raw_coap.ScriptedServer(pki, tmp_path, answer))


@pytest.fixture(name="black_hole")
def fixture_black_hole(peers):
    """A server that says nothing."""
    return peers.enter_context(servers.BlackHole())


@pytest.fixture(name="refused")
def fixture_refused(peers):
    """A port where nobody listens."""
    return peers.enter_context(servers.RefusedPort())


@pytest.fixture(name="needs_ipv6")
def fixture_needs_ipv6():
    """Skips the test where the machine has no IPv6, not even on loopback."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


@pytest.fixture(name="full_pipe")
def fixture_full_pipe():
    """The writing end of a pipe that takes nothing more, since nobody reads it."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 512)
    os.set_blocking(writing, True)
    yield writing
    os.close(writing)
    os.close(reading)
