"""Authorization: a token is checked for a job before any response depends on the job, even on its existence."""

import hmac
from typing import Literal, Protocol

from openseer_core.errors import OpenseerError

Access = Literal["read", "write"]
"""read: batches, results, metrics. write: any change of batches or weights, and the lending of GPUs."""


class Unauthenticated(OpenseerError):
    """No token, or one that is not valid (HTTP 401)."""


class Forbidden(OpenseerError):
    """The token is valid, but does not permit this access to this job, whether or not the job exists (HTTP 403)."""


class AuthUnavailable(OpenseerError):
    """The service that authorizes calls does not respond; no access is allowed until it does (HTTP 503)."""

    retryable = True


class Authenticator(Protocol):
    """Checks bearer tokens, and their access to jobs."""

    async def check(self, token: str | None, namespace: str, job: str, access: Access) -> None:
        """Returns if the access is allowed. Raises Unauthenticated, Forbidden or AuthUnavailable."""
        ...

    async def identify(self, token: str | None) -> None:
        """Returns if the token is valid, whatever its rights are. Raises Unauthenticated or AuthUnavailable."""
        ...


class BearerAuth:
    """An authenticator with one token, which permits every access; for a server of one job on one machine."""

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("an empty token would admit every caller")
        self._token = token.encode()

    async def check(self, token: str | None, namespace: str, job: str, access: Access) -> None:
        """Returns if the token is the server's. Raises Unauthenticated."""
        await self.identify(token)

    async def identify(self, token: str | None) -> None:
        """Compares the token in constant time. Raises Unauthenticated."""
        if token is None:
            raise Unauthenticated("a token is needed: Authorization: Bearer TOKEN")
        if not hmac.compare_digest(token.encode(), self._token):
            raise Unauthenticated(
                "the token is not this job's; it is in runs/NAME/token, unless `openseer serve` was given --token-file"
            )
