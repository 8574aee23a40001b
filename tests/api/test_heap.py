"""Long-lived objects of a process are excluded from garbage collection."""

import gc

from openseer_api import heap


def test_frozen_objects_are_excluded_from_collection() -> None:
    kept = [[number] for number in range(1000)]
    try:
        heap.keep()
        assert gc.get_freeze_count() > len(kept)
        assert not any(found is kept for found in gc.get_objects())
    finally:
        gc.unfreeze()
