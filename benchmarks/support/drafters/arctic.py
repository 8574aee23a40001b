"""arctic-inference, a peer of the product's drafter; it is not a dependency of the project.

It has no type annotations and may be missing, so its classes are imported when they are needed.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

ARCTIC_MISSING = (
    "arctic-inference is not installed, so it is left out; docs/benchmarks.md says how to install it beside vLLM"
)


def has_arctic() -> bool:
    """Whether arctic-inference is installed."""
    return find_spec("arctic_inference") is not None


def suffix_decoding_cache() -> Any:
    """Its class with one tree of all responses and one tree per live request."""
    return import_module("arctic_inference.suffix_decoding").SuffixDecodingCache


def suffix_tree() -> Any:
    """Its class of a single tree."""
    return import_module("arctic_inference.suffix_decoding._C").SuffixTree
