"""Measures the cost of large bodies and stalled connections to the trainers' API: pauses of its event loop, and memory.

One server over a real Redis runs in a process of its own. There are three measurements: the longest pause of the loop
while a body is received, with the peak of memory; memory while uploads stall before their end; memory while readers
read nothing of their pages. The pause is CPU time of the server, so other programs of the machine have no effect.
"""

import asyncio
import http.client
import json
import multiprocessing as mp
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from openseer_client import AsyncClient
from openseer_store.embedded import EmbeddedRedis
from support.served_api import TOKEN, groups, play, serve

PROMPTS = 4096
"""Greatest number of prompts in one call."""
LENGTH = 2000
"""Tokens of each response that readers request and do not read."""
PAGE = 512
SETTLE_SECONDS = 0.5
STEADY = 6
"""Readings of the memory without growth, after which it counts as final."""


class Server:
    """The server's process, controlled from another process."""

    def __init__(self, context: Any, url: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.longest = context.Value("d", 0.0)
        self.process = context.Process(target=serve, args=(url, self.port, self.longest), daemon=True)
        self.process.start()

    def memory(self, name: str = "VmRSS") -> int:
        """Memory of the process in MiB: now, or the peak (VmHWM)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))

    def begin(self) -> None:
        """Resets the longest pause and the peak of memory."""
        self.longest.value = 0.0
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def post(self, path: str, body: bytes) -> int:
        """Sends a call and returns its HTTP status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    async def opened(self, head: str) -> socket.socket:
        """A connection with a small receive buffer, on which a request's head was sent."""
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stream, ("127.0.0.1", self.port))
        await loop.sock_sendall(stream, f"{head}\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n".encode())
        return stream


def bodies(size: int, batch: int) -> Iterator[tuple[str, str, bytes]]:
    """Content, path and bytes of each body of about the given size."""
    ids = "[" + ",".join(str(number * 7919 % 150_000) for number in range(2340)) + "]"
    many = min(PROMPTS, size // len(ids))
    text = json.dumps("The quick brown fox \n jumps; " * 540)
    message = json.dumps({"role": "user", "content": "x" * 270})
    group = '{"id":"g%d","prompt_token_ids":' + ids + "}"
    uploaded = ",".join(group % number for number in range(many))
    single = '{"max_tokens":1,"prompt":[%s]}'
    yield "prompts of token ids", "/v1/completions", (single % ",".join([ids] * many)).encode()
    yield "one list of token ids", "/v1/completions", (single % ",".join(["12345"] * (size // 6))).encode()
    yield "prompts of text", "/v1/completions", (single % ",".join([text] * min(PROMPTS, size // len(text)))).encode()
    messages = ",".join([message] * (size // (len(message) + 1)))
    yield "messages of one chat", "/v1/chat/completions", f'{{"max_tokens":1,"messages":[{messages}]}}'.encode()
    yield "groups of token ids", f"/v1/batches/{batch}/groups", f'{{"groups":[{uploaded}]}}'.encode()


async def taking(server: Server, size: int, batch: int) -> dict[str, Any]:
    """Measures each body separately."""
    found: dict[str, Any] = {}
    for name, path, body in bodies(size, batch):
        server.begin()
        started = time.monotonic()
        status = await asyncio.to_thread(server.post, path, body)
        seconds = time.monotonic() - started
        await asyncio.sleep(SETTLE_SECONDS)  # memory freed afterwards counts, too
        pause, peak = server.longest.value * 1000, server.memory("VmHWM")
        what = f"{name}, {len(body) / 2**20:.0f} MiB: {status} in {seconds:.1f} s"
        print(f"{what}; longest pause {pause:.0f} ms, peak {peak} MiB", flush=True)
        found[name] = {
            "bytes": len(body), "status": status, "seconds": seconds, "longest_pause_ms": pause, "peak_mib": peak
        }  # fmt: skip
    return found


async def stalling(server: Server, count: int, size: int, batch: int) -> dict[str, Any]:
    """Sends concurrent uploads of JSON without their last byte."""
    before, loop, streams = server.memory(), asyncio.get_running_loop(), list[socket.socket]()
    piece = b" " * 2**20
    for _ in range(count):
        head = f"POST /v1/batches/{batch}/groups HTTP/1.1\r\nContent-Type: application/json"
        streams.append(await server.opened(f"{head}\r\nContent-Length: {size + 1}"))
        await loop.sock_sendall(streams[-1], b"\r\n")
        with suppress(OSError):  # it is refused
            for _ in range(size // len(piece)):
                await loop.sock_sendall(streams[-1], piece)
    await asyncio.sleep(SETTLE_SECONDS)
    after, refused = server.memory(), sum(_has_answer(stream) for stream in streams)
    for stream in streams:
        stream.close()
    print(f"{count} stalled uploads of {size / 2**20:.0f} MiB: {refused} refused, {before} -> {after} MiB")
    return {"uploads": count, "upload_bytes": size, "refused": refused, "memory_mib": [before, after]}


def _has_answer(stream: socket.socket) -> bool:
    try:
        return bool(stream.recv(1))
    except BlockingIOError:
        return False
    except OSError:
        return True


async def reading(server: Server, count: int, batch: int) -> dict[str, Any]:
    """Requests pages of long responses and reads nothing from the sockets."""
    before = server.memory()
    head = f"GET /v1/batches/{batch}/results?limit={PAGE} HTTP/1.1"
    streams = await asyncio.gather(*(server.opened(head) for _ in range(count)))
    loop = asyncio.get_running_loop()
    for stream in streams:
        await loop.sock_sendall(stream, b"\r\n")
    high, steady = before, 0
    while steady < STEADY:
        await asyncio.sleep(SETTLE_SECONDS)
        now = server.memory()
        high, steady = max(high, now), 0 if now > high else steady + 1
    for stream in streams:
        stream.close()
    print(f"{count} readers that take nothing of {PAGE} x {LENGTH} tokens: {before} -> {high} MiB")
    return {"readers": count, "tokens_per_result": LENGTH, "page": PAGE, "memory_mib": [before, high]}


async def measure_bodies(mib: int, uploads: int, readers: int) -> dict[str, Any]:
    """Runs all measurements with bodies of `mib` MiB, and with stalled uploads and readers."""
    context, size = mp.get_context("spawn"), mib * 2**20
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        async with EmbeddedRedis(Path(path) / "store") as url:
            server = Server(context, url)
            async with AsyncClient(f"http://127.0.0.1:{server.port}", token=TOKEN) as client:
                await client.job()  # the server is up
                batch = await client.open_batch()
                await batch.submit(groups(PAGE // 8 + 1))
                player = context.Process(target=play, args=(url, 0, LENGTH), daemon=True)
                player.start()
                while (await batch.status()).metrics.requests_ok < PAGE:
                    await asyncio.sleep(0.1)
                player.kill()
                player.join()
                player = context.Process(target=play, args=(url, 0, 1), daemon=True)
                player.start()
                other = await client.open_batch()
                # Memory first: what large bodies have left free would hide how it grows.
                unread = await reading(server, readers, batch.id)
                stalled = await stalling(server, uploads, size, other.id)
                taken = await taking(server, size, other.id)
                player.kill()
                player.join()
            server.process.kill()
            server.process.join()
    return {"bodies": taken, "stalled_uploads": stalled, "stalled_readers": unread}
