"""coaps: what a run sends and prints. What can go wrong: test_coaps_errors.py and test_coaps_loss.py."""

import base64
import json

import pytest

import raw_coap as coap
from client import assert_fails, assert_silent_success
from raw_coap import options_of, piggybacked, requests, uri
from servers import Relay

ALPHABET = b"abcdefghijklmnopqrstuvwxyz"
LARGE = (ALPHABET * 200)[:5000]  # what inboxd has at /large

# What is sent, and what is printed

@pytest.mark.smoke
@pytest.mark.parametrize("options", [[], ["--separate"], ["--non"], ["--separate", "--non"]],
                         ids=["piggybacked", "separate", "non", "separate-non"])
def test_a_post_is_confirmed_and_its_body_printed(inboxd, send, options):
    server = inboxd("--coap", *options)
    server.queue(b"Measure every hour")
    assert_silent_success(send(uri(server, "sensor"), "21.5"), b"Measure every hour\n")
    assert_silent_success(send(uri(server, "sensor"), "21.6"))
    server.wait_for_payloads(b"21.5", b"21.6")
    assert [(words[0], words[3]) for words in requests(server)] == [("POST", "/sensor")] * 2


def test_the_methods_are_put_and_get_too(coap_server, send):
    coap_server.queue(b"first", b"second")
    assert_silent_success(send(uri(coap_server, "x"), "--method", "put", "21.5"), b"first\n")
    assert_silent_success(send(uri(coap_server, "x"), "--method", "get"), b"second\n")
    coap_server.wait_for_payloads(b"21.5")
    assert [words[0] for words in requests(coap_server)] == ["PUT", "GET"]


def test_get_asks_until_nothing_waits(coap_server, send):
    coap_server.queue(b"1", b"2", b"3")
    assert_silent_success(send(uri(coap_server), "--method", "get", "--count", "2"), b"1\n2\n")
    assert_silent_success(send(uri(coap_server), "--method", "get", "--count", "9"), b"3\n")
    assert_silent_success(send(uri(coap_server), "--method", "get", "--count", "9"))
    coap_server.assert_received_nothing()
    assert len(requests(coap_server)) == 2 + 2 + 1


@pytest.mark.parametrize("text, path, query", [
    ("", [], []),
    ("sensor/room%201", [b"sensor", b"room 1"], []),
    ("a%2Fb//c/", [b"a/b", b"", b"c", b""], []),
    ("s?key=a%26b&flag&%3F=1", [b"s"], [b"key=a&b", b"flag", b"?=1"]),
    ("%C3%A4?%C3%BC", ["ä".encode()], ["ü".encode()]),
    ("x" * 255, [b"x" * 255], [])])
def test_path_and_query_arrive_as_the_uri_has_them(scripted, send, text, path, query):
    server = scripted(piggybacked("2.04"))
    assert_silent_success(send(uri(server, text), "21.5"))
    options = options_of(server.messages[0])
    assert [value for number, value in options if number == coap.URI_PATH] == path
    assert [value for number, value in options if number == 15] == query
    assert len(options) == len(path) + len(query)


@pytest.mark.parametrize("name, value", [("text", b""), ("json", b"\x32"), ("cbor", b"\x3c"), ("octets", b"\x2a"),
                                         ("112", b"\x70"), ("65535", b"\xff\xff")])
def test_the_content_format_travels_with_the_payload(scripted, send, name, value):
    server = scripted(piggybacked("2.04"))
    assert_silent_success(send(uri(server), "--content-format", name, "21.5"))
    assert options_of(server.messages[0]) == [(coap.CONTENT_FORMAT, value)]


def test_a_small_message_has_16_bytes_and_one_datagram_each_way(coap_server, send, peers, run_dir):
    relay = peers.enter_context(Relay(coap_server))
    options = ["--session", run_dir / "session"]
    assert_silent_success(send(uri(relay, "sensor"), *options, "21.5"))
    up, down = len(relay.up), len(relay.down)
    assert_silent_success(send(uri(relay, "sensor"), *options, "21.5"))
    coap_server.wait_for_payloads(b"21.5", b"21.5")
    up, down = relay.up[up:], relay.down[down:]
    assert (len(up), len(down)) == (1, 1)
    # Header, token, Uri-Path, marker, payload; 29 more for ChaCha20-Poly1305. A connection id adds itself, and
    # records are padded to a multiple of 16 then (type 25).
    more = len(up[0]) - 29 - (4 + 2 + 7 + 1 + 4)
    assert 0 < more < 8 + 1 + 16 if up[0][0] == 25 else more == 0


def test_ids_and_tokens_go_on_over_runs_and_never_repeat(coap_server, send, run_dir):
    options = ["--session", run_dir / "session"]
    for number in range(4):
        assert_silent_success(send(uri(coap_server), *options, str(number)))
    assert_silent_success(send(uri(coap_server), *options, "--lines", stdin=b"a\nb\nc\n"))
    seen = requests(coap_server)
    ids, tokens = [int(words[1]) for words in seen], [int(words[2], 16) for words in seen]
    for counter in ids, tokens:
        assert [(number - counter[0]) % 65536 for number in counter] == list(range(7))
    assert len(coap_server.events("handshake")) <= 1


# Output

