"""The page's login: stores the token that a person entered in a cookie that no script and no other site can use."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response

from openseer_api.http.gate import Place

COOKIE = "openseer_page"
SESSION_SECONDS = 3600
"""Lifetime of the cookie in the browser, in seconds; then the person must enter the token again."""
PATH = "/page"
"""The path prefix to which browsers send the cookie. All routes below it only read, except login and logout."""

ALL_JOBS = f"{PATH}/api/jobs"
"""Path of the list of all jobs that the caller may read. It belongs to no job, and requires a token."""

# DOTALL: a path with a line break is a job's path too, and so requires a token.
_OF_A_JOB = re.compile(f"{PATH}/api/jobs/([^/]+)/([^/]+)(?:/.*)?", re.DOTALL)


def place_of(path: str) -> Place | None:
    """Returns the job of a path of the page, "" and "" for the list of all jobs; None for a path that shows no job."""
    if path == ALL_JOBS:
        return Place("", "", path)
    found = _OF_A_JOB.fullmatch(path)
    return None if found is None else Place(found[1], found[2], path)


def is_open(path: str) -> bool:
    """Whether a path belongs to the page and shows no job."""
    return path.startswith(PATH) and place_of(path) is None


def token_in(headers: Headers) -> str | None:
    """Returns the token in the cookie of a call to the page; None if there is none."""
    try:
        # Starlette's lenient parser: other cookies of the host may contain characters that RFC 6265 forbids.
        found = cookie_parser(headers.get("cookie", "")).get(cookie_name(headers.get("host", "")))
        return urlsafe_b64decode(found.encode()).decode() or None if found is not None else None
    except ValueError:
        return None


def cookie_name(host: str) -> str:
    """Returns the cookie's name for a `host` (HOST or HOST:PORT, from the header field), which contains the port.

    Browsers send a cookie to all ports of its host, so a login at one server of a machine would end the session at
    another one if their cookies had the same name.
    """
    port = host.rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isdecimal() else COOKIE


def cookie_of(token: str) -> str:
    """Returns the value of the cookie for a token."""
    return urlsafe_b64encode(token.encode()).decode()


def keep_token(headers: Headers, response: Response, token: str) -> None:
    """Sets the cookie with the token in the response to a call with these headers.

    If the page was loaded over https, browsers never send the cookie over http. The header field Origin shows the
    scheme; the connection does not, because TLS mostly ends at a proxy before this server.
    """
    name, value = cookie_name(headers.get("host", "")), cookie_of(token)
    secure = headers.get("origin", "").startswith("https://")
    response.set_cookie(
        name, value, max_age=SESSION_SECONDS, path=PATH, secure=secure, httponly=True, samesite="strict"
    )


def forget_token(headers: Headers, response: Response) -> None:
    """Deletes the cookie."""
    response.delete_cookie(cookie_name(headers.get("host", "")), path=PATH, httponly=True, samesite="strict")
