"""Who calls, and for which job: the dependency of every route but health."""

import base64
import binascii
from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from openseer_api.http.auth import Authenticator
from openseer_api.http.problems import NotFoundProblem
from openseer_api.job.context import JobContext, JobDirectory
from openseer_core.manifest.base import DNS_LABEL_PATTERN

_bearer = HTTPBearer(auto_error=False, description="A token that may use this job.")
BearerCredentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
Label = Annotated[str, Path(pattern=DNS_LABEL_PATTERN, max_length=63)]
READING = frozenset({"GET", "HEAD", "OPTIONS"})


async def one_job(request: Request, credentials: BearerCredentials) -> JobContext:
    """The job of a server that has one."""
    return await _job(request, credentials, "", "")


async def named_job(request: Request, credentials: BearerCredentials, namespace: Label, job: Label) -> JobContext:
    """The job that the path names."""
    return await _job(request, credentials, namespace, job)


async def _job(
    request: Request, credentials: HTTPAuthorizationCredentials | None, namespace: str, name: str
) -> JobContext:
    """Checks the token before anything is looked up, so that nobody learns of a job that is not theirs."""
    auth: Authenticator = request.app.state.auth
    directory: JobDirectory = request.app.state.directory
    token = credentials.credentials if credentials is not None else _password(request)
    await auth.check(token, namespace, name, "read" if request.method in READING else "write")
    found = await directory.find(namespace, name)
    if found is None:
        raise NotFoundProblem(f"there is no RolloutJob {namespace}/{name} of mode serve")
    request.state.job = found
    return found


def _password(request: Request) -> str | None:
    """The token of a caller that can only be given an address, http://any:TOKEN@host: clients send it as Basic."""
    scheme, _, coded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(coded, validate=True).decode().partition(":")[2] or None
    except (binascii.Error, UnicodeDecodeError):
        return None


async def job_of(request: Request) -> JobContext:
    """What `one_job` or `named_job` has found. Raises NotFoundProblem for names that no job can have."""
    found: JobContext | None = getattr(request.state, "job", None)
    if found is None:
        raise NotFoundProblem("the path names no job")
    return found


Job = Annotated[JobContext, Depends(job_of)]
