"""All errors that openseer raises, as one tree of classes: by the failed part, and by whether a retry may help."""

from collections.abc import Sequence
from typing import Any


class OpenseerError(Exception):
    """Base of all errors for users; `str(error)` states the error, its place and the remedy.

    `retryable`: the same call may succeed later without any other change.
    `exit_code`: exit code of a command (documented in docs/cli.md).
    """

    retryable = False
    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles arguments and state. By default Python would call the class with the message alone."""
        return _revived, (type(self), self.args), self.__dict__


def _revived(kind: type[OpenseerError], args: tuple[Any, ...]) -> OpenseerError:
    error = kind.__new__(kind)
    error.args = args
    return error


class InputError(OpenseerError):
    """The user's input is wrong; nothing was started."""

    exit_code = 2


class JsonError(InputError):
    """JSON is refused. The message is one line and does not name the source."""


class ProblemsError(InputError):
    """Several errors of one document, one per line. `hidden`: number of further errors, stated in the last line."""

    def __init__(self, source: str, problems: Sequence[str], hidden: int = 0) -> None:
        self.source = source
        total = len(problems) + hidden
        self.problems = (*problems, f"… and {hidden:,} more") if hidden else tuple(problems)
        count = f"{total:,} problem{'s' if total != 1 else ''}"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  {problem}" for problem in self.problems))


class ManifestError(ProblemsError):
    """A RolloutJob with errors."""


class PromptsError(ProblemsError):
    """A prompt source that cannot be read, or has lines with errors."""


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
    """The store refused a call or failed."""

    exit_code = 4


class StoreUnavailableError(StoreError):
    """The store cannot be reached at the moment."""

    retryable = True


class StoreLoadingError(StoreUnavailableError):
    """The store is loading its data from disk, and answers only afterwards."""


class StoreForbiddenError(StoreUnavailableError):
    """openseer may not use the store: a permission, or the host's entry in a list of allowed ones, is missing.

    `reason`: one CamelCase word, for a condition of the job.
    """

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


class DriverFencedError(StoreError):
    """Another driver has taken over this job; this one must stop."""


class BatchClosedError(OpenseerError):
    """The batch takes no more groups: it is sealed, or its data are deleted."""

    def __init__(self, batch: int | str) -> None:
        super().__init__(f"batch {batch} takes no more groups: it is sealed or has ended; open another one")


class RequestStateError(OpenseerError):
    """The request is not in a state that allows the call."""


class FreedError(RequestStateError):
    """The request's results were acknowledged and its batch is sealed: its data are deleted."""


class PublishRefusedError(OpenseerError):
    """Weights cannot be published now, or not under this name."""


class FleetSpecMovedError(OpenseerError):
    """The fleet spec that an action was derived from has been replaced; the action was not carried out."""


class JobFailedError(OpenseerError):
    """The job cannot be finished, for example because a worker died too often or a deadline passed."""

    exit_code = 5


class ResponsesFailedError(OpenseerError):
    """The job is complete, but some responses have failed; the message states their number and the reasons."""

    exit_code = 9


class AuditError(OpenseerError):
    """A run violates one of its guarantees."""

    exit_code = 6


class EngineError(OpenseerError):
    """The engine failed while it ran."""

    exit_code = 7


class LoadError(OpenseerError):
    """Weights could not be fetched or loaded; the engine continues to run."""


class GpuSickError(OpenseerError):
    """A GPU must not be used any longer; its requests were given back."""

    exit_code = 8
