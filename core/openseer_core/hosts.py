"""Lists of hosts: names, and *. with a suffix."""

from collections.abc import Iterable


def is_named(host: str, allowed: Iterable[str]) -> bool:
    """Whether a list contains a host name, given in lower case and without a trailing dot."""
    return any(host == entry or (entry[:2] == "*." and host.endswith(entry[1:])) for entry in allowed)
