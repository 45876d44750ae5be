"""A long way to the server: a round trip of 1.2 s, as by satellite or NB-IoT, on which nothing is lost. Whoever
sends more datagrams than without the delay has sent some of them twice, for nothing."""

from concurrent.futures import ThreadPoolExecutor

from contestants import COAPS_REPEAT_ROW, CONTESTANTS, OURS, REPEAT_ROW, Contestant
from measure import KILLED, traffic
# pylint: disable=wrong-import-order
from proxy import Proxy

ROUND_TRIP_MS = 1200
PATIENCE = 60  # seconds

# The first of them waits for downlinks as long as it does by default.
ENTRANTS = [Contestant("dtls-send, default --wait", OURS.replace("--count 1 ", "")), REPEAT_ROW, COAPS_REPEAT_ROW,
            *(one for one in CONTESTANTS if one.lossy)]


def run_by(arena, contestant, round_trip_ms):
    """What a run takes; of a repeat run the worst of three, after its first."""
    server = arena.server_for(contestant)
    directory = arena.directory(contestant, f"{round_trip_ms} ms")
    with Proxy(server.host, server.port, seed=1, delay_ms=round_trip_ms / 2) as proxy:
        contestant.prepare(arena.pki, proxy.port, directory)
        command = contestant.command(arena.pki, proxy.port, directory, limit=PATIENCE)
        return max((traffic(server, proxy, command, **contestant.feeding(), limit=PATIENCE)
                    for _ in range(3 if contestant.seed else 1)), key=lambda one: one.up[0] + one.down[0])


def measure_one(arena, contestant):
    """One row."""
    if not contestant.program:
        return {"name": contestant.name, "missing": True}
    near, far = run_by(arena, contestant, 0), run_by(arena, contestant, ROUND_TRIP_MS)
    return {"name": contestant.name, "near_up": near.up, "near_down": near.down, "far_up": far.up,
            "far_down": far.down, "printed": contestant.answer in far.run.stdout, "seconds": far.run.wall,
            "status": far.run.status, "killed": far.run.status == KILLED}


def measure(arena):
    """The table. All of it is waiting, so it is done side by side."""
    with ThreadPoolExecutor(len(ENTRANTS)) as pool:
        return list(pool.map(lambda one: measure_one(arena, one), ENTRANTS))
