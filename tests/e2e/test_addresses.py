"""Names, their addresses tried in turn, and families."""

import os

import pytest

from client import SLOWNESS, answering_names, assert_fails, assert_silent_success
from pki import LOCAL_NAMES
from servers import BlackHole, Inboxd, RefusedPort

LEAVE = ["--wait", "0", "x"]
assert "IP:::1" in LOCAL_NAMES  # what the tests with ::1 rest on


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["localhost", "server.test"])
def test_a_name_is_looked_up(send, inboxd, name):
    server = inboxd()
    assert_silent_success(send(server.named(name), *LEAVE, env=answering_names("127.0.0.1")))
    server.wait_for_payloads(b"x")


def test_a_dead_ipv6_address_does_not_stop_the_ipv4_one(send, inboxd, peers, needs_ipv6):
    server = inboxd()
    dead = peers.enter_context(BlackHole("::1", server.port))
    result = send(server.named("localhost"), *LEAVE, env=answering_names("::1,127.0.0.1"))
    assert_silent_success(result)
    assert result.seconds < 5 * SLOWNESS
    assert dead.datagrams()  # the resolver's order was kept
    server.wait_for_payloads(b"x")


def test_a_dead_address_does_not_stop_another_one_of_its_family(send, inboxd, peers):
    server = inboxd()
    peers.enter_context(BlackHole("127.0.0.2", server.port))
    result = send(server.named("localhost"), *LEAVE, env=answering_names("127.0.0.2,127.0.0.1"))
    assert_silent_success(result)
    assert result.seconds < 5 * SLOWNESS
    server.wait_for_payloads(b"x")


def test_dead_addresses_leave_time_for_the_last_one(send, inboxd, peers):
    """Even where the whole timeout is short."""
    server = inboxd()
    for last in range(2, 5):
        peers.enter_context(BlackHole(f"127.0.0.{last}", server.port))
    result = send(server.named("localhost"), *LEAVE, timeout=4,
                  env=answering_names("127.0.0.2,127.0.0.3,127.0.0.4,127.0.0.1"))
    assert_silent_success(result)
    server.wait_for_payloads(b"x")


def test_a_refused_ipv6_address_is_passed_over_at_once(send, inboxd, peers, needs_ipv6):
    server = inboxd()
    peers.enter_context(RefusedPort("::1", server.port))
    result = send(server.named("localhost"), *LEAVE, env=answering_names("::1,127.0.0.1"))
    assert_silent_success(result)
    assert result.seconds < 0.5 * SLOWNESS
    server.wait_for_payloads(b"x")


def test_an_unreachable_network_is_passed_over_at_once(send, inboxd):
    """Broadcast, which a socket may not even be connected to without asking."""
    server = inboxd()
    result = send(server.named("localhost"), *LEAVE, env=answering_names("255.255.255.255,127.0.0.1"))
    assert_silent_success(result)
    assert result.seconds < 0.5 * SLOWNESS
    server.wait_for_payloads(b"x")


def test_all_refused_is_told_at_once(send, peers, needs_ipv6):
    first = peers.enter_context(RefusedPort("127.0.0.1"))
    peers.enter_context(RefusedPort("::1", first.port))
    result = send(first.named("localhost"), "x", env=answering_names("::1,127.0.0.1"))
    assert_fails(result, 69, f"localhost:{first.port}")
    assert result.seconds < 1 * SLOWNESS


def test_a_refused_address_among_silent_ones_is_not_all_refused(send, refused, peers):
    """Trying later may work, which is what 75 says and 69 does not."""
    silent = peers.enter_context(BlackHole("127.0.0.2", refused.port))
    result = send(silent.named("localhost"), "x", timeout=1, env=answering_names("127.0.0.1,127.0.0.2"))
    assert_fails(result, 75, f"localhost:{silent.port}")


def test_an_untrusted_server_is_not_escaped_by_trying_the_next_address(send, openssl):
    """Somebody who can stand in for one address must not go unnoticed."""
    server = openssl(certificate="server-wrong-ca")
    result = send(server.named("localhost"), "x", env=answering_names("127.0.0.1,127.0.0.1"))
    assert_fails(result, 77)
    server.assert_received_nothing()


