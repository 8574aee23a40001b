"""Connects a command to the API: address and token from options or environment, errors in one line."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from openseer_core.errors import InputError, OpenseerError, StoreError
from openseer_core.json_words import first_problem
from openseer_local.bearer import check_token

if TYPE_CHECKING:
    from openseer_client import ApiError, Client

PATIENCE_SECONDS = 10.0
"""Time for which a command with one call retries an unreachable API, in seconds."""
LONG_PATIENCE_SECONDS = 180.0
"""The same time for a command that waits, in seconds: longer than a restart of the API."""
NO_ANSWER = "No answer"
"""Title of the problem that the client itself reports if no server answers."""

Url = Annotated[
    str | None, typer.Option("--url", envvar="OPENSEER_URL", help="Address of the API, or of a job behind a gateway.")
]
Token = Annotated[str | None, typer.Option("--token", envvar="OPENSEER_TOKEN", help="Bearer token.", show_envvar=True)]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", envvar="OPENSEER_TOKEN_FILE", help="File with the token.")
]


class RefusedError(OpenseerError):
    """The API refused a call, failed or was unreachable.

    `exit_code`: 2 for wrong input, 5 for a failed weights transaction or change of the fleet, else 4.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def connected(
    url: str | None, token: str | None, token_file: Path | None, *, patience: float = PATIENCE_SECONDS
) -> Generator["Client"]:
    """Yields a client for one command. Raises RefusedError for errors of the API, InputError for wrong options."""
    from openseer_client import ApiError, Client, FleetError, Limits, WeightsError  # noqa: PLC0415 - see main

    if not url:
        raise InputError("--url: none given, and OPENSEER_URL is not set; `openseer serve` prints its address")
    limits = Limits(unreachable=patience)  # like a trainer, a command waits while the queue is full
    # A token on the command line takes precedence over a token file in the environment.
    given = check_token(token, "--token") if token else None
    with Client(url, token=given, token_file=None if given else token_file, limits=limits) as client:
        try:
            yield client
        except ValidationError as error:  # of the command line's values; the client handles invalid answers
            raise InputError(first_problem(error)) from error
        except ApiError as error:
            raise RefusedError(_one_line(error), _code(error)) from error
        except (WeightsError, FleetError) as error:
            raise RefusedError(str(error), 5) from error


def _one_line(error: "ApiError") -> str:
    """Returns the call, the problem in the API's reply, and advice on options of the command line."""
    problem = error.problem
    detail = " ".join(problem.detail.split()) or problem.title
    if problem.title == NO_ANSWER:
        return f"no answer from the API: {detail}; is it running, and --url its address?"
    advice = "; give --token, --token-file or their variables" if problem.status == 401 else ""
    return f"{error.call}: {problem.status} {problem.title}: {detail}{advice}"


def _code(error: "ApiError") -> int:
    """Exit code 2 if the request is wrong, 4 if the API is unreachable, busy or fails."""
    status = error.problem.status
    return InputError.exit_code if 400 <= status < 500 and status != 429 else StoreError.exit_code
