"""A store's URL: what of it may be shown, and what it says of connections."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from typing import Any
from urllib.parse import parse_qs

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import RedisError

from openseer_core.errors import InputError
from openseer_core.manifest.store_url import url_parts

FOREIGN_OPTIONS = ("db", "ssl_cert_reqs", "ssl_check_hostname")
"""Options that the URL of a store of somebody else's may have: none names a file, which would be one of this process'
own machine, and none is more than a word."""
_ADDRESS = {"connection_class", "host", "port", "username", "password", "path"}


def public_url(url: str) -> str:
    """The URL without user, password and options, fit to be shown. Raises InputError for what is no URL of a Redis."""
    parts = url_parts(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def connection_kind(url: str, *, foreign: bool) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """The class of connections that a URL asks for, and their settings. `foreign`: somebody else wrote the URL.

    Raises InputError for a URL of another kind, and for options that are not known or not allowed. Of options only the
    names are told: redis-py's own words repeat values, and one may be a password.
    """
    options = parse_qs(url_parts(url).query).keys()
    if foreign and (more := options - {*FOREIGN_OPTIONS, *_ADDRESS}):
        raise InputError(f"store URL: found option {min(more)}, allowed: {', '.join(FOREIGN_OPTIONS)}")
    try:
        settings: dict[str, Any] = dict(parse_url(url))
        kind = settings.pop("connection_class", Connection)
        kind(**settings)  # as a trial: what it does not take, it tells only here
    except (TypeError, ValueError, AttributeError, RedisError):  # each option fails in a way of its own
        found = ", ".join(sorted(options)) or "a part"
        raise InputError(f"store URL: found {found}, unknown or of a value that connections do not take") from None
    return kind, settings
