"""A day of cron: a run every ten minutes. Computed from a first run and one that follows it, and really run,
without the ten minutes. A day has one full handshake, since a session is good for a day after that."""

from concurrent.futures import ThreadPoolExecutor

from contestants import CONTESTANTS
from measure import KILLED, traffic
# pylint: disable=wrong-import-order
from proxy import Proxy

RUNS = 144

# Those that cost nothing more where a session is kept are their own first runs.
ENTRANTS = [one for one in CONTESTANTS if one.shown and (one.seed or not one.ours)]


def measure_one(arena, contestant, runs):
    """The first run and those after it, through one proxy. With fewer than all the day is only computed."""
    if not contestant.program:
        return {"name": contestant.name, "missing": True}
    server, directory = arena.server_for(contestant), arena.directory(contestant, "day")
    with Proxy(server.host, server.port, seed=1, keep=False) as proxy:
        seen = []
        for number in range(runs):
            words = contestant.seed if contestant.seed and number == 0 else contestant.words
            command = contestant.command(arena.pki, proxy.port, directory, words=words)
            seen.append(traffic(server, proxy, command, **contestant.feeding(), limit=8))
            assert contestant.answer in seen[-1].run.stdout, f"{contestant.name}: {seen[-1]}"
            if seen[-1].run.status == KILLED:  # it does not end by itself: as few as possible
                runs = 2
            if number + 1 == runs:
                break
    others = seen[1:]
    least = min((one.up for one in others), key=lambda up: up[1])
    row = {"name": contestant.name, "first": seen[0].up, "other": least,
           "computed": seen[0].up[1] + (RUNS - 1) * least[1]}
    if runs == RUNS:
        row["day"] = {way: [sum(getattr(one, way)[part] for one in seen) for part in (0, 1)]
                      for way in ("up", "down")}
    return row


def measure(arena, quick):
    """The table. A quick one runs our days alone. Those of others take their time, so they go side by side."""
    with ThreadPoolExecutor(len(ENTRANTS)) as pool:
        return list(pool.map(lambda one: measure_one(arena, one, RUNS if one.ours or not quick else 2),
                             ENTRANTS))
