"""coaps against libcoap's own server: a CoAP that no one here wrote, over the DTLS of two other libraries."""

import shutil

import pytest

from client import assert_fails, assert_silent_success
from raw_coap import uri
from servers import LibcoapServer

KEY = "a key of letters"
LARGE = bytes(range(256)) * 11 + b"the end of it"  # 2829 bytes: three blocks


@pytest.fixture(name="library", params=["gnutls", "openssl"])
def fixture_library(request):
    """What the server's DTLS is of."""
    if shutil.which(f"coap-server-{request.param}") is None:
        pytest.skip(f"no coap-server-{request.param} here")
    return request.param


@pytest.fixture(name="libcoap", params=["psk", "certificate"])
def fixture_libcoap(request, library, pki, tmp_path, peers, run, credentials):
    """libcoap(resource, ...) is a run against the server, which is libcoap.server."""
    secret = tmp_path / "psk"
    secret.write_text(f"device:{KEY.encode().hex()}\n", encoding="ascii")
    secret.chmod(0o600)
    keys = ["--psk", secret] if request.param == "psk" else credentials
    server = peers.enter_context(LibcoapServer(pki, tmp_path, library, KEY if request.param == "psk" else None))

    def libcoap(resource, *arguments, **options):
        return run("--server", uri(server, resource), *keys, *arguments, **options)
    libcoap.server = server
    return libcoap


def test_what_was_put_is_there_to_get(libcoap):
    assert_silent_success(libcoap("example_data", "--method", "put", "21.5"))
    assert_silent_success(libcoap("example_data", "--method", "get"), b"21.5\n")


def test_a_resource_is_made_by_putting_something_there(libcoap):
    result = libcoap("new/one?with=query", "--method", "put", "-v", "21.5")
    assert result.status == 0 and "2.01 Created" in result.stderr, result
    assert_silent_success(libcoap("new/one?with=query", "--method", "get"), b"21.5\n")


def test_large_payloads_and_bodies_go_in_blocks(libcoap, tmp_path):
    (tmp_path / "payload").write_bytes(LARGE)
    assert_silent_success(libcoap("example_data", "--method", "put", "--file", "payload"))
    assert_silent_success(libcoap("example_data", "--method", "get", "-o", "raw"), LARGE)


def test_a_separate_response_is_waited_for(libcoap):
    assert_silent_success(libcoap("async?1", "--method", "get"), b"done\n")


def test_a_path_that_is_not_there_is_named(libcoap):
    assert_fails(libcoap("nothing", "--method", "get"), 76, libcoap.server.address, "4.04 Not Found")
    assert_fails(libcoap("async", "--method", "post", "x"), 76, "4.05 Method Not Allowed")


def test_lines_are_all_taken(libcoap):
    assert_silent_success(libcoap("example_data", "--method", "put", "--lines", stdin=b"a\nb\nc\n"))
    assert_silent_success(libcoap("example_data", "--method", "get"), b"c\n")


def test_the_next_run_goes_on_with_the_association(libcoap, run_dir):
    options = ["--method", "put", "--session", run_dir / "session", "-v"]
    for number in range(3):
        result = libcoap("example_data", *options, str(number))
        assert result.status == 0, result
        assert (" in 1 datagrams sent" in result.stderr) == (number > 0), result
