"""Measures the cost of capturing routed experts to Redis: received and stored bytes per token, with and without.

    PYTHONPATH=benchmarks python benchmarks/routing/store_bytes.py

Both arms make the same calls of one worker to a real Redis: responses of 384 tokens are extended by 16 tokens at a
time, and each is given back once and claimed again. With capture the worker's store first writes rows of 384 bytes per
token.
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from support.stamp import Stamp

from openseer_core.ids import GroupId, WorkerId
from openseer_core.queue.group import SHARED_LANE, GroupSpec, GroupView
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import Claim, ClaimQuery, Delta, Finish
from openseer_core.queue.policy import policy
from openseer_core.queue.states import FinishReason, Status
from openseer_core.routed_rows import RowShape, Stretch
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store, WorkerStore
from openseer_store.redis_link import RedisLink
from openseer_worker.engine import EngineOutput
from openseer_worker.routing.keeper import RouteKeeper
from openseer_worker.routing.rows_first import RowsFirst

JOB, VERSION, WORKER = "benchmark", "initial", WorkerId("worker-0", "1")
GROUPS, GROUP_SIZE, PROMPT_TOKENS, LENGTH, CHUNK = 24, 8, 64, 384, 16
SHAPE = RowShape(48, 8, 1)
MOST = 1.05
"""Target: upper bound of the ratio of bytes with capture to those without."""


def main() -> None:
    """Runs both arms and prints their bytes per token of a response."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    arms = {arm: asyncio.run(measure(captures=arm == "capture")) for arm in ("without", "capture")}
    for arm, found in arms.items():
        print(f"{arm}: " + ", ".join(f"{size:.2f} bytes {name} a token" for name, size in found.items()))
    ratios = {name: arms["capture"][name] / size for name, size in arms["without"].items() if name != "in files"}
    print("with capture: " + ", ".join(f"{ratio:.3f} × {name}" for name, ratio in ratios.items()) + f"; wanted: {MOST}")
    if options.json:
        found = {"bytes_a_token": arms, "ratios": ratios, "most": MOST, "tokens": GROUPS * GROUP_SIZE * LENGTH}
        options.json.write_text(json.dumps({**found, **stamp.fields()}, indent=1) + "\n")


async def measure(*, captures: bool) -> dict[str, float]:
    """Bytes per token of a response: sent to Redis, stored by it, and in files of rows."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        folder, tokens = Path(scratch) / "rows", GROUPS * GROUP_SIZE * LENGTH
        async with EmbeddedRedis(Path(scratch) / "store") as url:
            link, store = RedisLink(url, "{benchmark}"), await open_store(url, JOB)
            got, held = await figure(link, "total_net_input_bytes"), await figure(link, "used_memory_dataset")
            await play(store, RouteKeeper(folder if captures else None, SHAPE, WORKER))
            got = await figure(link, "total_net_input_bytes") - got
            held = await figure(link, "used_memory_dataset") - held
            await link.close()
            await store.close()
        files = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"to Redis": got / tokens, "in Redis": held / tokens, "in files": files / tokens}


async def figure(link: RedisLink, name: str) -> int:
    """One figure of the server's INFO."""
    info = (await link.command("INFO", "everything")).decode()
    return int(info.split(f"{name}:")[1].split()[0])


async def play(store: Store, keeper: RouteKeeper) -> None:
    """Generates all responses, one group after another."""
    worker: WorkerStore = RowsFirst(store, keeper) if keeper.is_on else store
    for ordinal in range(GROUPS):
        await store.submit([make_group(ordinal)])
        for first in (0, LENGTH // 2):
            number = 2 * ordinal + bool(first) + 1
            blocks, layout = 10**6, whole(16)
            query = ClaimQuery(
                VERSION, (SHARED_LANE,), GROUP_SIZE, blocks, layout, 1024, context_tokens=8192, slack=8, number=number
            )
            claims = await worker.claim(WORKER, query)
            assert len(claims) == GROUP_SIZE
            for place in range(first, first + LENGTH // 2, CHUNK):
                deltas = [generate(keeper, claim, place) for claim in claims]
                is_last = place + CHUNK == first + LENGTH // 2
                if not is_last:
                    await worker.extend(WORKER, deltas, [], lease_seconds=60.0, version=VERSION, lanes=(SHARED_LANE,))
                elif first:
                    ends = [Finish(delta, Status.OK, FinishReason.LENGTH, "", None) for delta in deltas]
                    await worker.complete(WORKER, ends)
                else:
                    await worker.give_back(WORKER, deltas)


def generate(keeper: RouteKeeper, claim: Claim, place: int) -> Delta:
    """CHUNK tokens of a response after `place`, with their rows."""
    begin = keeper.rows_from(claim.key) if place == claim.generated else PROMPT_TOKENS + place - 1
    if begin is not None and keeper.is_on:
        rows = bytes((PROMPT_TOKENS + place + CHUNK - 1 - begin) * SHAPE.row_bytes)
        keeper.take(EngineOutput(claim.key, routes=(Stretch(begin, rows),)))
    tokens = pack_tokens(range(place, place + CHUNK)), pack_logprobs([-0.5] * CHUNK)
    return Delta(claim.request, claim.fence, place, *tokens)


def make_group(ordinal: int) -> GroupSpec:
    """One group as a job would submit it."""
    name = GroupId(0, f"prompt-{ordinal:06}")
    view = GroupView(name, 0, ordinal, GROUP_SIZE, LENGTH, 0.0)
    about: dict[str, Any] = {"sampling": '{"temperature": 1.0, "top_p": 1.0}', "enqueued_at": 0.0}
    return GroupSpec(
        id=name,
        version=VERSION,
        ordinal=ordinal,
        prompt=pack_tokens(range(ordinal, ordinal + PROMPT_TOKENS)),
        max_tokens=LENGTH,
        biases=(0.0,) * GROUP_SIZE,
        lanes=(SHARED_LANE,) * GROUP_SIZE,
        priority=policy("fifo").priority(view),
        **about,
    )


if __name__ == "__main__":
    main()