@pytest.mark.parametrize("output, printed", [("text", b"a\xff\n"), ("raw", b"a\xff"), ("hex", b"61ff\n"),
                                             ("base64", b"Yf8=\n")])
def test_a_body_is_printed_in_every_format(coap_server, send, output, printed):
    coap_server.queue(b"a\xff")
    assert_silent_success(send(uri(coap_server), "--output", output, "21.5"), printed)


@pytest.mark.parametrize("body, content_format", [(b"21.5", 0), (b"\xff", 42)])
@pytest.mark.parametrize("method, code", [("post", "2.04"), ("get", "2.05")])
def test_json_has_code_and_content_format(coap_server, send, body, content_format, method, code):
    coap_server.queue(body)
    result = send(uri(coap_server), "--output", "json", "--method", method, *(["x"] if method == "post" else []))
    assert_silent_success(result, result.stdout)
    printed = json.loads(result.stdout)
    assert (printed["code"], printed["content_format"]) == (code, content_format)
    assert (base64.b64decode(printed["payload"]), printed["size"]) == (body, len(body))


def test_json_has_no_content_format_where_there_is_none(scripted, send):
    printed = json.loads(send(uri(scripted(piggybacked("2.05", payload=b"x"))), "-o", "json", "x").stdout)
    assert printed["code"] == "2.05" and "content_format" not in printed


# Blocks

@pytest.mark.parametrize("options", [[], ["--separate"], ["--non"], ["--refuse-blocks"]])
@pytest.mark.parametrize("block", ["64", "1024"])
def test_10_kb_go_in_blocks_and_large_bodies_come_whole(inboxd, send, tmp_path, options, block):
    if options == ["--separate"] and block == "64":
        options = ["--separate", "--separate-delay", "2"]
    server = inboxd("--coap", "--block", block, *options)
    payload, downlink = LARGE * 2, bytes(range(256)) * 40
    (tmp_path / "payload").write_bytes(payload)
    server.queue(downlink)
    assert_silent_success(send(uri(server, "x"), "--file", "payload", "-o", "raw", timeout=40, limit=50), downlink)
    server.wait_for_payloads(payload)
    assert len({words[2] for words in requests(server)}) <= 2  # one token, and one for the first try


def test_a_large_resource_is_fetched_whole(coap_server, send):
    assert_silent_success(send(uri(coap_server, "large"), "--method", "get", "-o", "raw"), LARGE)


def test_blocks_that_were_lost_are_sent_once_more_from_the_start(inboxd, send, tmp_path):
    server = inboxd("--coap", "--block", "256")
    (tmp_path / "payload").write_bytes(LARGE)
    assert_silent_success(send(uri(server, "lost"), "--file", "payload"))
    server.wait_for_payloads(LARGE)


def test_what_the_server_takes_at_most_is_a_refusal(inboxd, send, tmp_path):
    server = inboxd("--coap", "--max-size", "4000")
    (tmp_path / "payload").write_bytes(LARGE)
    assert_fails(send(uri(server, "x"), "--file", "payload"), 65, server.address,
                 "4.13 Request Entity Too Large")
    server.assert_received_nothing()


def test_success_before_the_last_block_confirms_nothing(coap_server, send, tmp_path):
    (tmp_path / "payload").write_bytes(LARGE)
    assert_fails(send(uri(coap_server, "early"), "--file", "payload"), 76, coap_server.address, "2.04 Changed")
    coap_server.assert_received_nothing()


def test_a_body_that_is_lost_is_told_and_the_payload_stays_confirmed(scripted, send, tmp_path):
    def answer(request):
        block2 = [value for number, value in options_of(request) if number == coap.BLOCK2]
        code = "5.00" if block2 else "2.04"
        options = [] if block2 else [(coap.BLOCK2, coap.block(0, True, 64))]
        return piggybacked(code, options, b"x" * 64)(request)
    server = scripted(answer)
    assert_fails(send(uri(server), "--queue", "queue", "21.5"), 76, server.address, "body", "lost",
                 "5.00 Internal Server Error")
    assert len([message for message in server.messages if b"\xff21.5" in message]) == 1
    assert not [path for path in (tmp_path / "queue").rglob("*") if b"21.5" in path.read_bytes()]


# Sources, queue and keys

def test_lines_go_over_one_connection_and_bodies_come_in_order(coap_server, send):
    coap_server.queue(b"1", b"2")
    assert_silent_success(send(uri(coap_server), "--lines", stdin=b"a\nb\nc\n"), b"1\n2\n")
    coap_server.wait_for_payloads(b"a", b"b", b"c")


def test_an_empty_payload_is_one(coap_server, send):
    assert_silent_success(send(uri(coap_server), ""))
    coap_server.wait_for_payloads(b"")


@pytest.mark.parametrize("options", [[], ["--separate"]])
def test_a_pre_shared_key_will_do(inboxd, run, tmp_path, options):
    server = inboxd("--coap", "--psk", "sensor-7:00112233445566778899aabbccddeeff", *options)
    (tmp_path / "psk").write_text("sensor-7:00112233445566778899aabbccddeeff\n", encoding="ascii")
    (tmp_path / "psk").chmod(0o600)
    server.queue(b"hello", device="sensor-7")
    assert_silent_success(run("--server", uri(server, "x"), "--psk", "psk", "21.5"), b"hello\n")
    server.wait_for_payloads(b"21.5", device="sensor-7")
