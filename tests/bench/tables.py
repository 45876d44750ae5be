"""The tables, as text for a terminal or as Markdown."""

import sys

MISSING = "not installed"


def progress(what):
    """For whoever waits."""
    if sys.stderr.isatty():
        print(f"measuring: {what}", file=sys.stderr)


def _table(heads, rows, markdown):
    rows = [[str(cell) for cell in row] for row in rows]
    if markdown:
        lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[column]) for line in [heads, *rows]) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                               for column, (cell, width) in enumerate(zip(line, widths))).rstrip()
                     for line in [heads, ["-" * width for width in widths], *rows])


def _row(name, cells, missing, width):
    return [name, *([MISSING] + [""] * (width - 2) if missing else cells)]


def _ms(seconds):
    return "" if seconds is None else f"{seconds * 1000:.1f}"


def _spread(figures):
    return f"{_ms(figures['median'])} ({_ms(figures['low'])}-{_ms(figures['high'])})"


def _costs(report, markdown):
    heads = ["", "up: datagrams, bytes", "down", "largest up", "instructions", "wall ms (10-90 %)",
             "CPU ms (10-90 %)", "memory KiB", "program KiB", "libraries KiB", "downlink to exit ms"]
    rows = []
    for row in report["costs"]:
        missing = row["missing"]
        rows.append(_row(row["name"], [] if missing else [
            f"{row['up'][0]}, {row['up'][1]}", f"{row['down'][0]}, {row['down'][1]}", row["largest_up"],
            f"{row['instructions'] / 1e6:.2f} M" if row["instructions"] else "not counted",
            "does not end" if row["killed"] else _spread(row["wall"]), _spread(row["cpu"]),
            f"{row['memory']:.0f}", f"{row['program'] / 1024:.0f}", f"{row['libraries'] / 1024:.0f}",
            _ms(row["after_downlink"])], missing, len(heads)))
    return _table(heads, rows, markdown)


def _dead(report, markdown):
    heads = ["nobody answers", "gives up after s", "status"]
    rows = []
    for name, end in report["dead"].items():
        killed = end.get("status") is None
        rows.append(_row(name, [] if end.get("missing") else [
            f"> {report['cap']}" if killed else f"{end['seconds']:.1f}", "killed" if killed else end["status"]],
            end.get("missing"), len(heads)))
    return _table(heads, rows, markdown)


def _loss(report, markdown):
    heads = ["under loss", "each way", "runs", "delivered", "downlink printed", "acted on twice",
             "silently lost", "killed", "median s"]
    rows = []
    for row in report["loss"]:
        missing = row.get("missing")
        rows.append(_row(row["name"], [] if missing else [
            f"{row['loss']:.0%}", row["runs"], row["delivered"], row["printed"], row["twice"],
            row["silently_lost"], row["killed"], f"{row['seconds']:.2f}"], missing, len(heads)))
    return _table(heads, rows, markdown)


def _day(report, markdown):
    heads = ["a day of 144 runs", "first: datagrams, bytes up", "each other", "computed bytes up", "run: datagrams up",
             "bytes up", "bytes down"]
    rows = []
    for row in report["day"]:
        real = row.get("day")
        rows.append(_row(row["name"], [] if row.get("missing") else [
            f"{row['first'][0]}, {row['first'][1]}", f"{row['other'][0]}, {row['other'][1]}", row["computed"],
            *([real["up"][0], real["up"][1], real["down"][1]] if real else ["not run", "", ""])],
            row.get("missing"), len(heads)))
    return _table(heads, rows, markdown)


def _delay(report, markdown):
    heads = ["a round trip of 1.2 s, nothing lost", "datagrams up, down", "without delay", "bytes up",
             "downlink printed", "s", "status"]
    rows = [_row(row["name"], [] if row.get("missing") else [
        f"{row['far_up'][0]}, {row['far_down'][0]}", f"{row['near_up'][0]}, {row['near_down'][0]}",
        row["far_up"][1], "yes" if row["printed"] else "no", f"{row['seconds']:.1f}",
        "killed" if row["killed"] else row["status"]], row.get("missing"), len(heads))
        for row in report["delay"]]
    return _table(heads, rows, markdown)


def _lines(report, markdown):
    heads = ["fed lines", "lines", "of them arrived", "in messages", "s", "lines a second", "CPU ms",
             "memory KiB", "status"]
    rows = [_row(row["name"], [] if row.get("missing") else [
        row["lines"], row["arrived"], row["messages"], f"{row['seconds']:.3f}",
        f"{row['lines'] / row['seconds']:.0f}", _ms(row["cpu"]), row["memory"], row["status"]],
        row.get("missing"), len(heads)) for row in report["lines"]]
    return _table(heads, rows, markdown)


def _sizes(report, markdown):
    rows = [[f"{row['size']} bytes", row["up"][0], row["up"][1], row["up"][1] - row["size"],
             _ms(row["seconds"]), row["memory"]] for row in report["sizes"]]
    return _table(["payload of a repeat run", "datagrams up", "bytes up", "more than payload", "wall ms",
                   "memory KiB"], rows, markdown)


def _flags(report, markdown):
    fence = ["```"] if markdown else []
    return "\n".join(["The commands:", "", *fence, *(command + (f"   # {why}" if why else "")
                                                     for _, command, why in report["flags"]), *fence])


def render(report, markdown):
    """The whole report."""
    head = (f"{report['date']}, {report['version']}, {report['machine']}; "
            f"{report['runs']} runs for each time, killed after {report['limit']} s under loss")
    parts = [head, *([] if report["valgrind"] else [f"valgrind: {MISSING}, so instructions are not counted"])]
    for key, table in (("costs", _costs), ("day", _day), ("delay", _delay), ("dead", _dead), ("loss", _loss),
                       ("lines", _lines), ("sizes", _sizes)):
        if key in report:
            parts.append(table(report, markdown))
    return "\n\n".join([*parts, _flags(report, markdown)])
