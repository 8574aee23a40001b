"""The page's login: a token that a person entered once, in a cookie that no script and no other site can use."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response

from openseer_api.http.gate import Place

COOKIE = "openseer_page"
SESSION_SECONDS = 3600
"""Lifetime of the cookie in the browser, in seconds; then the person enters the token again."""
PATH = "/page"
"""The path prefix to which browsers send the cookie; all routes below it only read."""

ALL_JOBS = f"{PATH}/api/jobs"
"""The view of all jobs that the caller may read: it belongs to no job, and needs a token."""

_OF_A_JOB = re.compile(f"{PATH}/api/jobs/([^/]+)/([^/]+)(?:/.*)?", re.DOTALL)  # no line break hides a path


def place_of(path: str) -> Place | None:
    """The job that a path of the page shows, "" and "" for all jobs; None for a path that shows no job."""
    if path == ALL_JOBS:
        return Place("", "", path)
    found = _OF_A_JOB.fullmatch(path)
    return None if found is None else Place(found[1], found[2], path)


def is_open(path: str) -> bool:
    """Whether a path is the page's and shows no job."""
    return path.startswith(PATH) and place_of(path) is None


def token_in(headers: Headers) -> str | None:
    """The token of a call to the page; None if there is none."""
    try:
        # Parsed as browsers write them: other cookies of the host may hold characters that RFC 6265 does not allow.
        found = cookie_parser(headers.get("cookie", "")).get(cookie_name(headers.get("host", "")))
        return urlsafe_b64decode(found.encode()).decode() or None if found is not None else None
    except ValueError:
        return None


def cookie_name(host: str) -> str:
    """The cookie's name in calls to this `host` (HOST or HOST:PORT, as their header field says), with its port.

    Browsers send a cookie to all ports of its host; a login at one server of a machine must not end another's session.
    """
    port = host.rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isdecimal() else COOKIE


def cookie_of(token: str) -> str:
    """The value of a token's cookie."""
    return urlsafe_b64encode(token.encode()).decode()


def keep_token(headers: Headers, response: Response, token: str) -> None:
    """Sets the cookie with the token in the response to a call with these headers.

    If the page was loaded by https, the cookie is never sent by http. Origin shows that: TLS mostly ends at a proxy
    before this server.
    """
    name, value = cookie_name(headers.get("host", "")), cookie_of(token)
    secure = headers.get("origin", "").startswith("https://")
    response.set_cookie(
        name, value, max_age=SESSION_SECONDS, path=PATH, secure=secure, httponly=True, samesite="strict"
    )


def forget_token(headers: Headers, response: Response) -> None:
    """Deletes the cookie."""
    response.delete_cookie(cookie_name(headers.get("host", "")), path=PATH, httponly=True, samesite="strict")
