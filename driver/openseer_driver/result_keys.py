"""The set of requests that have a result, with one bit per request."""

from collections.abc import Iterable

from openseer_driver.run_lines import ResultKey


class ResultKeys:
    """A set of result keys; stores one name and one bit mask per group."""

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
        """Removes keys; absent keys are ignored."""
        for key in keys:
            if key in self:
                self._set(key, present=False)

    def _set(self, key: ResultKey, *, present: bool) -> None:
        batch, group, index = key
        masks = self._masks.setdefault(batch, {})
        masks[group] = masks.get(group, 0) ^ (1 << index)
        self._count += 1 if present else -1
