"""Sampling parameters as JSON with the manifest's names; the store keeps them with each group."""

from functools import lru_cache

from openseer_core.manifest.job import Sampling

CACHED = 256
"""Limit of cached parameter sets; a batch usually has one set."""


@lru_cache(maxsize=CACHED)
def parse_sampling(text: str) -> Sampling:
    """JSON → Sampling. Raises pydantic's ValidationError for text that `dump_sampling` cannot have written."""
    return Sampling.model_validate_json(text)


def dump_sampling(sampling: Sampling) -> str:
    """Sampling → JSON for `parse_sampling`, without default values."""
    return sampling.model_dump_json(by_alias=True, exclude_defaults=True)