def test_ipv4_means_only_ipv4(send, inboxd, peers, needs_ipv6):
    server = inboxd()
    other = peers.enter_context(BlackHole("::1", server.port))
    result = send(server.named("localhost"), "-4", *LEAVE, env=answering_names("::1,127.0.0.1"))
    assert_silent_success(result)
    other.assert_received_nothing()
    server.wait_for_payloads(b"x")


def test_ipv6_means_only_ipv6(send, pki, tmp_path, peers, needs_ipv6):
    server = peers.enter_context(Inboxd(pki, tmp_path, host="::1"))
    other = peers.enter_context(BlackHole("127.0.0.1", server.port))
    result = send(server.named("localhost"), "-6", *LEAVE, env=answering_names("127.0.0.1,::1"))
    assert_silent_success(result)
    other.assert_received_nothing()
    server.wait_for_payloads(b"x")


@pytest.mark.parametrize("option, addresses", [("-4", "::1"), ("-6", "127.0.0.1")])
def test_a_name_without_an_address_of_the_family_is_unknown(send, option, addresses):
    assert_fails(send("localhost:1", option, "x", env=answering_names(addresses)), 68, "localhost")


@pytest.mark.parametrize("option, server", [("-4", "[::1]:1"), ("-6", "127.0.0.1:1")])
def test_an_address_of_the_other_family_is_told(send, option, server):
    result = send(server, option, "x")
    assert result.status in (64, 68), result
    assert_fails(result, result.status, server.rsplit(":", 1)[0])


def test_an_ipv6_literal_is_taken_in_brackets(send, pki, tmp_path, peers, needs_ipv6):
    server = peers.enter_context(Inboxd(pki, tmp_path, "--reply", "ack", host="::1"))
    result = send(f"[::1]:{server.port}", "--wait", "8", "--count", "1", "--output", "json", "x")
    assert result.status == 0, result
    assert f'"server":"[::1]:{server.port}"'.encode() in result.stdout.replace(b": ", b":")
    server.wait_for_payloads(b"x")


@pytest.mark.parametrize("spelling", ["[0:0::1]", "[::0001]"])
def test_an_ipv6_literal_may_be_spelt_otherwise(send, pki, tmp_path, peers, needs_ipv6, spelling):
    server = peers.enter_context(Inboxd(pki, tmp_path, host="::1"))
    assert_silent_success(send(f"{spelling}:{server.port}", *LEAVE))
    server.wait_for_payloads(b"x")


def test_an_ipv6_literal_is_refused_when_the_certificate_is_for_another(send, pki, tmp_path, peers,
                                                                        needs_ipv6):
    server = peers.enter_context(Inboxd(pki, tmp_path, host="::1", certificate="server-ip-only"))
    assert_fails(send(f"[::1]:{server.port}", *LEAVE), 77, "::1")
    server.assert_received_nothing()


def test_an_unknown_host_is_told_by_name(send):
    assert_fails(send("nobody.test:1234", "x", env=answering_names("none")), 68, "nobody.test")


def test_a_name_server_that_is_down_is_a_temporary_failure(send):
    result = send("server.test:1234", "x", env=answering_names("again"))
    assert_fails(result, 75, "server.test")


def test_the_default_port_and_host_are_the_services(run, credentials, peers):
    """On a loopback address of this test alone, so that the fixed port is free."""
    number = os.getpid()
    address = f"127.{number >> 16 & 127 | 128}.{number >> 8 & 255}.{number & 255}"
    black_hole = peers.enter_context(BlackHole(address, 1234))
    result = run(*credentials, "x", timeout=0.5, env=answering_names(address))
    assert_fails(result, 75, "data.lab5e.com:1234")
    assert b"data.lab5e.com" in black_hole.wait_for_datagram()


def test_the_default_port_goes_with_another_host(send, peers):
    number = os.getpid()
    address = f"127.{number >> 16 & 127 | 128}.{number >> 8 & 255}.{number & 255}"
    black_hole = peers.enter_context(BlackHole(address, 1234))
    assert_fails(send(address, "x", timeout=0.5), 75, f"{address}:1234")
    assert black_hole.datagrams()
