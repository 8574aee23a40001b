"""What all tests share: how hypothesis searches."""

from hypothesis import HealthCheck, settings

# Machines that run tests are shared: how long one example takes says nothing, and what is found must be found again.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("house")
