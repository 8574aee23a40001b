"""Every error that openseer raises: one tree, split by which boundary failed and whether a repeat may help."""

from collections.abc import Sequence
from typing import Any


class OpenseerError(Exception):
    """Base of all errors that a person reads; `str(error)` says what, where and what to do.

    `retryable` tells a caller whether the same call may succeed later without anyone changing anything.
    `exit_code` is what a command ends with (documented in docs/cli.md).
    """

    retryable = False
    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: Python would call the kind with its message alone, which most do not take."""
        return _revived, (type(self), self.args), self.__dict__


def _revived(kind: type[OpenseerError], args: tuple[Any, ...]) -> OpenseerError:
    error = kind.__new__(kind)
    error.args = args
    return error


class InputError(OpenseerError):
    """What the user gave is wrong; nothing was started."""

    exit_code = 2


class JsonError(InputError):
    """JSON that cannot be taken as it was meant; one line, without the name of where it came from."""


class ProblemsError(InputError):
    """Several problems of one document, each a line. `hidden`: how many more there are, which one last line says."""

    def __init__(self, source: str, problems: Sequence[str], hidden: int = 0) -> None:
        self.source = source
        total = len(problems) + hidden
        self.problems = (*problems, f"… and {hidden:,} more") if hidden else tuple(problems)
        count = f"{total:,} problem{'s' if total != 1 else ''}"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  {problem}" for problem in self.problems))


class ManifestError(ProblemsError):
    """A RolloutJob that breaks its contract."""


class PromptsError(ProblemsError):
    """A prompt source that cannot be read or holds wrong lines."""


class NameTakenError(InputError):
    """The batch has a group of that name with other content."""

    def __init__(self, batch: int, name: str) -> None:
        self.name = name
        super().__init__(
            f"group {name}: batch {batch} has a group of that name with other content; give this one another name"
        )


class ModelError(InputError):
    """The model, its tokenizer or the engine's arguments cannot be used."""


class OutputError(OpenseerError):
    """Results cannot be written (permissions, space)."""

    exit_code = 3


class StoreError(OpenseerError):
    """The store refused or broke."""

    exit_code = 4


class StoreUnavailableError(StoreError):
    """The store cannot be reached just now."""

    retryable = True


class StoreLoadingError(StoreUnavailableError):
    """The store reads its data from disk; it answers once it has."""


class StoreForbiddenError(StoreUnavailableError):
    """Whoever asked may not use the store: a right or a name on a list is missing. `reason`: in one CamelCase word."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


class DriverFencedError(StoreError):
    """Another driver has taken over this job; this one must stop."""


class BatchClosedError(OpenseerError):
    """The batch takes no more groups: it is sealed, or its data are gone."""

    def __init__(self, batch: int | str) -> None:
        super().__init__(f"batch {batch} takes no more groups: it is sealed or has ended; open another one")


class RequestStateError(OpenseerError):
    """The request is not in the state that the call is for."""


class FreedError(RequestStateError):
    """The request's results were acknowledged and its batch is sealed: its data are gone."""


class PublishRefusedError(OpenseerError):
    """Weights cannot be published now, or not under this name."""


class FleetSpecMovedError(OpenseerError):
    """The fleet spec from which an action follows has been replaced meanwhile; the action was not taken."""


class JobFailedError(OpenseerError):
    """The job cannot be finished: a worker died too often, a deadline passed."""

    exit_code = 5


class ResponsesFailedError(OpenseerError):
    """The job is complete, and some of its responses have failed; the message says how many, and why."""

    exit_code = 9


class AuditError(OpenseerError):
    """A run breaks one of its guarantees."""

    exit_code = 6


class EngineError(OpenseerError):
    """The engine broke while it ran."""

    exit_code = 7


class LoadError(OpenseerError):
    """Weights could not be fetched or loaded; the engine itself goes on."""


class GpuSickError(OpenseerError):
    """A GPU should not be worked with any longer; what ran on it was handed back."""

    exit_code = 8
