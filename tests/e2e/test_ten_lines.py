"""include/dtls.h serves a second program of about ten lines."""

import subprocess

import pytest

from client import TEN_LINES, Client


@pytest.fixture(name="ten_lines")
def fixture_ten_lines(pki, tmp_path):
    """Runs it as the good device."""
    def run(server, payload, key="device"):
        return Client([server.host, str(server.port), pki.bundle("device"), pki.key(key), payload],
                      program=TEN_LINES, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE).finish()

    return run


@pytest.mark.smoke
def test_ten_lines_send_a_payload_and_print_a_downlink(ten_lines, inboxd):
    server = inboxd()
    server.queue(b"Hello there")
    result = ten_lines(server, "Echo this")
    assert (result.status, result.stdout, result.stderr) == (0, b"Hello there", "")
    server.wait_for_payloads(b"Echo this")
    assert server.wait_for_event("closed") == ["device"]


def test_ten_lines_learn_why_a_server_is_not_trusted(ten_lines, openssl):
    server = openssl(certificate="server-wrong-ca")
    result = ten_lines(server, "x")
    assert result.status == 1 and "certificate" in result.stderr
    server.assert_received_nothing()


def test_ten_lines_learn_why_credentials_are_unusable(ten_lines, black_hole):
    result = ten_lines(black_hole, "x", key="device-rsa")
    assert result.status == 1 and "device-rsa.key" in result.stderr
    black_hole.assert_received_nothing()
