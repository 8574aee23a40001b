"""Shortens the pauses of the garbage collector: excludes objects that exist as long as the process.

A full collection examines every object; most belong to libraries. It blocks all calls for tens of milliseconds, or for
hundreds in a process with a tokenizer.
"""

import gc


def keep() -> None:
    """Excludes all present objects from later collections.
    Called after the start, and after the load of a tokenizer."""
    gc.collect()
    gc.freeze()
