"""coaps: every refusal, and everything that is no answer, ends as DESIGN says, with one line that says what."""

import re

import pytest

import raw_coap as coap
from client import assert_fails, assert_one_line, assert_silent_success
from raw_coap import piggybacked, requests, uri

NAMES = {"4.00": "Bad Request", "4.01": "Unauthorized", "4.02": "Bad Option", "4.03": "Forbidden",
         "4.04": "Not Found", "4.05": "Method Not Allowed", "4.06": "Not Acceptable",
         "4.08": "Request Entity Incomplete", "4.09": "Conflict", "4.12": "Precondition Failed",
         "4.13": "Request Entity Too Large", "4.15": "Unsupported Content-Format",
         "4.22": "Unprocessable Entity", "4.29": "Too Many Requests", "4.30": "",
         "5.00": "Internal Server Error", "5.01": "Not Implemented", "5.02": "Bad Gateway",
         "5.03": "Service Unavailable", "5.04": "Gateway Timeout", "5.05": "Proxying Not Supported", "5.31": ""}
STATUSES = {"4.00": 65, "4.02": 65, "4.08": 65, "4.13": 65, "4.15": 65, "4.22": 65, "4.01": 77, "4.03": 77,
            "4.29": 75}


def status_of(code):
    """As DESIGN has it."""
    return STATUSES.get(code, 75 if code.startswith("5") else 76)


# What the server answers

@pytest.mark.parametrize("code", NAMES)
def test_an_error_is_told_with_server_code_name_and_diagnostic(coap_server, send, code):
    result = send(uri(coap_server, f"error/{code}"), "21.5")
    name = f"{code} {NAMES[code]}".strip()
    assert_fails(result, status_of(code), f"{coap_server.address}: {name}: asked for")
    coap_server.assert_received_nothing()


@pytest.mark.parametrize("method", ["put", "get"])
def test_an_error_to_another_method_too(coap_server, send, method):
    payload = ["x"] if method == "put" else []
    assert_fails(send(uri(coap_server, "error/4.04"), "--method", method, *payload), 76, "4.04 Not Found: asked for")


def test_a_diagnostic_cannot_drive_the_terminal(scripted, send):
    server = scripted(piggybacked("4.04", payload=b"a\x1b[2Jb\nc\x00d\x7f\xc2\x9be\xff"))
    result = send(uri(server), "21.5")
    assert_fails(result, 76, "4.04 Not Found: a")
    assert re.fullmatch(r"[\x20-\x7e]*\n", result.stderr), result


def test_a_server_with_trouble_says_when_to_come_again(coap_server, send):
    assert_fails(send(uri(coap_server, "busy"), "21.5"), 75, coap_server.address, "5.03 Service Unavailable", "30 s")


def test_a_reset_ends_it(coap_server, send):
    assert_fails(send(uri(coap_server, "reset"), "21.5"), 76, coap_server.address, "reset")


def test_an_unknown_critical_option_ends_it(coap_server, send):
    assert_fails(send(uri(coap_server, "critical"), "21.5"), 76, coap_server.address, "critical option 2049")


def test_echo_is_answered_once(coap_server, send):
    assert_silent_success(send(uri(coap_server, "echo"), "21.5"))
    coap_server.wait_for_payloads(b"21.5")
    assert_fails(send(uri(coap_server, "echo/always"), "21.6"), 77, coap_server.address, "4.01 Unauthorized")


def test_silence_ends_with_the_deadline(coap_server, send):
    result = send(uri(coap_server, "silent"), "21.5", timeout=2)
    assert_fails(result, 75, coap_server.address, "not confirmed")
    assert 1.9 < result.seconds < 3
    assert len({tuple(words) for words in requests(coap_server)}) == 1  # resent unchanged


@pytest.mark.parametrize("answer", [
    lambda request: b"not CoAP at all",
    lambda request: piggybacked("2.04")(request) + b"\xff",
    lambda request: piggybacked("2.04", [(coap.MAX_AGE, b"x")])(request)[:-1],
    lambda request: piggybacked("3.01")(request),
    lambda request: piggybacked("2.04")(request[:4] + b"zz"),
    lambda request: piggybacked("2.04")(request[:2] + b"zz" + request[4:]),
    lambda request: coap.message(coap.RST, 0, 77)],
    ids=["text", "marker", "cut", "class", "token", "id", "reset"])
def test_what_is_no_response_to_it_confirms_nothing_and_does_not_hang(scripted, send, answer):
    result = send(uri(scripted(answer)), "21.5", timeout=2)
    assert_fails(result, 75, "not confirmed")
    assert result.seconds < 3


@pytest.mark.parametrize("text", ["coaps://{}/a#b", "coaps://user@{}/a", "coaps://{}/%zz", "coaps://{}/%4",
                                  "coap://{}/a", "coaps://{}/" + "x" * 256, "coaps://{}/?" + "x" * 256,
                                  "coaps:///a", "coaps://{}/a b"])
def test_a_uri_that_cannot_be_taken_apart_is_a_usage_error(coap_server, send, text):
    assert_fails(send(text.format(coap_server.address), "21.5"), 64)
    coap_server.assert_received_nothing()


@pytest.mark.parametrize("arguments", [["--method", "delete", "x"], ["--method", "get", "x"],
                                       ["--content-format", "jpeg", "x"], ["--content-format", "65536", "x"],
                                       ["--method", "post"], ["--method", "get", "--content-format", "text"]])
def test_options_of_coaps_that_make_no_sense_are_usage_errors(coap_server, send, arguments):
    assert_fails(send(uri(coap_server), *arguments), 64)
    coap_server.assert_received_nothing()


@pytest.mark.parametrize("arguments", [["--method", "put"], ["--content-format", "text"]])
def test_options_of_coaps_mean_nothing_in_the_plain_form(coap_server, send, arguments):
    assert_fails(send(coap_server, *arguments, "x"), 64, "coaps")


# With a queue

def test_what_the_server_refuses_moves_to_failed_and_the_rest_goes_on(coap_server, send, tmp_path):
    result = send(uri(coap_server, "error/4.15"), "--queue", "queue", "--lines", stdin=b"a\nb\n")
    assert (result.status, result.stdout) == (65, b"")
    assert result.stderr.count("4.15 Unsupported Content-Format: asked for") == 2
    assert sorted(path.read_bytes() for path in (tmp_path / "queue/failed").iterdir()) == [b"a", b"b"]


@pytest.mark.parametrize("code", ["4.01", "4.04", "4.29", "5.03"])
def test_what_fails_otherwise_waits_in_the_queue(coap_server, send, tmp_path, code):
    result = send(uri(coap_server, f"error/{code}"), "--queue", "queue", "21.5")
    assert_fails(result, status_of(code), code, "the payload waits in the queue")
    assert not (tmp_path / "queue/failed").exists()
    coap_server.queue(b"thanks")
    assert_silent_success(send(uri(coap_server), "--queue", "queue", "--flush"), b"thanks\n")
    coap_server.wait_for_payloads(b"21.5")


def test_trouble_of_the_server_ends_the_run_at_the_first_payload(coap_server, send):
    result = send(uri(coap_server, "busy"), "--queue", "queue", "--lines", stdin=b"a\nb\nc\n")
    assert result.status == 75
    assert_one_line(result, "5.03")
    assert len(requests(coap_server)) == 1
