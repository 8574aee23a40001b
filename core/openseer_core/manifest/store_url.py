"""The place of a job's store: the URL that the job names, or a Secret with the URL of the managed Redis.

Pods read this Secret. Operator and gateway do not: they derive its password from a key of their installation and the
job's uid. They also derive its name, so that no Secret of another job or of a user has this name.
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
"""Limit of the job's name within the name of a StatefulSet; the suffix of a revision has up to eleven characters."""
SECRET_TAG_CHARS = 10
"""Number of hexadecimal digits in the Secret's name; they identify its job and the key of its password."""
REDIS_PORT = 6379
"""Port of the managed Redis."""
SCHEMES = ("redis", "rediss", "unix")
"""Accepted schemes of a store's URL."""


def manages_store(job: RolloutJob) -> bool:
    """Whether the operator runs the job's Redis; otherwise it is the user's own."""
    return job.spec.store.url is None and job.spec.store.secret_ref is None


def store_name(job: RolloutJob) -> str:
    """Name of the managed Redis's StatefulSet and Service, and of a Secret with a random password.

    JOB-redis. A hash replaces the end of a long name, because the StatefulSet's name and its revision together become
    the value of a label of its pod.
    """
    if len(job.name) <= MOST_STORE_STEM_CHARS:
        return f"{job.name}-redis"
    tail = hashlib.sha256(job.name.encode()).hexdigest()[:6]
    return f"{job.name[: MOST_STORE_STEM_CHARS - 7]}-{tail}-redis"


def derived_secret_name(job: RolloutJob, uid: str, key: bytes) -> str:
    """Name of the Secret with the password that is derived from `key`, for a managed Redis. `uid`: of the job."""
    return f"{store_name(job)}-{_derive(key, 'name', uid)[:SECRET_TAG_CHARS]}"


def derived_password(job: RolloutJob, uid: str, secret: str, keys: Iterable[bytes]) -> str | None:
    """The password in the Secret named `secret`; None if its name is not derived from one of `keys`."""
    made_by = (key for key in keys if derived_secret_name(job, uid, key) == secret)
    return next((_derive(key, "password", uid) for key in made_by), None)


def managed_url(job: RolloutJob, password: str) -> str:
    """URL of the managed Redis."""
    return f"redis://:{password}@{store_name(job)}.{job.namespace}.svc:{REDIS_PORT}/0"


def url_reference(job: RolloutJob, secret: str) -> KeyRef | None:
    """The Secret, and the key in it, with the store's URL; None if the job states the URL. `secret`: name of the Secret
    of a managed Redis, used unless the job names a Secret."""
    if job.spec.store.url is not None:
        return None
    return job.spec.store.secret_ref or KeyRef(name=secret, key=URL_KEY)


def url_in(data: Mapping[str, str], reference: KeyRef) -> str:
    """The URL in a Secret. `data`: as the Kubernetes API returns it (base64).

    Raises InputError if the key is missing, or its value is no text.
    """
    try:
        return base64.b64decode(data[reference.key], validate=True).decode().strip()
    except (KeyError, binascii.Error, UnicodeDecodeError):
        raise InputError(
            f"Secret {reference.name}: key {reference.key}: missing or no text, allowed: the URL of a Redis"
        ) from None


def url_parts(url: str) -> SplitResult:
    """The parts of a store's URL; only the field of the password contains the password.

    Raises InputError. Its message contains no part of the URL, because each part may contain the rest of a password
    with an unencoded character.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if it is no number
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
