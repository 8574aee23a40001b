"""A Redis database as JSON: every key with its type and contents, independent of the server's version."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import base64
from typing import Any

import redis

from tests.contract.forms.recorded import BINARY

Json = dict[str, Any]
SERVER = {"run_id": "0" * 40, "epoch": "1"}
"""Replaces the values that differ with each process of a server."""


def dump(url: str, prefix: str) -> Json:
    """All keys below a prefix. `expires`: remaining minutes, rounded up."""
    with redis.Redis.from_url(url) as client:
        keys: list[bytes] = sorted(client.scan_iter(match=prefix + "*", count=1000))
        return {_text(key)[len(prefix) :]: _entry(client, key) for key in keys}


def begin(url: str, prefix: str) -> None:
    """Begins a job's first epoch with the base of the samples, so that its fences equal theirs."""
    with redis.Redis.from_url(url) as client:
        run_id: str = client.info("server")["run_id"]
        client.hset(f"{prefix}:store", mapping={**SERVER, "run_id": run_id, "base": 0})


def restore(url: str, prefix: str, dumped: Json) -> None:
    """Puts the keys into a database."""
    with redis.Redis.from_url(url) as client:
        for name, entry in dumped.items():
            key = prefix + name
            _put(client, key, entry["type"], entry["value"])
            if "expires" in entry:
                client.expire(key, entry["expires"] * 60)


def _entry(client: Any, key: bytes) -> Json:
    kind = client.type(key).decode()
    entry: Json = {"type": kind, "value": _READ[kind](client, key)}
    left = client.ttl(key)
    return entry | ({"expires": -(-left // 60)} if left >= 0 else {})


def _string(client: Any, key: bytes) -> str:
    return _text(client.get(key))


def _list(client: Any, key: bytes) -> list[str]:
    return [_text(value) for value in client.lrange(key, 0, -1)]


def _set(client: Any, key: bytes) -> list[str]:
    return sorted(_text(value) for value in client.smembers(key))


def _hash(client: Any, key: bytes) -> dict[str, str]:
    found = {_text(field): _text(value) for field, value in client.hgetall(key).items()}
    return found | (SERVER if "run_id" in found else {})


def _sorted_set(client: Any, key: bytes) -> list[list[str]]:
    return [[_text(member), repr(score)] for member, score in client.zrange(key, 0, -1, withscores=True)]


def _stream(client: Any, key: bytes) -> list[Json]:
    return [
        {"id": _text(number), "fields": {_text(field): _text(value) for field, value in fields.items()}}
        for number, fields in client.xrange(key)
    ]


_READ = {
    "string": _string, "list": _list, "set": _set, "hash": _hash, "zset": _sorted_set, "stream": _stream,
}  # fmt: skip


def _put(client: Any, key: str, kind: str, value: Any) -> None:
    match kind:
        case "string":
            client.set(key, _data(value))
        case "list":
            client.rpush(key, *map(_data, value))
        case "set":
            client.sadd(key, *map(_data, value))
        case "hash":
            client.hset(key, mapping={_data(field): _data(item) for field, item in value.items()})
        case "zset":
            client.zadd(key, {_data(member): float(score) for member, score in value})
        case _:
            for entry in value:
                client.xadd(key, {_data(field): _data(item) for field, item in entry["fields"].items()}, entry["id"])


def _text(data: bytes) -> str:
    """Printable ASCII unchanged, other bytes in base64."""
    if data.isascii() and data.decode("ascii").isprintable():
        return data.decode("ascii")
    return BINARY + base64.b64encode(data).decode()


def _data(text: str) -> bytes:
    return base64.b64decode(text[len(BINARY) :]) if text.startswith(BINARY) else text.encode()
