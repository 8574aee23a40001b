"""Admission of calls: checks each call's token and finds its job, whose context the routes receive."""

import base64
import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers

from openseer_api.http.auth import Authenticator
from openseer_api.http.gate import Place
from openseer_api.http.problems import NotFoundProblem
from openseer_api.http.session import ALL_JOBS, PATH, token_in
from openseer_api.job.context import JobContext
from openseer_core.manifest.base import DNS_LABEL_PATTERN

LONGEST_LABEL = 63
"""Limit of a namespace or job name in a path, in characters."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"[\w.-]*(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")
_bearer = HTTPBearer(auto_error=False, description="A token that may use this job.")
BearerCredentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
Label = Annotated[str, Path(pattern=DNS_LABEL_PATTERN, max_length=LONGEST_LABEL)]


class Finder(Protocol):
    """Finds the job of a call."""

    async def find(self, namespace: str, name: str) -> object | None:
        """Returns the value of `job` in the state of an admitted call; None if no job has that name."""
        ...

    async def find_shown(self, namespace: str, name: str) -> object | None:
        """Returns the same as `find`, for calls of the page."""
        ...


class Admission:
    """Checks a call's token before it looks up the job, so that a caller without rights cannot detect which jobs exist.

    `many`: the path names the job. `trusted`: address of a machine whose calls need no token, for clients that cannot
    send one; "" for none. A call from there still needs a token if a browser may have sent it for another site.
    """

    def __init__(self, directory: Finder, auth: Authenticator, *, many: bool, trusted: str = "") -> None:
        self._directory = directory
        self._auth = auth
        self._many = many
        self._trusted = _plain(trusted)
        self._names = {socket.gethostname().lower(), socket.getfqdn().lower()} if trusted else set[str]()

    async def admit(self, method: str, headers: Headers, place: Place, address: str) -> object:
        """Returns the job's context; None for the page's list of all jobs, whose route checks the rights for each job.
        Raises Unauthenticated, Forbidden, AuthUnavailable, NotFoundProblem."""
        if place.path == ALL_JOBS:
            await self._auth.identify(token_in(headers))
            return None
        access = "read" if method in READING else "write"
        of_page = place.path.startswith(PATH)
        if "authorization" in headers or not self._is_trusted(headers, address):
            token = token_in(headers) if of_page else token_of(headers)
            await self._auth.check(token, place.namespace, place.job, access)
        found = None
        if not self._many or all(map(_is_label, (place.namespace, place.job))):
            find = self._directory.find_shown if of_page else self._directory.find
            found = await find(place.namespace, place.job)
        if found is None:
            which = "that has not ended" if of_page else "of mode serve"
            raise NotFoundProblem(f"there is no RolloutJob {place.namespace}/{place.job} {which}")
        return found

    def _is_trusted(self, headers: Headers, address: str) -> bool:
        return self._trusted is not None and _plain(address) == self._trusted and not self._may_be_a_page(headers)

    def _may_be_a_page(self, headers: Headers) -> bool:
        """Whether a browser on the trusted machine may have sent the call for a page of another site.

        A browser sends the origin of such a call, unless the site lets its own name resolve to this server's address
        (DNS rebinding). Then the Host of the call is the site's name. A name without a dot, an address, and this
        machine's own name are not names of a site.
        """
        host = headers.get("host", "")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return True
        if "origin" in headers and headers["origin"].partition("://")[2] != host:
            return True
        name = (urlsplit(f"//{host}").hostname or "") if _HOST.fullmatch(host) else "."
        return "." in name and _plain(name) is None and name not in self._names


def _plain(text: str) -> IPv4Address | IPv6Address | None:
    """Parses an address, and converts an IPv4-mapped IPv6 address to IPv4. Returns None for text that is no address."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def token_of(headers: Headers) -> str | None:
    """Returns the caller's token: that of Bearer, or the password of Basic, for clients that can only be configured
    with an address (http://any:TOKEN@host). None if there is none."""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2] or None
    except ValueError:  # neither base64 nor text
        return None


def _is_label(name: str) -> bool:
    return len(name) <= LONGEST_LABEL and re.fullmatch(DNS_LABEL_PATTERN, name) is not None


# ---- for the OpenAPI document; the gate has already checked token and job


async def one_job(_credentials: BearerCredentials) -> None:
    """Declares the token of all routes of a server of one job."""


async def named_job(_credentials: BearerCredentials, namespace: Label, job: Label) -> None:
    """Declares the token and the job in the path, for the gateway."""


async def job_of(request: Request) -> JobContext:
    """Returns the context of the job to which the gate has admitted the call."""
    return request.state.job


Job = Annotated[JobContext, Depends(job_of)]
