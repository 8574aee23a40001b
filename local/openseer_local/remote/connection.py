"""How a command reaches the API: address and token from options or environment, errors in one line."""

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
"""How long a command that asks once tries to reach the API."""
LONG_PATIENCE_SECONDS = 180.0
"""The same for one that waits for something: it outlasts a restart of the API."""
NO_ANSWER = "No answer"
"""Title of the client's own problem where nobody answered."""

Url = Annotated[
    str | None, typer.Option("--url", envvar="OPENSEER_URL", help="Address of the API, or of a job behind a gateway.")
]
Token = Annotated[str | None, typer.Option("--token", envvar="OPENSEER_TOKEN", help="Bearer token.", show_envvar=True)]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", envvar="OPENSEER_TOKEN_FILE", help="File that holds the token.")
]


class RefusedError(OpenseerError):
    """The API refused, failed or was not there, in one line. `exit_code`: by whose fault it is."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def connected(
    url: str | None, token: str | None, token_file: Path | None, *, patience: float = PATIENCE_SECONDS
) -> Generator["Client"]:
    """A client for one command. Errors of the API leave as RefusedError."""
    from openseer_client import ApiError, Client, FleetError, Limits, WeightsError  # noqa: PLC0415 - see main

    if not url:
        raise InputError("--url: none given, and OPENSEER_URL is not set; `openseer serve` prints its address")
    limits = Limits(unreachable=patience)  # a full queue is waited for, as a trainer does
    # A token on the command line takes precedence over a file that the environment names.
    given = check_token(token, "--token") if token else None
    with Client(url, token=given, token_file=None if given else token_file, limits=limits) as client:
        try:
            yield client
        except ValidationError as error:  # of what the command line asks for; answers are the client's own business
            raise InputError(first_problem(error)) from error
        except ApiError as error:
            raise RefusedError(_one_line(error), _code(error)) from error
        except (WeightsError, FleetError) as error:
            raise RefusedError(str(error), 5) from error


def _one_line(error: "ApiError") -> str:
    """What was asked, what the answer says, and what to do where only the command line can say it."""
    problem = error.problem
    detail = " ".join(problem.detail.split()) or problem.title
    if problem.title == NO_ANSWER:
        return f"no answer from the API: {detail}; is it running, and --url its address?"
    advice = "; give --token, --token-file or their variables" if problem.status == 401 else ""
    return f"{error.call}: {problem.status} {problem.title}: {detail}{advice}"


def _code(error: "ApiError") -> int:
    """2 where what was asked is wrong, 4 where the API is away, busy or broken."""
    status = error.problem.status
    return InputError.exit_code if 400 <= status < 500 and status != 429 else StoreError.exit_code
