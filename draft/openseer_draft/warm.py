"""Compiles all functions of a step, or loads them from the cache: `python -m openseer_draft.warm`.

The first time on a machine it takes about 14 s of one core, afterwards a third of a second.
"""

import numpy as np

from openseer_draft.drafter import Drafter


def warm_up() -> None:
    """Runs every compiled function once, on two tokens."""
    drafter = Drafter(slots=1, max_tokens=1, memory_bytes=2**16)
    text = np.array([[1, 2]], np.int32)
    none, two = np.zeros(1, np.int32), np.full(1, 2, np.int32)
    drafter.append("group", 0, 0, b"\0\0\0\0")
    slot = drafter.open("group", 1, text[0, :1], 1)
    drafter.step(none + slot, text, none, two)
    drafter.costs.learn(1, 1, drafter.costs.seconds(1, 1))


if __name__ == "__main__":
    warm_up()
