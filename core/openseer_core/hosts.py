"""Lists of allowed hosts. An entry is a host name, or `*.` and a suffix, for all hosts below the suffix."""

from collections.abc import Iterable


def is_named(host: str, allowed: Iterable[str]) -> bool:
    """Whether a list allows a host. `host`: in lower case, without a trailing dot."""
    return any(host == entry or (entry[:2] == "*." and host.endswith(entry[1:])) for entry in allowed)
