"""Shared settings of all tests: hypothesis profiles, and the lanes in which tests run."""

import os

# Set before torch is imported: engines within a test's process have one thread, and a library that was loaded with
# more threads for an earlier test would break them.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Machines that run tests are shared, so the time of one example means nothing. Failures must be reproducible.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("house")


LONGEST_FIRST = ("cluster", "e2e", "worker", "api", "operator", "client", "chaos", "page", "store")
"""Folders of tests/ that run first, in this order; the other tests are shorter and fill the end of both lanes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts tests by folder; the order within a folder stays, because its own conftest.py may have chosen it."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    top = item.nodeid.split("/")[1]
    return LONGEST_FIRST.index(top) if top in LONGEST_FIRST else len(LONGEST_FIRST)


class Lanes(LoadScopeScheduling):
    """Two lanes for `-n 2`: one begins with the tests in a cluster, which mostly wait, the other with those that
    compute. A free lane takes the next whole folder, so that its tests share their fixtures.

    Within a lane one test runs at a time, as it does without lanes. A third lane was measured and is slower: two cores
    are fully used, and engines that wait for one another keep them busy.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0].rpartition("/")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Lanes:
    """Called by pytest-xdist if there is more than one process."""
    config.option.loadscopereorder = False  # an order by the number of tests would not begin with the longest
    return Lanes(config, log)
