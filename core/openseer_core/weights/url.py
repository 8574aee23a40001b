"""URLs of folders of weights: which a job allows, and how they are shown. Their passwords are in no message."""

import re
from collections.abc import Sequence

from openseer_core.hosts import is_named

_URL = re.compile(
    r"https?://(?:[^@/?#\s]*@)?(?P<place>(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?)(?:/[^?#\s]*)?", re.I
)
"""Narrower than what a client would take, so that none reads another host in it."""


def url_problem(url: str, allowed: Sequence[str]) -> str:
    """Why nothing is fetched from this URL, "" where it may be. `allowed`: hosts and *.suffixes of the job's
    weights.allowedHosts; none: any host."""
    if "?" in url or "#" in url:
        return "is the address of a folder: it has no ? and no #"
    found = _URL.fullmatch(url)
    if found is None:
        return "is no URL of a folder, such as https://HOST/FOLDER"
    host = found["host"].lower().rstrip(".")
    if allowed and not is_named(host, allowed):
        return f"names host {host}, allowed by spec.weights.allowedHosts: {', '.join(allowed)}"
    return ""


def shown_url(url: str) -> str:
    """The URL without user and password, also of what is none for a sign that its password would have had to encode."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    place, slash, path = rest.partition("/")
    if "@" in place or _URL.fullmatch(url):
        return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}"
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def host_of(url: str) -> str:
    """Host and port; "" where there is none."""
    found = _URL.match(url)
    return found["place"].lower() if found is not None else ""
