"""What is wrong with a source of many lines: the first problems are kept, all are counted."""

from openseer_core.errors import PromptsError

MOST_SHOWN = 20
"""Problems of one source that a person is shown."""


class Problems:
    """The problems of a prompt source, whose name begins the message."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._count = 0
        self._shown: list[str] = []

    def add(self, problem: str, place: str = "") -> None:
        """One more problem, a line. `place`: of the row that has it."""
        self._count += 1
        if len(self._shown) < MOST_SHOWN:
            self._shown.append(f"{place}: {problem}" if place else problem)

    def require_none(self) -> None:
        """Raises PromptsError when there is a problem."""
        if self._count:
            raise PromptsError(self.source, self._shown, self._count - len(self._shown))
