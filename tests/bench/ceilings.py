#!/usr/bin/env python3
"""Fails where a delivery has come to cost more than ceilings.json says: datagrams and bytes each way, and
instructions, of a first, a resumed and a repeat run, plain and by CoAP. The ceilings are per version of mbed TLS,
and for the compiler's flags as they are in the Makefile. Above them are limits that no recording moves.

An ECDSA signature is 70 to 72 bytes, rarely less, and two certificates and two messages hold one each way: so
many bytes are given freely, to runs that hold any. Datagrams are given none, instructions 3 %."""

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import Arena, measure_instructions, measure_traffic
from contestants import (COAPS_FIRST_ROW, COAPS_REPEAT_ROW, COAPS_RESUMED_ROW, COAPS_SILENT_ROW, DOWNLINK,
                         FIRST_ROW, REPEAT_ROW, RESUMED_ROW)
# pylint: disable=wrong-import-order
from client import PROGRAM

FILE = Path(__file__).with_name("ceilings.json")
ROWS = {"first": FIRST_ROW, "resumed": RESUMED_ROW, "repeat": REPEAT_ROW, "coaps first": COAPS_FIRST_ROW,
        "coaps resumed": COAPS_RESUMED_ROW, "coaps repeat": COAPS_REPEAT_ROW,
        "coaps repeat, no body": COAPS_SILENT_ROW}
SIGNATURE_BYTES = 8
INSTRUCTIONS = 1.03


def mbedtls_version():
    """The two numbers that matter, like 2.28."""
    text = subprocess.run([PROGRAM, "--version"], check=True, capture_output=True, text=True).stdout
    return re.search(r"[Mm]bed TLS (\d+\.\d+)", text)[1]


def measure():
    """What each kind of run costs now."""
    costs = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        arena = Arena(scratch, stack)
        for name, row in ROWS.items():
            counted = measure_traffic(arena, row)
            costs[name] = {"datagrams up": counted["up"][0], "bytes up": counted["up"][1],
                           "datagrams down": counted["down"][0], "bytes down": counted["down"][1],
                           "instructions": measure_instructions(arena, row, runs=3)}
    return costs


def allowed(run, what, ceiling):
    """The ceiling with what is given freely."""
    if what == "instructions":
        return round(ceiling * INSTRUCTIONS)
    return ceiling + (SIGNATURE_BYTES if "first" in run and what.startswith("bytes") else 0)


def limits_of(costs, version):
    """What is promised of each kind of run, whatever was recorded."""
    plain = costs["repeat"]
    # Release 3.6 gives its records a connection id, and pads them to a multiple of 16 bytes
    # (MBEDTLS_SSL_CID_PADDING_GRANULARITY); and its libraries take the loader 0.15 million instructions more.
    old = version == "2.28"
    padding, resumed, repeat = (0, 500, 1_700_000) if old else (15, 550, 1_750_000)
    one_each_way = {"datagrams up": 1, "datagrams down": 1}
    # The header, the token, Uri-Path "s" with its head, the payload marker; nothing of these is in a plain one.
    coap = {**one_each_way, "bytes up": plain["bytes up"] + 4 + 2 + 2 + 1 + padding,
            "instructions": plain["instructions"] * 105 // 100}
    return {"first": {"datagrams up": 5, "bytes up": 1550},
            "resumed": {"bytes up": resumed, "instructions": 4_000_000},
            "repeat": {**one_each_way, "instructions": repeat},
            "coaps first": {"datagrams up": 5, "bytes up": 1550},
            "coaps resumed": {"instructions": 4_000_000},
            "coaps repeat": coap,
            # The header and the token, instead of the downlink.
            "coaps repeat, no body": {**coap, "bytes down": plain["bytes down"] - len(DOWNLINK) + 4 + 2}}


def compare(costs, ceilings, limits):
    """Prints all, and returns how many are above."""
    above = 0
    for run, cost in costs.items():
        for what, now in cost.items():
            ceiling, limit = ceilings[run][what], limits[run].get(what)
            most = allowed(run, what, ceiling)
            most = min(most, limit) if limit else most
            above += now > most
            print(f"{run:21} {what:14} {now:9}  ceiling {ceiling:9}{f'  limit {limit:8}' if limit else ''}"
                  f"{f'  ABOVE {most}' if now > most else ''}")
    return above


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--record", action="store_true", help="make today's figures the ceilings")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("ceilings.py: valgrind is needed, to count instructions")
    version, recorded, costs = mbedtls_version(), json.loads(FILE.read_text(encoding="ascii")), measure()
    if options.record:
        recorded[version] = costs
        FILE.write_text(json.dumps(recorded, indent=2) + "\n", encoding="ascii")
    if version not in recorded:
        sys.exit(f"ceilings.py: none recorded for mbed TLS {version}; see --record")
    if above := compare(costs, recorded[version], limits_of(costs, version)):
        sys.exit(f"ceilings.py: {above} above the ceiling; if that is worth it, --record and say why")


if __name__ == "__main__":
    main()
