"""SkyRL's calls, replayed as its RemoteInferenceClient makes them (skyrl 0.4.0), without a token."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from openseer_core.manifest.job import Model
from openseer_text.rendering import open_codec
from tests.api.compat.stories import long_job, running
from tests.api.compat.test_fields import use
from tests.api.served import Served, served
from tests.text.tokenizers_of_tests import byte_level, save

MODEL = "served"
SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "max_tokens": 40, "logprobs": 0}


class SkyRL:
    """The client's two kinds of calls: `post` for data, `control` for every server."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session

    async def post(self, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        async with self.session.post(self.url + path, json=body, headers=headers) as answer:
            found: dict[str, Any] = json.loads(await answer.read())
            assert answer.status == 200, found["error"]["message"]
            return found

    async def control(self, path: str, body: Any = None, method: str = "POST", **parameters: str) -> Any:
        async with self.session.request(method, self.url + path, json=body, params=parameters) as answer:
            found = await answer.json() if answer.content_length else None
            assert answer.status == 200, found
            return found

    async def generate(self, tokens: int = 40) -> dict[str, Any]:
        sampling = SAMPLING | {"max_tokens": tokens}
        body = {"sampling_params": sampling, "model": MODEL, "token_ids": [5, 6, 7], "cache_salt": "3"}
        headers = {"Content-Type": "application/json", "X-Session-ID": "trajectory-1"}
        return dict((await self.post("/inference/v1/generate", body, **headers))["choices"][0])


async def test_skyrl_renders_reads_and_generates(tmp_path_factory: pytest.TempPathFactory) -> None:
    codec = open_codec(Model(path=str(save(byte_level(opens=True), tmp_path_factory.mktemp("model")))))
    with pytest.MonkeyPatch.context() as patch:
        async with Served(trusted="127.0.0.1") as server, aiohttp.ClientSession() as session:
            use(server, codec, patch)
            skyrl = SkyRL(server.url, session)
            chat = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
            rendered = await skyrl.post("/v1/chat/completions/render", chat)
            text = {"model": MODEL, "prompt": "hi", "add_special_tokens": True}
            tokens = (await skyrl.post("/tokenize", text))["tokens"]
            back = await skyrl.post("/detokenize", {"model": MODEL, "tokens": tokens})
            assert rendered["token_ids"]
            assert back["prompt"].endswith("hi")
    async with served(trusted="127.0.0.1") as server, aiohttp.ClientSession() as session:
        choices = await asyncio.gather(*(SkyRL(server.url, session).generate() for _ in range(4)))
    for choice in choices:
        assert len(choice["token_ids"]) == len(choice["logprobs"]["content"]) > 0
        assert choice["finish_reason"] in ("stop", "length")


async def test_skyrl_pauses_running_requests_and_resumes_them() -> None:
    async with served(job=long_job(400), trusted="127.0.0.1", held=True) as server, aiohttp.ClientSession() as session:
        skyrl = SkyRL(server.url, session)
        assert (await skyrl.control("/get_world_size", {}, "GET"))["world_size"] >= 1
        calls = [asyncio.create_task(skyrl.generate(400)) for _ in range(4)]
        await running(server, 4)
        await skyrl.control("/pause", mode="keep", clear_cache="false")
        await skyrl.control("/reset_prefix_cache", {"reset_running_requests": True})
        await skyrl.control("/resume")
        server.release()
        assert [len(choice["token_ids"]) for choice in await asyncio.gather(*calls)] == [400] * 4
        await skyrl.control("/sleep", level="2")
        assert (await skyrl.control("/is_sleeping", method="GET"))["is_sleeping"] is True
        await skyrl.control("/wake_up")
        assert (await skyrl.control("/is_sleeping", method="GET"))["is_sleeping"] is False
