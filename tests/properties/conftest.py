"""Laws that hold for any input; hypothesis looks for one that breaks them.

The same examples come every time, so that the suite is reproducible. To look further, with other
examples at each call:

    python3 run.py test tests/properties --hypothesis-profile search
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

# A test's files are overwritten from example to example: one folder per test is enough.
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
# "explain" tries a failing example under a tracer, for minutes, and prints large arrays.
COMMON = {
    "deadline": None,
    "suppress_health_check": QUIET,
    "phases": [phase for phase in Phase if phase != Phase.explain],
}

settings.register_profile("suite", max_examples=30, derandomize=True, **COMMON)
settings.register_profile("search", max_examples=1000, **COMMON)


def pytest_configure(config):
    settings.load_profile(config.getoption("--hypothesis-profile") or "suite")
