"""Where a job's store is: named by the job, or the Redis that the operator runs for it, whose URL lies in a Secret."""

import base64
import binascii
import hashlib
from collections.abc import Mapping

from openseer_core.errors import InputError
from openseer_core.manifest.job import KeyRef, RolloutJob

URL_KEY = "url"
"""Of the Secret of the managed Redis."""
MOST_LABEL_CHARS = 63
"""Longest DNS label and longest value of a Kubernetes label."""
MOST_STORE_STEM_CHARS = MOST_LABEL_CHARS - len("-redis") - len("-1234567890")
"""What the job's name may take of a StatefulSet's, whose revisions add up to eleven characters."""


def manages_store(job: RolloutJob) -> bool:
    """Whether the job's Redis is run by the operator (otherwise it is the user's own)."""
    return job.spec.store.url is None and job.spec.store.secret_ref is None


def store_name(job: RolloutJob) -> str:
    """Of the managed Redis: its StatefulSet, Service and Secret.

    `J-redis`; the middle of a long name gives way to a hash, because a StatefulSet's name and its revision together
    become the value of a label on its pod.
    """
    if len(job.name) <= MOST_STORE_STEM_CHARS:
        return f"{job.name}-redis"
    tail = hashlib.sha256(job.name.encode()).hexdigest()[:6]
    return f"{job.name[: MOST_STORE_STEM_CHARS - 7]}-{tail}-redis"


def url_reference(job: RolloutJob) -> KeyRef | None:
    """The key of a Secret that holds the store's URL; None when the job states the URL itself."""
    if job.spec.store.url is not None:
        return None
    return job.spec.store.secret_ref or KeyRef(name=store_name(job), key=URL_KEY)


def url_in(data: Mapping[str, str], reference: KeyRef) -> str:
    """The URL in a Secret's `data`, as the API gives it (base64). Raises InputError when it does not say."""
    try:
        return base64.b64decode(data[reference.key], validate=True).decode().strip()
    except (KeyError, binascii.Error, UnicodeDecodeError):
        raise InputError(
            f"Secret {reference.name}: key {reference.key}: missing or no text, allowed: the URL of a Redis"
        ) from None
