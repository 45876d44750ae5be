"""inboxd --coap, seen by libcoap's coap-client, and by raw messages over `openssl s_client`."""

import re
import subprocess
import time

import pytest

import raw_coap as coap
from client import SLOWNESS
from raw_coap import ACK, CON, GET, NON, POST, PUT, RST

DEVICE = "device"
KEY = "a key of letters"
HEX_KEY = KEY.encode().hex()
ALPHABET = b"abcdefghijklmnopqrstuvwxyz"
LARGE = (ALPHABET * 200)[:5000]


@pytest.fixture(name="coap_inboxd")
def fixture_coap_inboxd(inboxd):
    """Starts an inboxd that speaks CoAP, with a pre-shared key."""
    return lambda *options: inboxd("--coap", "--psk", f"{DEVICE}:{HEX_KEY}", *options)


@pytest.fixture(name="device")
def fixture_device(tmp_path, peers):
    """Connects a device that sends raw messages."""
    return lambda server: peers.enter_context(coap.RawDevice(server, tmp_path, DEVICE, HEX_KEY))


def request(server, resource, *options, library="openssl"):
    """By coap-client: what it printed."""
    return coap.run_coap_client(server, resource, *options, identity=DEVICE, key=KEY, library=library)


@pytest.mark.parametrize("library", ["openssl", "gnutls"])
def test_a_post_is_stored_and_its_response_bears_what_waits(coap_inboxd, library):
    server = coap_inboxd()
    server.queue(b"first", b"second")
    assert request(server, "sensor", "-m", "post", "-e", "21.5", library=library)[0] == b"first"
    assert (server.sent(), server.pending()) == ([b"first"], [b"second"])
    assert request(server, "sensor", "-m", "put", "-e", "21.6", library=library)[0] == b"second"
    assert request(server, "sensor", "-m", "post", "-e", "21.7", library=library)[0] == b""
    server.wait_for_payloads(b"21.5", b"21.6", b"21.7")
    assert server.events("downlink") == [[DEVICE, "5"], [DEVICE, "6"]]


def test_a_device_with_a_certificate_is_known_by_its_name(pki, inboxd):
    # Built with OpenSSL, it would not send the intermediate certificate.
    server = inboxd("--coap")
    server.queue(b"for you", device="device")
    coap.skip_without("coap-client-gnutls")
    done = subprocess.run(["coap-client-gnutls", "-c", pki.bundle("device"), "-j", pki.key("device"), "-R",
                           pki.leaf("root"), "-o", "-", "-B", "5", "-m", "post", "-e", "21.5",
                           f"coaps://{server.address}/x"],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=True)
    assert done.stdout == b"for you"
    server.wait_for_payloads(b"21.5", device="device")


def test_get_asks_for_what_waits_and_stores_nothing(coap_inboxd):
    server = coap_inboxd()
    server.queue(b"first", b"second")
    assert [request(server, "x")[0] for _ in range(3)] == [b"first", b"second", b""]
    server.assert_received_nothing()


@pytest.mark.parametrize("options", [[], ["--separate"], ["--separate", "--non"]],
                         ids=["piggybacked", "separate", "non"])
def test_large_payloads_and_large_downlinks_go_in_blocks(coap_inboxd, tmp_path, options):
    server = coap_inboxd(*options, "--block", "256")
    downlink = bytes(range(256)) * 12
    server.queue(downlink)
    (tmp_path / "payload").write_bytes(LARGE)
    assert request(server, "x", "-m", "put", "-f", tmp_path / "payload")[0] == downlink
    server.wait_for_payloads(LARGE)
    assert server.events("downlink") == [[DEVICE, str(len(downlink))]]


def test_the_large_resource_comes_in_blocks_of_256(coap_inboxd):
    server = coap_inboxd()
    assert request(server, "large")[0] == LARGE
    assert len(server.events("coap")) == 20


@pytest.mark.parametrize("code", ["4.00", "4.01", "4.04", "4.29", "5.00", "5.03", "2.31"])
def test_errors_are_answered_by_path(coap_inboxd, device, code):
    server = coap_inboxd()
    raw = device(server)
    raw.send(coap.message(CON, POST, 1, b"t", coap.path(f"error/{code}"), b"21.5"))
    raw.expect(coap.message(ACK, coap.code(code), 1, b"t", payload=b"asked for"))
    server.assert_received_nothing()


def test_coap_client_prints_such_an_error(coap_inboxd):
    assert "4.04 asked for" in request(coap_inboxd(), "error/4.04")[1]


