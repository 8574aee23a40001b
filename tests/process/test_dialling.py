"""A connection goes to an allowed address of its host, and is refused if there is none."""

import asyncio
import os
import ssl
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from openseer_core.errors import InputError, StoreError, StoreForbiddenError, StoreUnavailableError
from openseer_store.connect import open_store
from openseer_store.reply_limit import ReplyLimit

HOST = "redis.made-up.example"


@asynccontextmanager
async def listener(context: ssl.SSLContext | None = None) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """A port of this machine, and the first bytes of each connection, which is then closed."""
    said: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], said


async def here(host: str, port: int) -> tuple[str, ...]:
    assert host.rstrip(".") == HOST
    return ("127.0.0.1",)


async def test_each_connection_goes_to_the_given_address() -> None:
    async with listener() as (port, said):
        with pytest.raises(StoreUnavailableError):
            await open_store(f"redis://{HOST}:{port}/0", "job", retry_seconds=0.0, dial=here)
    assert said
    assert b"INFO" in b"".join(said) or b"HELLO" in b"".join(said) or b"CLIENT" in b"".join(said)


async def test_a_forbidden_host_is_refused_at_once_without_a_connection() -> None:
    async def refuse(host: str, port: int) -> tuple[str, ...]:
        raise StoreForbiddenError("StoreHostForbidden", f"not {host}")

    async with listener() as (port, said):
        with pytest.raises(StoreForbiddenError, match=r"not 127\.0\.0\.1"):
            await open_store(f"redis://127.0.0.1:{port}/0", "job", retry_seconds=60.0, dial=refuse)
    assert said == []


async def test_the_next_address_is_tried_if_the_first_does_not_answer() -> None:
    async def dead_first(host: str, port: int) -> tuple[str, ...]:
        return ("127.0.0.2", "127.0.0.1")  # no server listens at the first

    async with listener() as (port, said):
        with pytest.raises(StoreUnavailableError):
            await open_store(f"redis://{HOST}:{port}/0", "job", retry_seconds=0.0, dial=dead_first)
    assert said


@pytest.mark.parametrize("end", ["", "."])
async def test_tls_still_requires_a_certificate_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subject = ("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}")
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subprocess.run([*made, "-keyout", key, "-out", certificate, *subject], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with listener(context) as (port, said):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises(StoreUnavailableError):
            await open_store(f"rediss://{HOST}{end}:{port}/0", "job", retry_seconds=0.0, dial=here)
    assert said


@pytest.mark.parametrize(
    "option",
    [
        *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password"),
        *("credential_provider", "encoder_class", "client_name", "unknown"),
    ],
)
async def test_an_unlisted_option_in_a_foreign_store_url_is_refused(option: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # a process that reads it waits for ever
    with pytest.raises(InputError, match=f"found option {option}, allowed: db, ssl_cert_reqs, ssl_check_hostname"):
        await open_store(f"rediss://{HOST}/0?{option}={pipe}", "job", retry_seconds=0.0, dial=here)


async def test_certificate_options_in_a_foreign_store_url_are_applied() -> None:
    async with listener() as (port, _):
        url = f"rediss://{HOST}:{port}/?db=3&ssl_cert_reqs=none&ssl_check_hostname=no"
        with pytest.raises(StoreUnavailableError):
            await open_store(url, "job", retry_seconds=0.0, dial=here)


@asynccontextmanager
async def store_that_says(answer: bytes) -> AsyncGenerator[int]:
    """The port of a server that sends `answer` after the first bytes of a client, and then data without end."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read(100)
            writer.write(answer)
            while True:
                writer.write(2**16 * b":1\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"$%d\r\n" % 2**32, f"answers with more than {ReplyLimit().bytes} bytes"),
        (
            b"*40\r\n" + 40 * (b"$1000000\r\n%s\r\n" % (10**6 * b"x")),
            f"answers with more than {ReplyLimit().bytes} bytes",
        ),
        (b"*2147483647\r\n", "answers with more than 524288 elements"),
        (b"*2\r\n*400000\r\n*400000\r\n", "answers with more than 524288 elements"),
        (b"$3\r\n*9\n\r\n*1000000\r\n", "answers with more than 524288 elements"),
        (b"+" + 20_000 * b"x", "answers with a line of more than 16384 bytes"),
        (b"%1000000\r\n", "does not follow the protocol of Redis"),
        (b":%d\r\n" % 10**400, "does not follow the protocol of Redis"),
        (b"$1_0\r\n", "does not follow the protocol of Redis"),
        (b"+OK\r\n", "does not follow the protocol of Redis"),
    ],
)
async def test_a_store_with_an_endless_or_invalid_answer_is_an_error(answer: bytes, found: str) -> None:
    async with store_that_says(answer) as port:
        with pytest.raises(StoreError, match=f"^redis at redis://{HOST}:{port}/0 {found}"):
            await open_store(f"redis://{HOST}:{port}/0", "job", retry_seconds=600.0, dial=here)
