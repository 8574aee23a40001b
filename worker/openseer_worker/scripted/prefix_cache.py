"""The prefix cache of the scripted engine: how many blocks of which response or prompt it still holds."""


class PrefixCache:
    """Blocks of earlier requests that nobody has taken since, the longest unused first to go."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], int] = {}
        self._sum = 0

    def blocks(self, key: tuple[str, int]) -> int:
        return self._blocks.get(key, 0)

    def keep(self, key: tuple[str, int], count: int) -> None:
        """Holds `count` blocks of a response, or of the prompt that a group shares, as the newest."""
        known = self._blocks.pop(key, 0)
        self._blocks[key] = max(count, known)
        self._sum += self._blocks[key] - known

    def shrink_to(self, room: int) -> None:
        while self._sum > room and self._blocks:
            self._sum -= self._blocks.pop(next(iter(self._blocks)))