def test_a_duplicate_is_answered_alike_and_acted_on_once(coap_inboxd, device):
    server = coap_inboxd()
    server.queue(b"first", b"second")
    raw = device(server)
    sent = coap.message(CON, POST, 0xfffe, b"\x8f\x21", coap.path("sensor"), b"21.5")
    answer = coap.message(ACK, coap.code("2.04"), 0xfffe, b"\x8f\x21", [(coap.CONTENT_FORMAT, b"")], b"first")
    for _ in range(3):
        raw.send(sent)
        raw.expect(answer)
    raw.send(coap.message(CON, POST, 0xffff, b"\x8f\x22", coap.path("sensor"), b"21.5"))
    raw.expect(coap.message(ACK, coap.code("2.04"), 0xffff, b"\x8f\x22", [(coap.CONTENT_FORMAT, b"")], b"second"))
    server.wait_for_payloads(b"21.5", b"21.5")
    assert server.events("duplicate") == [[DEVICE, "65534"]] * 2
    assert server.events("coap") == [[DEVICE, "CON", "POST", "65534", "8f21", "/sensor"]] * 3 + \
        [[DEVICE, "CON", "POST", "65535", "8f22", "/sensor"]]


def test_a_new_association_knows_no_duplicates(coap_inboxd, device):
    server = coap_inboxd()
    for _ in range(2):
        raw = device(server)
        raw.send(coap.message(CON, POST, 7, payload=b"21.5"))
        raw.expect(coap.message(ACK, coap.code("2.04"), 7))
        raw.stop()
    server.wait_for_payloads(b"21.5", b"21.5")
    assert not server.events("duplicate")


def test_a_body_says_whether_it_is_text(coap_inboxd, device):
    server = coap_inboxd()
    bodies = {"21.5 °C".encode(): 0, b"\xc3\x28": 42, b"\xed\xa0\x80": 42, "\U0001f321".encode(): 0}
    server.queue(*bodies)
    raw = device(server)
    for number, (body, content_format) in enumerate(bodies.items()):
        raw.send(coap.message(CON, GET, number))
        raw.expect(coap.message(ACK, coap.code("2.05"), number, b"",
                                [(coap.CONTENT_FORMAT, coap.uint(content_format))], body))


SEPARATE_RESPONSE = re.compile(rb"\x41\x44(..)t", re.DOTALL)


def test_a_separate_response_is_resent_until_it_is_acknowledged(coap_inboxd, device):
    server = coap_inboxd("--separate", "--separate-delay", "100")
    raw = device(server)
    sent = coap.message(CON, POST, 1, b"t", payload=b"21.5")
    raw.send(sent)
    raw.expect(coap.message(ACK, 0, 1))
    number = raw.expect(SEPARATE_RESPONSE)[1]
    raw.send(sent)  # a duplicate brings no response of its own
    raw.expect(coap.message(ACK, 0, 1))
    began = time.monotonic()
    assert raw.expect(SEPARATE_RESPONSE)[1] == number
    assert 1.5 < time.monotonic() - began < 3 + SLOWNESS
    raw.send(coap.message(ACK, 0, int.from_bytes(number, "big")))
    server.wait_for_event("acknowledged")
    raw.send(coap.message(CON, 0, 2))  # whatever was still to come would come before this
    raw.expect(coap.message(RST, 0, 2))
    assert raw.left() == b""
    server.wait_for_payloads(b"21.5")


def test_a_response_can_be_non_confirmable(coap_inboxd, device):
    raw = device(coap_inboxd("--non"))
    raw.send(coap.message(CON, POST, 1, b"t", payload=b"21.5"))
    raw.expect(re.compile(rb"\x51\x44..t", re.DOTALL))
    assert raw.left() == b""


def test_a_non_confirmable_request_gets_a_non_confirmable_response(coap_inboxd, device):
    server = coap_inboxd()
    raw = device(server)
    raw.send(coap.message(NON, PUT, 1, b"t", payload=b"21.5"))
    raw.expect(re.compile(rb"\x51\x44..t", re.DOTALL))
    server.wait_for_payloads(b"21.5")


def test_paths_for_resets_silence_and_more(coap_inboxd, device):
    server = coap_inboxd()
    raw = device(server)
    raw.send(coap.message(CON, POST, 1, b"t", coap.path("reset"), b"21.5"))
    raw.expect(coap.message(RST, 0, 1))
    raw.send(coap.message(CON, POST, 2, b"t", coap.path("busy"), b"21.5"))
    raw.expect(coap.message(ACK, coap.code("5.03"), 2, b"t", [(coap.MAX_AGE, coap.uint(30))]))
    raw.send(coap.message(CON, POST, 3, b"t", coap.path("silent"), b"21.5"))
    server.wait_for_event("coap", 3)
    raw.send(coap.message(CON, POST, 4, b"t", coap.path("critical"), b"21.5"))
    raw.expect(coap.message(ACK, coap.code("2.04"), 4, b"t", [(2049, b"")]))
    server.wait_for_payloads(b"21.5")


