"""Seeds of moved responses."""

from openseer_worker.request_seeds import derive_seed


def test_a_seed_is_stable_and_fits_63_bits() -> None:
    assert derive_seed(7, "g-1", 3, 128) == derive_seed(7, "g-1", 3, 128) == 7696138362114974435
    assert all(0 <= derive_seed(0, "g", 0, position) < 2**63 for position in range(1000))


def test_no_two_places_share_a_seed() -> None:
    """A response that moves, its siblings, other groups and other jobs: none meets another's noise."""
    seeds = {
        derive_seed(seed, group, index, position)
        for seed in (0, 1)
        for group in ("g", "g1", "1")
        for index in range(12)
        for position in range(0, 2000, 7)
    }
    assert len(seeds) == 2 * 3 * 12 * len(range(0, 2000, 7))
