"""Sampling parameters as they travel with a group: JSON in the manifest's own words."""

from functools import lru_cache

from openseer_core.manifest.job import Sampling

CACHED = 256
"""Different parameter sets kept parsed; a batch usually has one."""


@lru_cache(maxsize=CACHED)
def parse_sampling(text: str) -> Sampling:
    """JSON → Sampling. Raises pydantic's ValidationError for what was never accepted."""
    return Sampling.model_validate_json(text)


def dump_sampling(sampling: Sampling) -> str:
    """Sampling → the JSON that `parse_sampling` reads."""
    return sampling.model_dump_json(by_alias=True, exclude_defaults=True)