ECHO_DEMAND = re.compile(rb"\x61\x81..t\xd8\xef(.{8})", re.DOTALL)


def test_echo_is_demanded_once(coap_inboxd, device):
    server = coap_inboxd()
    raw = device(server)
    raw.send(coap.message(CON, POST, 1, b"t", coap.path("echo"), b"21.5"))
    echo = raw.expect(ECHO_DEMAND)[1]
    raw.send(coap.message(CON, POST, 2, b"t", [*coap.path("echo"), (coap.ECHO, b"12345678")], b"21.5"))
    assert raw.expect(ECHO_DEMAND)[1] == echo
    raw.send(coap.message(CON, POST, 3, b"t", [*coap.path("echo"), (coap.ECHO, echo)], b"21.5"))
    raw.expect(coap.message(ACK, coap.code("2.04"), 3, b"t"))
    raw.send(coap.message(CON, POST, 4, b"t", coap.path("echo"), b"21.6"))
    raw.expect(coap.message(ACK, coap.code("2.04"), 4, b"t"))
    raw.send(coap.message(CON, POST, 5, b"t", [*coap.path("echo/always"), (coap.ECHO, echo)], b"21.7"))
    raw.expect(ECHO_DEMAND)
    server.wait_for_payloads(b"21.5", b"21.6")


def test_coap_client_answers_the_demand_for_an_echo(coap_inboxd):
    server = coap_inboxd()
    request(server, "echo", "-m", "post", "-e", "21.5")
    server.wait_for_payloads(b"21.5")


def block1(number, more, size, *others, where="x"):
    """A request's options."""
    return sorted([*coap.path(where), (coap.BLOCK1, coap.block(number, more, size)), *others])


def test_blocks_are_taken_in_order_and_at_the_size_that_is_asked_for(coap_inboxd, device):
    server = coap_inboxd("--block", "64")
    raw = device(server)
    raw.send(coap.message(CON, POST, 1, b"t", block1(0, True, 256), LARGE[:256]))
    raw.expect(coap.message(ACK, coap.code("2.31"), 1, b"t", [(coap.BLOCK1, coap.block(0, True, 64))]))
    raw.send(coap.message(CON, POST, 2, b"t", block1(4, True, 64), LARGE[256:320]))
    raw.expect(coap.message(ACK, coap.code("2.31"), 2, b"t", [(coap.BLOCK1, coap.block(4, True, 64))]))
    raw.send(coap.message(CON, POST, 3, b"t", block1(5, False, 64), LARGE[320:350]))
    raw.expect(coap.message(ACK, coap.code("2.04"), 3, b"t", [(coap.BLOCK1, coap.block(5, False, 64))]))
    server.wait_for_payloads(LARGE[:350])


def test_a_missing_block_is_told(coap_inboxd, device):
    server = coap_inboxd()
    raw = device(server)
    raw.send(coap.message(CON, POST, 1, b"t", block1(0, True, 64), LARGE[:64]))
    raw.expect(coap.message(ACK, coap.code("2.31"), 1, b"t", [(coap.BLOCK1, coap.block(0, True, 64))]))
    raw.send(coap.message(CON, POST, 2, b"t", block1(2, False, 64), LARGE[128:150]))
    raw.expect(coap.message(ACK, coap.code("4.08"), 2, b"t", [(coap.BLOCK1, coap.block(2, False, 64))]))
    server.assert_received_nothing()


def test_blocks_are_lost_once_where_the_path_asks_for_it(coap_inboxd, device):
    server = coap_inboxd()
    raw = device(server)
    number = 0
    for answers in ["2.31", "2.31", "4.08"], ["2.31", "2.31", "2.04"]:
        for index, answer in enumerate(answers):
            number += 1
            option = (index, index < 2, 64)
            raw.send(coap.message(CON, POST, number, b"t", block1(*option, where="lost"), LARGE[:64]))
            raw.expect(coap.message(ACK, coap.code(answer), number, b"t", [(coap.BLOCK1, coap.block(*option))]))
    server.wait_for_payloads(LARGE[:64] * 3)


def test_larger_blocks_can_be_refused(coap_inboxd, device):
    raw = device(coap_inboxd("--block", "64", "--refuse-blocks"))
    raw.send(coap.message(CON, POST, 1, b"t", block1(0, True, 256), LARGE[:256]))
    raw.expect(coap.message(ACK, coap.code("4.13"), 1, b"t", [(coap.BLOCK1, coap.block(0, True, 64))]))


