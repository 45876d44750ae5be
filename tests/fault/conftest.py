"""Faults: the fixtures of the end-to-end tests, and what the fault tests count."""

import collections
import importlib.util
import sys
from pathlib import Path

import pytest

E2E = Path(__file__).resolve().parents[1] / "e2e"
sys.path.insert(0, str(E2E))

_SPEC = importlib.util.spec_from_file_location("e2e_fixtures", E2E / "conftest.py")
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)
globals().update((name, value) for name, value in vars(_FIXTURES).items() if not name.startswith("_"))

from bench import Bench  # noqa: E402  pylint: disable=wrong-import-position


@pytest.fixture(scope="session")
def bench(pki, tmp_path_factory):
    """A place for thousands of runs, and a server for all of them."""
    with Bench(pki, tmp_path_factory.mktemp("bench")) as made:
        yield made


@pytest.fixture(scope="session")
def coaps_bench(pki, tmp_path_factory):
    """The same, of a server that speaks CoAP."""
    with Bench(pki, tmp_path_factory.mktemp("bench"), coaps=True) as made:
        yield made


@pytest.fixture(name="count")
def fixture_count(record_property):
    """count(what=number, ...) adds to the figures at the end of the run."""
    def count(**figures):
        for what, number in figures.items():
            record_property("figure " + what, number)
    return count


def pytest_terminal_summary(terminalreporter):
    """The figures of all workers, in words and sums."""
    sums, words = collections.Counter(), {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "call":
                continue
            for name, value in report.user_properties:
                if isinstance(value, str):
                    words[name] = value
                else:
                    sums[name] += value
    if sums or words:
        terminalreporter.section("figures")
    for name, value in [*sums.items(), *words.items()]:
        terminalreporter.write_line(f"{name.removeprefix('figure ').replace('_', ' ')}: {value}")
