"""The garbage collector's pauses: what a process keeps for as long as it lives is looked at once, not again and again.

A whole collection looks at every object, most of them the libraries' own: tens of milliseconds in which no call is
answered, or hundreds beside a tokenizer.
"""

import gc


def keep() -> None:
    """Sets apart all objects that there are now: for a process that has started, or has loaded something large."""
    gc.collect()
    gc.freeze()