def test_a_payload_that_is_too_large_is_refused_with_the_size_that_is_not(coap_inboxd, device):
    server = coap_inboxd("--max-size", "100")
    raw = device(server)
    refusal = [(coap.SIZE1, coap.uint(100))]
    raw.send(coap.message(CON, POST, 1, b"t", coap.path("x"), LARGE[:101]))
    raw.expect(coap.message(ACK, coap.code("4.13"), 1, b"t", refusal))
    raw.send(coap.message(CON, POST, 2, b"t", block1(0, True, 64, (coap.SIZE1, coap.uint(150))), LARGE[:64]))
    raw.expect(coap.message(ACK, coap.code("4.13"), 2, b"t", refusal))
    raw.send(coap.message(CON, POST, 3, b"t", block1(0, True, 64), LARGE[:64]))
    raw.expect(coap.message(ACK, coap.code("2.31"), 3, b"t", [(coap.BLOCK1, coap.block(0, True, 64))]))
    raw.send(coap.message(CON, POST, 4, b"t", block1(1, False, 64), LARGE[:37]))
    raw.expect(coap.message(ACK, coap.code("4.13"), 4, b"t", refusal))
    server.assert_received_nothing()


def test_a_post_response_comes_in_blocks_too_and_a_later_one_acts_on_nothing(coap_inboxd, device):
    server = coap_inboxd()
    server.queue(LARGE[:1500], b"another")
    raw = device(server)
    raw.send(coap.message(CON, POST, 1, b"t", coap.path("x"), b"21.5"))
    raw.expect(coap.message(ACK, coap.code("2.04"), 1, b"t",
                            [(coap.CONTENT_FORMAT, b""), (coap.BLOCK2, coap.block(0, True, 1024)),
                             (coap.SIZE2, coap.uint(1500))], LARGE[:1024]))
    raw.send(coap.message(CON, POST, 2, b"t", [*coap.path("x"), (coap.BLOCK2, coap.block(1, False, 1024))]))
    raw.expect(coap.message(ACK, coap.code("2.04"), 2, b"t",
                            [(coap.CONTENT_FORMAT, b""), (coap.BLOCK2, coap.block(1, False, 1024))],
                            LARGE[1024:1500]))
    raw.send(coap.message(CON, POST, 3, b"t", [*coap.path("x"), (coap.BLOCK2, coap.block(2, False, 1024))]))
    raw.expect(coap.message(ACK, coap.code("4.00"), 3, b"t", payload=b"no such block"))
    server.wait_for_payloads(b"21.5")
    assert server.pending() == [b"another"]


def test_what_is_not_understood_is_rejected(coap_inboxd, device):
    server = coap_inboxd()
    raw = device(server)
    raw.send(coap.message(CON, 0, 1))
    raw.expect(coap.message(RST, 0, 1))
    raw.send(coap.message(CON, POST, 2, b"t") + b"\xff")  # a payload marker without payload
    raw.expect(coap.message(RST, 0, 2))
    raw.send(coap.message(CON, coap.code("2.05"), 3, b"t"))  # a response to nothing
    raw.expect(coap.message(RST, 0, 3))
    raw.send(coap.message(CON, POST, 4, b"t", [(2049, b"")], b"21.5"))
    raw.expect(coap.message(ACK, coap.code("4.02"), 4, b"t", payload=b"a critical option that is not known"))
    raw.send(coap.message(CON, 7, 5, b"t"))
    raw.expect(coap.message(ACK, coap.code("4.05"), 5, b"t"))
    server.assert_received_nothing()
    assert server.events("ping") == [[DEVICE, "1"]]
    assert len(server.events("malformed")) == 2


def test_everything_can_be_answered_later(coap_inboxd, device):
    server = coap_inboxd("--delay", "700")
    raw = device(server)
    began = time.monotonic()
    raw.send(coap.message(CON, POST, 1, b"t", payload=b"21.5"))
    server.wait_for_event("uplink")
    raw.expect(coap.message(ACK, coap.code("2.04"), 1, b"t"))
    assert time.monotonic() - began > 0.7


def test_the_plain_form_can_answer_later_too(inboxd, send):
    server = inboxd("--delay", "700", "--reply", "there")
    began = time.monotonic()
    ended = send(server, "--wait", "8", "--count", "1", "21.5")
    assert time.monotonic() - began > 0.7
    assert (ended.status, ended.stdout) == (0, b"there\n")


def test_a_goodbye_comes_after_what_was_answered_late(inboxd, send):
    server = inboxd("--delay", "300", "--reply", "there", "--close")
    ended = send(server, "--wait", "8", "21.5")
    assert (ended.status, ended.stdout) == (0, b"there\n")
    server.wait_for_event("closed")
