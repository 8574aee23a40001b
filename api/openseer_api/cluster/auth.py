"""Authorization by the cluster: TokenReview returns the subject of a token, SubjectAccessReview whether it has a right.

The gateway checks the subresource `batches` of one RolloutJob: `get` to read, `update` to change anything. Kubernetes
serves no such resource, but roles may name it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openseer_api.cluster.client import Json, Kube, KubeError
from openseer_api.cluster.ttl_cache import TTLCache
from openseer_api.http.auth import Access, AuthUnavailable, Forbidden, Unauthenticated
from openseer_core.manifest.base import DNS_LABEL_PATTERN

ALLOWED_SECONDS = 10.0
"""Cache TTL of a right and of a token's subject, in seconds. A revoked right remains valid for this time."""
REFUSED_SECONDS = 2.0
"""Cache TTL of a refusal, in seconds; short, because the right may be granted meanwhile."""
MOST_ANSWERS = 4096
"""Limit of cached subjects, and of cached rights."""
LONGEST_TOKEN = 16 * 2**10
"""Limit of a token, in characters; a longer token counts as invalid and is not sent to the API server."""
VERBS: Mapping[Access, str] = {"read": "get", "write": "update"}

_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a token. `fields`: those of a SubjectAccessReview's spec; empty if the token is not valid."""

    fields: Mapping[str, Any]


class KubernetesAuth:
    """Authorizes by reviews of the API server, cached for ALLOWED_SECONDS or REFUSED_SECONDS by a hash of the token.

    `audiences`: a token must be issued for one of them; empty: for the API server itself.
    """

    def __init__(self, kube: Kube, audiences: Sequence[str] = ()) -> None:
        self._kube = kube
        self._audiences = list(audiences)
        self._subjects = TTLCache[bytes, Subject](lambda subject: _good_for(bool(subject.fields)), MOST_ANSWERS)
        self._rights = TTLCache[tuple[bytes, str, str, Access], bool](_good_for, MOST_ANSWERS)

    async def check(self, token: str | None, namespace: str, job: str, access: Access) -> None:
        """Returns if the access is allowed. Raises Unauthenticated, Forbidden or AuthUnavailable."""
        key, subject = await self._subject(token)
        # In a SubjectAccessReview an empty name means all jobs; no job has an invalid name.
        possible = all(re.fullmatch(DNS_LABEL_PATTERN, name) for name in (namespace, job))
        right = (key, namespace, job, access)
        if not possible or not await self._rights.get(right, lambda: self._is_allowed(subject, namespace, job, access)):
            user = subject.fields["user"]
            raise Forbidden(f"{user} may not {VERBS[access]} rolloutjobs/batches of {namespace}/{job}")

    async def identify(self, token: str | None) -> None:
        """Returns if the token is valid in this cluster. Raises Unauthenticated or AuthUnavailable."""
        await self._subject(token)

    async def _subject(self, token: str | None) -> tuple[bytes, Subject]:
        """Returns the token's hash and its subject. Raises Unauthenticated or AuthUnavailable."""
        if not token:
            raise Unauthenticated("a token is needed: Authorization: Bearer TOKEN, for example a ServiceAccount's")
        if len(token) > LONGEST_TOKEN:
            raise Unauthenticated("the token is not valid in this cluster")
        key = hashlib.sha256(token.encode()).digest()
        subject = await self._subjects.get(key, lambda: self._subject_of(token))
        if not subject.fields:
            raise Unauthenticated("the token is not valid in this cluster or has expired; create a new one")
        return key, subject

    async def _subject_of(self, token: str) -> Subject:
        spec: Json = {"token": token, **({"audiences": self._audiences} if self._audiences else {})}
        status = await self._review(_REVIEWS, "authentication.k8s.io/v1", "TokenReview", spec)
        intended = not self._audiences or bool(set(self._audiences) & set(status.get("audiences") or ()))
        user: Json = status.get("user") or {}
        if not (status.get("authenticated") is True and intended and user.get("username")):
            return Subject({})
        optional = {name: user.get(name) for name in ("uid", "groups", "extra")}
        fields = {"user": user["username"], **optional}
        return Subject({name: value for name, value in fields.items() if value})

    async def _is_allowed(self, subject: Subject, namespace: str, job: str, access: Access) -> bool:
        attributes = {
            "group": "openseer.dev",
            "resource": "rolloutjobs",
            "subresource": "batches",
            "verb": VERBS[access],
            "namespace": namespace,
            "name": job,
        }
        spec = {**subject.fields, "resourceAttributes": attributes}
        status = await self._review(_ACCESS_REVIEWS, "authorization.k8s.io/v1", "SubjectAccessReview", spec)
        return status.get("allowed") is True and status.get("denied") is not True

    async def _review(self, path: str, version: str, kind: str, spec: Json) -> Json:
        try:
            answer = await self._kube.review(path, {"apiVersion": version, "kind": kind, "spec": spec})
        except KubeError as error:
            raise AuthUnavailable(f"the rights of this token cannot be checked at the moment: {error}") from None
        return answer.get("status") or {}


def _good_for(allowed: bool) -> float:
    return ALLOWED_SECONDS if allowed else REFUSED_SECONDS
