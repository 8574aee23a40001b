"""Collects the errors of a source with many lines: counts all, and keeps the first MOST_SHOWN."""

from openseer_core.errors import PromptsError

MOST_SHOWN = 20
"""Limit of errors of one source in a message."""


class Problems:
    """The errors of a prompt source. `source`: its name, with which the message begins."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._count = 0
        self._shown: list[str] = []

    def add(self, problem: str, place: str = "") -> None:
        """Adds an error of one line. `place`: of its row, for the message."""
        self._count += 1
        if len(self._shown) < MOST_SHOWN:
            self._shown.append(f"{place}: {problem}" if place else problem)

    def require_none(self) -> None:
        """Raises PromptsError if there is an error."""
        if self._count:
            raise PromptsError(self.source, self._shown, self._count - len(self._shown))
