"""Lists of hosts: names, and *. with what a name ends with."""

from collections.abc import Iterable


def is_named(host: str, allowed: Iterable[str]) -> bool:
    """Whether a list has a host's name, in small letters and without a dot at its end."""
    return any(host == entry or (entry[:2] == "*." and host.endswith(entry[1:])) for entry in allowed)
