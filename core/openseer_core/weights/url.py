"""URLs of folders of weights: a check whether a job allows them, and their form in messages, without passwords."""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address

from openseer_core.hosts import is_named

_LABEL = "[a-z0-9_-]{1,63}"
_URL = re.compile(
    r"(?P<scheme>https?)://(?:[^@/?#\s\x00-\x1f\x7f]*@)?"
    rf"(?P<place>(?P<host>\[[0-9a-f:.]+\]|{_LABEL}(?:\.{_LABEL})*\.?)(?::(?P<port>[0-9]{{1,5}}))?)"
    r"(?:/[^?#\s\x00-\x1f\x7f]*)?",
    re.I,
)
"""Accepts fewer URLs than HTTP clients do, so that all clients find the same host in an accepted one."""
_CREDENTIALS = re.compile(r"(:/{1,2})[^/\s]*@")
_PORTS = {"http": "80", "https": "443"}
LONGEST_HOST, LAST_PORT = 253, 65535


def url_problem(url: str, allowed: Sequence[str]) -> str:
    """The reason why this URL is refused; "" if it is allowed. `allowed`: the job's spec.weights.allowedHosts, hosts or
    `*.` and a suffix, with a port (host:port) for this port only; empty: any host."""
    if "?" in url or "#" in url:
        return "is the address of a folder: it has no ? and no #"
    found = _URL.fullmatch(url)
    if found is None or len(found["host"]) > LONGEST_HOST or int(found["port"] or 0) > LAST_PORT:
        return "is not the URL of a folder, such as https://HOST/FOLDER"
    if found["host"][0] == "[" and not _is_ipv6(found["host"][1:-1]):
        return f"names host {found['host']}, which is no IPv6 address"
    host = found["host"].lower().rstrip(".")
    port = found["port"] or _PORTS[found["scheme"].lower()]
    if allowed and not any(_allows(entry, host, int(port)) for entry in allowed):
        shown = f"{host} at port {port}" if any(":" in entry for entry in allowed) else host
        return f"names host {shown}, allowed by spec.weights.allowedHosts: {', '.join(allowed)}"
    return ""


def _allows(entry: str, host: str, port: int) -> bool:
    name, _, only = entry.partition(":")
    return is_named(host, (name,)) and only in ("", str(port))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def shown_url(url: str) -> str:
    """The URL without user and password; also for a malformed URL, whose password has unencoded characters."""
    shown = without_passwords(url)
    if shown != url or _URL.fullmatch(url):
        return shown
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def without_passwords(text: str) -> str:
    """The message without users and passwords of the URLs in it, also of malformed URLs."""
    return _CREDENTIALS.sub(r"\1", text)


def host_of(url: str) -> str:
    """The URL's host, and port if given, in lower case; "" if there is none."""
    found = _URL.match(url)
    return found["place"].lower() if found is not None else ""
