"""Sampling parameters as JSON with the manifest's names, as they are stored with a group."""

from functools import lru_cache

from openseer_core.manifest.job import Sampling

CACHED = 256
"""Size of the cache of parsed parameter sets; a batch usually has one."""


@lru_cache(maxsize=CACHED)
def parse_sampling(text: str) -> Sampling:
    """JSON → Sampling. Raises pydantic's ValidationError for text that `dump_sampling` never wrote."""
    return Sampling.model_validate_json(text)


def dump_sampling(sampling: Sampling) -> str:
    """Sampling → the JSON that `parse_sampling` reads."""
    return sampling.model_dump_json(by_alias=True, exclude_defaults=True)
