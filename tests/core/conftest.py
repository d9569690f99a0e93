"""Hypothesis settings of the core: the same cases each time, and no test fails because a machine is slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "core",
    max_examples=120,
    deadline=None,
    derandomize=True,
    # `make mutants` runs a test more than once in one process, which hypothesis takes for a mistake.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("core")
