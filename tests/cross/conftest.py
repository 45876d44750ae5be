"""The fixtures of tests/e2e."""

import importlib.util
import sys
from pathlib import Path

E2E = Path(__file__).resolve().parents[1] / "e2e"
sys.path.insert(0, str(E2E))
spec = importlib.util.spec_from_file_location("e2e_fixtures", E2E / "conftest.py")
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)
globals().update((name, value) for name, value in vars(fixtures).items()
                 if name.startswith(("fixture_", "pytest_")) or name in ("pki", "worker_id"))
