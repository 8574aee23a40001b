"""A store's URL: the part that messages may show, and the settings of connections."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from typing import Any
from urllib.parse import parse_qs

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import RedisError

from openseer_core.errors import InputError
from openseer_core.manifest.store_url import url_parts

FOREIGN_OPTIONS = ("db", "ssl_cert_reqs", "ssl_check_hostname")
"""Allowed options in the URL of an untrusted store. No option names a file (it would be read on this machine), and each
value is a single word."""
_ADDRESS = {"connection_class", "host", "port", "username", "password", "path"}


def public_url(url: str) -> str:
    """The URL without user, password and options, for messages. Raises InputError if it is no URL of a Redis."""
    parts = url_parts(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def connection_kind(url: str, *, foreign: bool) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """The class of connections for a URL, and their settings. `foreign`: an untrusted user wrote the URL.

    Raises InputError for a URL of another kind, and for options that are unknown or not allowed. The message contains
    only the names of options: redis-py's own messages repeat values, and a value may be a password.
    """
    options = parse_qs(url_parts(url).query).keys()
    if foreign and (more := options - {*FOREIGN_OPTIONS, *_ADDRESS}):
        raise InputError(f"store URL: found option {min(more)}, allowed: {', '.join(FOREIGN_OPTIONS)}")
    try:
        settings: dict[str, Any] = dict(parse_url(url))
        kind = settings.pop("connection_class", Connection)
        kind(**settings)  # a trial: it raises for settings that it does not accept
    except (TypeError, ValueError, AttributeError, RedisError):  # each option fails with an exception of its own
        found = ", ".join(sorted(options)) or "a part"
        raise InputError(f"store URL: found {found}, unknown or with a value that connections refuse") from None
    return kind, settings
