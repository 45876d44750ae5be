"""More payloads that nothing confirms than the path takes at once."""

import sys
from pathlib import Path

import pytest

from client import assert_silent_success

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "net"))
from proxy import Proxy  # pylint: disable=wrong-import-position

MANY = 300


@pytest.mark.parametrize("queued", [False, True], ids=["lines", "queue"])
@pytest.mark.parametrize("delay_ms", [0, 20, 100])
def test_any_number_of_unconfirmed_payloads_goes_over_a_slow_path(delay_ms, queued, send, inboxd, peers,
                                                                  tmp_path):
    server = inboxd()
    proxy = peers.enter_context(Proxy(server.host, server.port, delay_ms=delay_ms))
    payloads = [b"%d" % number for number in range(MANY)]
    options = ["--queue", tmp_path / "queue"] if queued else []
    assert_silent_success(send(proxy, *options, "--lines", "--wait", "0.1", timeout=60,
                               stdin=b"\n".join(payloads) + b"\n"))
    server.settle()
    assert server.received() == payloads
