"""`openseer explain URL`: prints the explanation of a running job so far, from the API of its page."""

import re
from pathlib import Path

import httpx
from rich.console import Console, Group
from rich.text import Text

from openseer_api.http.session import PATH, cookie_name, cookie_of
from openseer_core.errors import InputError
from openseer_core.wire.page import Explained, PageProblem
from openseer_local.bearer import check_token, read_token
from openseer_local.explained import finding_lines, parts_table
from openseer_local.remote.connection import PATIENCE_SECONDS, RefusedError
from openseer_local.terminal.console import OUT

_OF_GATEWAY = re.compile(r"(.*)/jobs/([^/]+)/([^/]+)/?")
"""Address of a job behind a gateway: root, namespace and name."""
_OF_PAGE = re.compile(r"/?job/([^/]+)/([^/]+)(?:/.*)?")
"""The part after # in an address of the page: namespace and name of the job."""


def show_running(
    url: str, token: str | None, token_file: Path | None, *, as_json: bool = False, console: Console = OUT
) -> None:
    """Prints the explanation so far. `url`: address of one job's API or page, or of a job behind a gateway. Raises
    InputError, RefusedError."""
    found = _asked(url, _token(token, token_file))
    if as_json:
        console.file.write(found.model_dump_json() + "\n")
        return
    size = (
        f"{found.seconds:,.1f} s so far, from the first request queued; {found.workers} "
        f"worker{'s' if found.workers != 1 else ''}, {found.worker_seconds:,.1f} worker-seconds"
    )
    tail = [Text(f"in the tail: {found.tail}")] if found.tail else []
    notes = [Text(f"note: {note}", style="dim") for note in found.notes]
    possible = Text(f"The best time possible is not known: {found.no_best}")
    lines = finding_lines(found.findings)
    console.print(Group(*lines, Text(), Text(size), *tail, parts_table(found.parts), Text(), possible, *notes))


def _token(token: str | None, token_file: Path | None) -> str:
    if token:
        return check_token(token, "--token")
    if token_file is None:
        raise InputError("--token: none given; give the token of the served job, or --token-file with its file")
    return read_token(token_file, "--token-file")


def _asked(url: str, token: str) -> Explained:
    """Returns the first explanation in the page's event stream. Raises RefusedError."""
    address, _, view = url.partition("#")
    base = address.rstrip("/").removesuffix(PATH)
    of_gateway, of_page = _OF_GATEWAY.fullmatch(base), _OF_PAGE.fullmatch(view)
    # A server of one job accepts any name.
    names = of_page.groups() if of_page else ("default", "job")
    root, namespace, name = of_gateway.groups() if of_gateway else (base, *names)
    place = f"{root}{PATH}/api/jobs/{namespace}/{name}/explained"
    try:
        cookies = {cookie_name(httpx.URL(place).netloc.decode()): cookie_of(token)}
        with httpx.stream("GET", place, cookies=cookies, timeout=PATIENCE_SECONDS, trust_env=False) as answer:
            if answer.status_code != 200:
                answer.read()
                raise _refused(answer.status_code, _detail(answer))
            kind = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: ") and kind == "problem":
                    problem = PageProblem.model_validate_json(line.removeprefix("data: "))
                    raise _refused(problem.status, problem.detail)
                elif line.startswith("data: "):
                    return Explained.model_validate_json(line.removeprefix("data: "))
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise RefusedError(
            f"no answer from {root}: {error}; check that it runs and that the address is right", 4
        ) from None
    except ValueError as error:
        raise RefusedError(
            f"{root}: the answer is not an explanation: {error}; check that both have the same release", 4
        ) from None
    raise RefusedError(f"{root}: the answer ended before an explanation", 4)


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


def _refused(status: int, detail: str) -> RefusedError:
    return RefusedError(f"explain: {status}: {detail}", InputError.exit_code if 400 <= status < 500 else 4)
