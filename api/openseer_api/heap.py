"""Shorter pauses of the garbage collector: it does not examine objects that live as long as the process.

A full collection examines every object, most of them of libraries: it takes tens of milliseconds in which no call is
answered, or hundreds in a process with a tokenizer.
"""

import gc


def keep() -> None:
    """Excludes all present objects from later collections; called after the start and after a large load."""
    gc.collect()
    gc.freeze()
