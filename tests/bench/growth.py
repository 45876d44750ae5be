"""How the cost grows with the number of payloads, and with their size."""

import statistics

from contestants import COAPS, OPENSSL, Contestant
from measure import run, traffic
# pylint: disable=wrong-import-order
from proxy import Proxy
from servers import RefusedPort

SIZES = (1, 10, 100, 1000, 1200, 4096, 16384)

OURS = "dtls-send --server 127.0.0.1:{port} --server-name localhost --cert {bundle} --key {key} --wait 0"
PLAIN = Contestant("dtls-send --lines", OURS + " --lines")
CONFIRMED = Contestant("dtls-send --lines --confirm", OURS + " --lines --confirm")
COAPS_LINES = Contestant("dtls-send coaps --lines", COAPS.replace(" {payload}", " --lines"), server="coap")
KEEPING = Contestant("dtls-send --queue --lines", OURS + " --queue {dir}/queue --lines")
FLUSHING = Contestant("dtls-send --queue --flush", OURS + " --queue {dir}/queue --flush")
BY_OPENSSL = Contestant("openssl s_client", OPENSSL, fed=True)


def payloads(count):
    """So many, of ten bytes each."""
    return [f"{number:010}".encode() for number in range(count)]


def one_run(arena, contestant, server, directory, lines):
    """A run that is fed the lines from a file, and what of them arrived."""
    with open(lines, "rb") as stdin:
        done = run(contestant.command(arena.pki, server.port, directory), stdin=stdin, limit=600)
    server.settle()
    received = server.received()
    wanted = payloads(len(lines.read_bytes()) // 11)
    text = b"".join(payload + b"\n" for payload in received)
    return {"name": contestant.name, "lines": len(wanted), "status": done.status,
            "arrived": sum(payload in text for payload in wanted) if len(wanted) <= 100 else
            len(set(text.split()) & set(wanted)),
            "messages": len(received), "seconds": done.wall, "cpu": done.cpu, "memory": done.memory}


def fill_queue(arena, directory, lines):
    """Puts the lines into a queue, with nobody to send them to."""
    with RefusedPort() as nobody, open(lines, "rb") as stdin:
        done = run(KEEPING.command(arena.pki, nobody.port, directory), stdin=stdin, limit=600)
    kept = len([entry for entry in (directory / "queue").iterdir() if not entry.name.startswith(".")])
    return {"name": f"{KEEPING.name}, nobody there", "lines": kept, "status": done.status, "arrived": 0,
            "messages": 0, "seconds": done.wall, "cpu": done.cpu, "memory": done.memory}


def measure_lines(arena, most):
    """Messages, time and memory for 1, 100 and `most` lines."""
    rows = []
    for count in (1, 100, most):
        for contestant in (PLAIN, CONFIRMED, COAPS_LINES, FLUSHING, BY_OPENSSL):
            if not contestant.program:
                rows.append({"name": contestant.name, "lines": count, "missing": True})
                continue
            directory = arena.directory(contestant, f"lines {count}", on_disk=True)
            lines = directory / "lines"
            lines.write_bytes(b"".join(payload + b"\n" for payload in payloads(count)))
            if contestant is FLUSHING:
                rows.append(fill_queue(arena, directory, lines))
            server = arena.server(f"inboxd {count} {contestant.name}",
                                  *(["--reply", "ok"] if contestant is CONFIRMED else []),
                                  *(["--coap"] if contestant is COAPS_LINES else []))
            rows.append(one_run(arena, contestant, server, directory, lines))
            server.stop()
    return rows


def measure_sizes(arena, runs=5):
    """Bytes and time of a repeat run, by the size of its payload."""
    rows = []
    directory = arena.directory(PLAIN, "sizes")
    with Proxy(arena.servers["plain"].host, arena.servers["plain"].port, seed=1) as proxy:
        for size in (SIZES[0], *SIZES):  # the first makes the handshake
            (directory / "payload").write_bytes(b"x" * size)
            words = OURS.replace("--wait 0",
                                 "--count 1 --confirm --session {dir}/session --file {dir}/payload")
            seen = [traffic(arena.servers["plain"], proxy, PLAIN.command(arena.pki, proxy.port, directory, words=words))
                    for _ in range(runs)]
            # Wall time is the client's own, the proxy's and the server's.
            rows.append({"size": size, "up": seen[-1].up, "seconds": statistics.median(
                one.run.wall for one in seen), "memory": seen[-1].run.memory})
    return rows[1:]
