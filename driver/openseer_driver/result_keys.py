"""Which requests have a result: a bit for each, so that a million groups take little memory."""

from collections.abc import Iterable

from openseer_driver.run_lines import ResultKey


class ResultKeys:
    """A set of keys; of a group its name and one number are kept."""

    def __init__(self, keys: Iterable[ResultKey] = ()) -> None:
        self._masks: dict[int, dict[str, int]] = {}
        self._count = 0
        self.update(keys)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: ResultKey) -> bool:
        batch, group, index = key
        return bool(self._masks.get(batch, {}).get(group, 0) >> index & 1)

    def update(self, keys: Iterable[ResultKey]) -> None:
        """Adds keys."""
        for key in keys:
            if key not in self:
                self._set(key, present=True)

    def remove(self, keys: Iterable[ResultKey]) -> None:
        """Takes keys out that are in it."""
        for key in keys:
            if key in self:
                self._set(key, present=False)

    def _set(self, key: ResultKey, *, present: bool) -> None:
        batch, group, index = key
        masks = self._masks.setdefault(batch, {})
        masks[group] = masks.get(group, 0) ^ (1 << index)
        self._count += 1 if present else -1
