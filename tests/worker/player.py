"""Shared code of tests of the real engine: engine requests on one prompt, and a Player that runs them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openseer_core.manifest.job import Model, Sampling
from openseer_core.queue.states import FinishReason
from openseer_core.routed_rows import Stretch
from openseer_core.token_scores import Likeliest, likeliest, own_scores
from openseer_core.tokens import unpack_logprobs, unpack_tokens
from openseer_worker.engine import EngineRequest
from openseer_worker.vllm.engine import VllmEngine

CONTEXT = 256
BLOCKS = 24
PROMPT = list(range(10, 34))
GREEDY = Sampling(temperature=0, ignore_eos=True)
NUMBER = itertools.count()


@dataclass
class Response:
    """The accumulated outputs of one engine request."""

    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    likeliest: list[Likeliest] = field(default_factory=list[Likeliest])
    finish: FinishReason | None = None
    stop_reason: str = ""
    finishes: int = 0
    routes: list[Stretch] = field(default_factory=list[Stretch])


def work(sampling: Sampling, max_tokens: int = 96, tokens: list[int] | None = None, **more: Any) -> EngineRequest:
    """An engine request on PROMPT, with a unique key."""
    return EngineRequest(f"work-{next(NUMBER)}", "g", 0, PROMPT, tokens or [], max_tokens, sampling, **more)


class Player:
    """Runs engine requests to their ends and collects their outputs."""

    def __init__(self, engine: VllmEngine) -> None:
        self.engine = engine
        self.responses: dict[str, Response] = {}
        engine.start(lambda: None)

    def add(self, request: EngineRequest) -> Response:
        response = self.responses[request.key] = Response()
        self.engine.add(request)
        return response

    def poll(self) -> None:
        self.engine.check()
        for output in self.engine.collect():
            response = self.responses[output.key]
            response.tokens += unpack_tokens(output.tokens)
            response.logprobs += unpack_logprobs(own_scores(output.tokens, output.logprobs))
            response.routes += output.routes
            response.likeliest += likeliest(output.tokens, output.logprobs) or []
            if output.finish is not None:
                response.finish, response.stop_reason = output.finish, output.stop_reason
                response.finishes += 1

    def run(self, *requests: EngineRequest) -> list[Response]:
        responses = [self.add(request) for request in requests]
        while not all(response.finish for response in responses):
            self.poll()
            time.sleep(0.005)
        return responses

    def one(self, sampling: Sampling, max_tokens: int = 96, tokens: list[int] | None = None, **more: Any) -> Response:
        return self.run(work(sampling, max_tokens, tokens, **more))[0]


def model(folder: Path, **arguments: Any) -> Model:
    small = {"max_model_len": CONTEXT, "num_gpu_blocks_override": BLOCKS + 1, "max_num_seqs": 8}
    return Model(path=str(folder), dtype="float32", engine_args=small | arguments)


def sampled_logprobs(logits: Any, sampling: Sampling, tokens: list[int]) -> list[float]:
    """Log-probabilities of `tokens` after temperature, then topK, then topP. `logits`: one row per token."""
    import torch  # noqa: PLC0415 - heavy

    scaled = logits / sampling.temperature
    if sampling.top_k:
        scaled[scaled < scaled.topk(sampling.top_k).values[:, -1:]] = -torch.inf
    ordered, indices = scaled.softmax(-1).sort(-1)
    dropped = ordered.cumsum(-1) <= 1 - sampling.top_p
    dropped[:, -1] = False
    scaled[dropped.scatter(1, indices, dropped)] = -torch.inf
    return scaled.log_softmax(-1)[range(len(tokens)), tokens].tolist()
