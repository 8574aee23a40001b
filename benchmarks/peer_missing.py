"""Whether arctic-inference is here, which drafting is measured against; it is none of the project's dependencies."""

from importlib.util import find_spec

ARCTIC_MISSING = (
    "arctic-inference is not installed, so it is left out; docs/benchmarks.md says how to install it beside vLLM"
)


def has_arctic() -> bool:
    """Whether the peer can be measured here."""
    return find_spec("arctic_inference") is not None
