"""What holds for every test."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

from tests.parallel import Scheduling, give_way, turn

# A busy machine is no failure: tests check no times, the benchmark does.
settings.register_profile(
    "ratchet", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("ratchet")


# Thousands of tests are collected by every worker, and nothing of them is ever garbage: the
# collector has nothing to look for meanwhile, and need not look at them afterwards.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=turn)


def pytest_runtest_setup(item: pytest.Item) -> None:
    give_way(item)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling | None:
    """Give the tests to the workers by the groups of tests/parallel.py (`--dist loadgroup`)."""
    if config.getoption("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False  # the order is that of `turn`
    return Scheduling(config, log)
