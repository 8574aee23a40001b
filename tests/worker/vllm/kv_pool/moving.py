"""Responses that move between engines of one pool: prompts, lengths, and engines with room for them."""

from pathlib import Path

from openseer_core.manifest.job import Parallelism, Sampling
from openseer_worker.engine import EngineRequest
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.vllm.engine import VllmEngine
from tests.worker.drafting import NAMES
from tests.worker.player import GREEDY, model

PROMPTS = [[(7 * position + 5 * number) % 90 + 4 for position in range(70)] for number in range(7)]
CHUNK, WHOLE = 90, 170
BLOCK = 32
"""Tokens of a block on a CPU; a test of the engine holds it against the engine's own number."""
ROOM = {"num_gpu_blocks_override": 65}
"""For all prompts at once."""
SALT = "drafts"
"""The salt of `drafting_player`, so that an engine without drafts shares blocks with it."""


def request(prompt: int, tokens: list[int], length: int, place: str, group: str = "") -> EngineRequest:
    """A request for the response to a prompt, by number, up to `length`. `tokens`: its tokens so far."""
    name = NAMES.new()
    return EngineRequest(name, group or name, 0, PROMPTS[prompt], list(tokens), length, GREEDY, kv_place=place)


def plain_engine(folder: Path, pool: EnginePool | None) -> VllmEngine:
    """An engine without drafts."""
    return VllmEngine(model(folder, **ROOM), Parallelism(), Sampling(), cache_salt=SALT, pool=pool)
