"""What all tests share: how hypothesis searches, and the lanes they run in."""

import os

# Before anything imports torch: engines within a test's process have one thread, and a library that was loaded with
# more for an earlier test would break them.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Machines that run tests are shared: how long one example takes says nothing, and what is found must be found again.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("house")


class Lanes(LoadScopeScheduling):
    """Two lanes for `-n 2`: tests in a cluster mostly wait, the others mostly compute. The tests of workers,
    the last of those, go to the lane that is free first.

    Within a lane one test runs at a time, as it does without lanes. A third lane was measured and is slower: two cores
    are full, and engines that wait for one another keep them busy.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((scope for scope in ("cluster", "worker") if nodeid.startswith(f"tests/{scope}/")), "machine")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Lanes:
    """Asked by pytest-xdist, wherever there is more than one process."""
    config.option.loadscopereorder = False  # in their order: by their number workers' tests would begin first
    return Lanes(config, log)
