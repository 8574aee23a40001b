"""Who calls, and for which job: what the gate asks at every call, and what a route has of it."""

import base64
import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Protocol

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
"""Characters of a name in a path."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})
_bearer = HTTPBearer(auto_error=False, description="A token that may use this job.")
BearerCredentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
Label = Annotated[str, Path(pattern=DNS_LABEL_PATTERN, max_length=LONGEST_LABEL)]


class Finder(Protocol):
    """Finds what calls are about."""

    async def find(self, namespace: str, name: str) -> object | None:
        """The state of an admitted call has it as `job`; None where there is none of that name."""
        ...

    async def find_shown(self, namespace: str, name: str) -> object | None:
        """The same for calls of the page."""
        ...


class Admission:
    """Checks the token before anything is looked up, so that nobody learns of a job that is not theirs. `trusted`: the
    address of a machine whose calls need none, for clients that cannot send one; "" for no such machine."""

    def __init__(self, directory: Finder, auth: Authenticator, *, many: bool, trusted: str = "") -> None:
        self._directory = directory
        self._auth = auth
        self._many = many
        self._trusted = _plain(trusted)

    async def admit(self, method: str, headers: Headers, place: Place, address: str) -> object:
        """The job's context, None where all jobs are asked for, whose rights are checked one by one. Raises
        Unauthenticated, Forbidden, AuthUnavailable, NotFoundProblem."""
        if place.path == ALL_JOBS:
            await self._auth.identify(token_in(headers))
            return None
        access = "read" if method in READING else "write"
        of_page = place.path.startswith(PATH)
        if "authorization" in headers or not self._is_trusted(address):
            token = token_in(headers) if of_page else token_of(headers)
            await self._auth.check(token, place.namespace, place.job, access)
        found = None
        if not self._many or all(map(_is_label, (place.namespace, place.job))):
            find = self._directory.find_shown if of_page else self._directory.find
            found = await find(place.namespace, place.job)
        if found is None:
            which = "that goes on" if of_page else "of mode serve"
            raise NotFoundProblem(f"there is no RolloutJob {place.namespace}/{place.job} {which}")
        return found

    def _is_trusted(self, address: str) -> bool:
        return self._trusted is not None and _plain(address) == self._trusted


def _plain(text: str) -> IPv4Address | IPv6Address | None:
    """An address; the IPv4 one that an IPv6 one stands for; None for a socket of this machine, which has none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def token_of(headers: Headers) -> str | None:
    """The caller's token, as Bearer; or as the password of Basic, which clients send that can only be given an address,
    http://any:TOKEN@host."""
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


# ---- for the document: the gate has checked both


async def one_job(_credentials: BearerCredentials) -> None:
    """Every route of a server of one job takes a token."""


async def named_job(_credentials: BearerCredentials, namespace: Label, job: Label) -> None:
    """In a cluster the path names the job, too."""


async def job_of(request: Request) -> JobContext:
    """The job to which the gate has admitted the call."""
    return request.state.job


Job = Annotated[JobContext, Depends(job_of)]
