"""What all tests share: how hypothesis searches, and the two lanes they run in."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Machines that run tests are shared: how long one example takes says nothing, and what is found must be found again.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("house")

CLUSTER = Path(__file__).parent / "cluster"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two lanes for `-n 2 --dist loadgroup`: tests in a cluster mostly wait, the others mostly compute. Within a lane
    one test runs at a time, as it does without lanes."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("cluster" if CLUSTER in item.path.parents else "machine"))
