"""arctic-inference, which the product's drafts are measured against; it is none of the project's dependencies.

It carries no types and may be missing, so its classes are looked up when they are needed.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

ARCTIC_MISSING = (
    "arctic-inference is not installed, so it is left out; docs/benchmarks.md says how to install it beside vLLM"
)


def has_arctic() -> bool:
    """Whether it can be measured here."""
    return find_spec("arctic_inference") is not None


def suffix_decoding_cache() -> Any:
    """Its class that holds one tree of all responses and one of each live request."""
    return import_module("arctic_inference.suffix_decoding").SuffixDecodingCache


def suffix_tree() -> Any:
    """Its class of a single tree."""
    return import_module("arctic_inference.suffix_decoding._C").SuffixTree
