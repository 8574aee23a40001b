"""Who looks at the page: a token that a person has given once, in a cookie that no script and no other site can use."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import Response

from openseer_api.http.gate import Place

COOKIE = "openseer_page"
SESSION_SECONDS = 3600
"""How long a browser keeps the token; then a person gives it again."""
PATH = "/page"
"""All that the cookie is sent to; whatever is there only reads."""

ALL_JOBS = f"{PATH}/api/jobs"
"""The view of all jobs that somebody may read: it is about none of them, and not open either."""

_OF_A_JOB = re.compile(f"{PATH}/api/jobs/([^/]+)/([^/]+)(?:/.*)?", re.DOTALL)  # no line break hides a path


def place_of(path: str) -> Place | None:
    """The job that a path of the page is about, "" and "" for all of them; None for a path that shows no job."""
    if path == ALL_JOBS:
        return Place("", "", path)
    found = _OF_A_JOB.fullmatch(path)
    return None if found is None else Place(found[1], found[2], path)


def is_open(path: str) -> bool:
    """Whether a path is the page's and shows no job."""
    return path.startswith(PATH) and place_of(path) is None


def token_in(headers: Headers) -> str | None:
    """The token of a call to the page, None where there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        return urlsafe_b64decode(found.value.encode()).decode() or None if found is not None else None
    except (CookieError, ValueError):
        return None


def cookie_of(token: str) -> str:
    """The value of the cookie that brings a token."""
    return urlsafe_b64encode(token.encode()).decode()


def keep_token(response: Response, token: str, *, secure: bool) -> None:
    """The browser sends the token from now on. `secure`: the page came by https, so the cookie goes by nothing else."""
    response.set_cookie(
        COOKIE, cookie_of(token), max_age=SESSION_SECONDS, path=PATH, secure=secure, httponly=True, samesite="strict"
    )


def forget_token(response: Response) -> None:
    """The browser sends it no more."""
    response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="strict")
