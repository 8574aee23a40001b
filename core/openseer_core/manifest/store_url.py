"""The place of a job's store: the URL that the job names, or a Secret with the URL of the managed Redis.

Pods read that Secret; operator and gateway derive its password from a key of their installation and the job's uid. Its
name is derived as well, so that it cannot be the name of a Secret of another job or of a user.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import SplitResult, urlsplit

from openseer_core.errors import InputError
from openseer_core.manifest.job import KeyRef, RolloutJob

URL_KEY = "url"
"""Key of the URL in the Secret of the managed Redis."""
MOST_LABEL_CHARS = 63
"""Limit of a DNS label and of the value of a Kubernetes label."""
MOST_STORE_STEM_CHARS = MOST_LABEL_CHARS - len("-redis") - len("-1234567890")
"""Limit of the job's name within the name of a StatefulSet, whose revisions add up to eleven characters."""
SECRET_TAG_CHARS = 10
"""Hexadecimal digits in the Secret's name that identify its job and the key of its password."""
REDIS_PORT = 6379
"""Port of the managed Redis."""
SCHEMES = ("redis", "rediss", "unix")
"""Schemes of stores' URLs."""


def manages_store(job: RolloutJob) -> bool:
    """Whether the operator runs the job's Redis; otherwise it is the user's own."""
    return job.spec.store.url is None and job.spec.store.secret_ref is None


def store_name(job: RolloutJob) -> str:
    """Name of the managed Redis's StatefulSet and Service, and of a Secret with a random password.

    `J-redis`; a long name is shortened with a hash, because a StatefulSet's name and its revision together become
    the value of a label on its pod.
    """
    if len(job.name) <= MOST_STORE_STEM_CHARS:
        return f"{job.name}-redis"
    tail = hashlib.sha256(job.name.encode()).hexdigest()[:6]
    return f"{job.name[: MOST_STORE_STEM_CHARS - 7]}-{tail}-redis"


def derived_secret_name(job: RolloutJob, uid: str, key: bytes) -> str:
    """Name of the Secret of a managed Redis whose password is derived from `key`. `uid`: of the job."""
    return f"{store_name(job)}-{_derive(key, 'name', uid)[:SECRET_TAG_CHARS]}"


def derived_password(job: RolloutJob, uid: str, secret: str, keys: Iterable[bytes]) -> str | None:
    """The password in the Secret of that name; None if none of the keys has derived it."""
    made_by = (key for key in keys if derived_secret_name(job, uid, key) == secret)
    return next((_derive(key, "password", uid) for key in made_by), None)


def managed_url(job: RolloutJob, password: str) -> str:
    """URL of the managed Redis."""
    return f"redis://:{password}@{store_name(job)}.{job.namespace}.svc:{REDIS_PORT}/0"


def url_reference(job: RolloutJob, secret: str) -> KeyRef | None:
    """The key of a Secret that holds the store's URL; None if the job states the URL itself. `secret`: name of the
    Secret of a managed Redis."""
    if job.spec.store.url is not None:
        return None
    return job.spec.store.secret_ref or KeyRef(name=secret, key=URL_KEY)


def url_in(data: Mapping[str, str], reference: KeyRef) -> str:
    """The URL in a Secret's `data`, in the API's form (base64). Raises InputError if the key is missing or no text."""
    try:
        return base64.b64decode(data[reference.key], validate=True).decode().strip()
    except (KeyError, binascii.Error, UnicodeDecodeError):
        raise InputError(
            f"Secret {reference.name}: key {reference.key}: missing or no text, allowed: the URL of a Redis"
        ) from None


def url_parts(url: str) -> SplitResult:
    """The parts of a store's URL, in which the password occurs only in its own field.

    Raises InputError without any part of the URL: each may hold the rest of a password with an unencoded character.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    is_socket = parts.scheme == "unix" and not parts.netloc
    is_clear = is_socket or "@" not in parts.path + parts.query
    if parts.scheme in SCHEMES and is_clear and not parts.fragment:
        return parts
    raise InputError(
        f"store URL: no URL of a Redis, allowed: {', '.join(f'{scheme}://' for scheme in SCHEMES)}; in a user name or "
        "password / # ? @ : % [ ] must be percent-encoded"
    )


def _derive(key: bytes, purpose: str, uid: str) -> str:
    return hmac.new(key, f"{purpose}:{uid}".encode(), hashlib.sha256).hexdigest()
