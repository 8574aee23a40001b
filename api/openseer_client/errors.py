"""Errors of the client: a class per kind of response, most with advice."""

from collections.abc import Sequence

from openseer_core.errors import OpenseerError
from openseer_core.wire.problem import Problem
from openseer_core.wire.results import GroupItem, ResultItem
from openseer_core.wire.weights import Transaction


class ApiError(OpenseerError):
    """The API refused a call, or could not be reached. `problem`: the API's description; `call`: method and path."""

    advice = ""

    def __init__(self, problem: Problem, call: str) -> None:
        self.problem = problem
        self.call = call
        lines = [f"{call}: {problem.status} {problem.title}"]
        lines += [problem.detail] if problem.detail and problem.detail != problem.title else []
        lines += [f"  {error}" for error in problem.errors or ()]
        lines += [self.advice] if self.advice else []
        super().__init__("\n".join(lines))


class BadRequestError(ApiError):
    """The request is wrong (400, 405, 406, 415, 422 and any other 4xx without a class of its own)."""

    exit_code = 2


class UnauthorizedError(ApiError):
    """No token, or an invalid one (401)."""

    exit_code = 2
    advice = "Give token=, token_file=, OPENSEER_TOKEN or OPENSEER_TOKEN_FILE a token of this job."


class ForbiddenError(ApiError):
    """The token is valid, but not for this job (403)."""

    exit_code = 2
    advice = "The job's namespace must grant this identity access to the job (docs/kubernetes.md)."


class NotFoundError(ApiError):
    """The batch, group or request does not exist, or its data were acknowledged and deleted (404, 410)."""

    exit_code = 2


class ConflictError(ApiError):
    """The call conflicts with the resource's state, e.g. groups for a sealed batch (409, 412)."""


class TooLargeError(ApiError):
    """The body is larger than the API's limit for one call (413)."""

    exit_code = 2


class BusyError(ApiError):
    """The API was busy for longer than the client's limit `busy` (429)."""

    retryable = True
    advice = "Too much is queued: read results, or submit later."


class UnavailableError(ApiError):
    """The API did not respond within the client's limit `unreachable` (no connection, 502, 503, 504)."""

    retryable = True
    exit_code = 4
    advice = "Is the API running, and OPENSEER_URL its address? Repeat the call: a repeat never has a second effect."


class AnswerError(ApiError):
    """The API failed (500), or this version of the client cannot parse its response."""

    exit_code = 4


class WeightsError(OpenseerError):
    """A weights transaction failed, or did not end in time.
    `transaction`: its last state, with the unconfirmed workers."""

    def __init__(self, transaction: Transaction, why: str) -> None:
        self.transaction = transaction
        waiting = ", ".join(transaction.waiting_for) or "no worker"
        lines = [
            f"weights {transaction.version}: {why} (transaction {transaction.id}, phase {transaction.phase}; "
            f"not confirmed by: {waiting})"
        ]
        lines += [transaction.message] if transaction.message else []
        lines += [
            f"  {worker.worker}: attempt {worker.attempt}, {worker.error}"
            for worker in transaction.workers
            if worker.error and worker.error not in transaction.message
        ]
        if not transaction.adapter:
            lines.append(f"The fleet serves {transaction.previous} until a transaction succeeds.")
        elif transaction.previous:
            lines.append(f"Adapter {transaction.adapter} stays {transaction.previous} until a transaction succeeds.")
        else:
            lines.append(f"No adapter {transaction.adapter} is served until a transaction succeeds.")
        super().__init__("\n".join(lines))


class FleetError(OpenseerError):
    """The GPUs were not released to the trainer, or not acquired back, in time."""


class GroupsLostError(OpenseerError):
    """Groups were not whole after all tries. `ends`: the ends of these groups, with counts of responses by outcome."""

    def __init__(self, ends: Sequence[GroupItem], tries: int) -> None:
        self.ends = tuple(ends)
        lines = [f"{len(self.ends)} groups were not sampled whole in {tries} tries; see `openseer status`"]
        lines += [
            f"  {end.group}: {end.ok} of {end.size} whole, {end.aborted} aborted, {end.infra_failed} lost to failures"
            for end in self.ends[:5]
        ]
        super().__init__("\n".join(lines))


class SubmissionLostError(OpenseerError):
    """The store and the API failed together, and the groups submitted last are lost."""

    def __init__(self, batch: int, found: int, submitted: int) -> None:
        super().__init__(
            f"batch {batch}: found {found} of the {submitted} groups that were submitted; its store and its API "
            "failed together, and the last ones are lost. Submit all groups again (none is queued twice), seal the "
            "batch, and read on"
        )


class RewardError(OpenseerError):
    """A response has no reward. `group`: name of its group; `index`: of the response, None if unknown."""

    def __init__(self, group: str, index: int | None, why: str) -> None:
        self.group, self.index = group, index
        response = f"response {group}/{index}" if index is not None else f"group {group}"
        super().__init__(f"the reward of {response}: {why}")


class StaleResultError(OpenseerError):
    """A response has tokens of another weights version than its batch requires."""

    def __init__(self, item: ResultItem, version: str) -> None:
        self.item = item
        spans = ", ".join(f"{span.version} [{span.start}, {span.end})" for span in item.versions)
        super().__init__(
            f"response {item.group}/{item.index} of batch {item.batch}: needed weights {version}; "
            f"found {item.weights_version}, spans {spans or 'none'}"
        )


_BY_STATUS: dict[int, type[ApiError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: NotFoundError,
    412: ConflictError,
    413: TooLargeError,
    429: BusyError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}


def error_of(problem: Problem, call: str) -> ApiError:
    """Returns the error for a problem, by its status."""
    kind = _BY_STATUS.get(problem.status)
    if kind is None:
        kind = BadRequestError if 400 <= problem.status < 500 else AnswerError
    return kind(problem, call)
