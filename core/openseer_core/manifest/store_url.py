"""Where a job's store is: named by the job, or the Redis that the operator runs for it, whose URL lies in a Secret.

Pods read that Secret; operator and gateway know what is in it: its password is derived from a key of their installation
and the job's uid. Its name is derived, too, so that no Secret of another job, and none of a user, has that name.
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
"""Of the Secret of the managed Redis."""
MOST_LABEL_CHARS = 63
"""Longest DNS label and longest value of a Kubernetes label."""
MOST_STORE_STEM_CHARS = MOST_LABEL_CHARS - len("-redis") - len("-1234567890")
"""What the job's name may take of a StatefulSet's, whose revisions add up to eleven characters."""
SECRET_TAG_CHARS = 10
"""Hexadecimal digits by which the Secret of a managed Redis tells its job and the key that its password is made by."""
REDIS_PORT = 6379
"""Of the managed Redis."""
SCHEMES = ("redis", "rediss", "unix")
"""Of stores' URLs."""


def manages_store(job: RolloutJob) -> bool:
    """Whether the job's Redis is run by the operator (otherwise it is the user's own)."""
    return job.spec.store.url is None and job.spec.store.secret_ref is None


def store_name(job: RolloutJob) -> str:
    """Of the managed Redis: its StatefulSet and Service; also of a Secret whose password was made at random.

    `J-redis`; the middle of a long name gives way to a hash, because a StatefulSet's name and its revision together
    become the value of a label on its pod.
    """
    if len(job.name) <= MOST_STORE_STEM_CHARS:
        return f"{job.name}-redis"
    tail = hashlib.sha256(job.name.encode()).hexdigest()[:6]
    return f"{job.name[: MOST_STORE_STEM_CHARS - 7]}-{tail}-redis"


def derived_secret_name(job: RolloutJob, uid: str, key: bytes) -> str:
    """Of the Secret of a managed Redis whose password is derived from `key`. `uid`: of the job."""
    return f"{store_name(job)}-{_derive(key, 'name', uid)[:SECRET_TAG_CHARS]}"


def derived_password(job: RolloutJob, uid: str, secret: str, keys: Iterable[bytes]) -> str | None:
    """What the Secret of that name holds; None when it was made by none of the keys."""
    made_by = (key for key in keys if derived_secret_name(job, uid, key) == secret)
    return next((_derive(key, "password", uid) for key in made_by), None)


def managed_url(job: RolloutJob, password: str) -> str:
    """Of the managed Redis."""
    return f"redis://:{password}@{store_name(job)}.{job.namespace}.svc:{REDIS_PORT}/0"


def url_reference(job: RolloutJob, secret: str) -> KeyRef | None:
    """The key of a Secret that holds the store's URL; None when the job states the URL itself. `secret`: name of the
    Secret of a managed Redis."""
    if job.spec.store.url is not None:
        return None
    return job.spec.store.secret_ref or KeyRef(name=secret, key=URL_KEY)


def url_in(data: Mapping[str, str], reference: KeyRef) -> str:
    """The URL in a Secret's `data`, as the API gives it (base64). Raises InputError when it does not say."""
    try:
        return base64.b64decode(data[reference.key], validate=True).decode().strip()
    except (KeyError, binascii.Error, UnicodeDecodeError):
        raise InputError(
            f"Secret {reference.name}: key {reference.key}: missing or no text, allowed: the URL of a Redis"
        ) from None


def url_parts(url: str) -> SplitResult:
    """The parts of a store's URL, whose password stands nowhere but in its place.

    Raises InputError, which shows nothing of the URL: any part may hold the rest of a password that ended it early.
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
