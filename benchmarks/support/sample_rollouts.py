"""Samples groups of responses with the tiny model and writes them to benchmarks/data; takes about two minutes.

    PYTHONPATH=benchmarks python -m support.sample_rollouts

`benchmarks/drafting.py` replays these responses.
"""

import argparse
import asyncio
import json

from openseer_core.manifest.job import Model, Sampling
from openseer_core.tokens import unpack_tokens
from openseer_worker.engine import EngineRequest
from openseer_worker.vllm.engine import VllmEngine
from support.tiny_rollouts import MODEL, SAMPLED, prompts, vocabulary

MOST_TOKENS = 3072
_SEED = 6
_SLOTS = 64


async def sample(groups: int, size: int) -> list[dict[str, str | list[str]]]:
    """Samples groups with one engine."""
    drawn = prompts(groups, _SEED)
    letters = {number: letter for letter, number in vocabulary().items()}
    model = Model.model_validate({"path": str(MODEL), "engineArgs": {"max_num_seqs": _SLOTS}})
    engine = VllmEngine(model, cache_salt="benchmark")
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    engine.start(lambda: (loop.call_soon_threadsafe(ended.set), None)[1])
    sampling = Sampling(temperature=1.0, max_tokens=MOST_TOKENS)
    texts = {f"{group}-{index}": "" for group in range(groups) for index in range(size)}
    for key in texts:
        group, index = map(int, key.split("-"))
        engine.add(EngineRequest(key, str(group), index, drawn[group][1], [], MOST_TOKENS, sampling))
    missing = len(texts)
    while missing:
        await ended.wait()
        ended.clear()
        for progress in engine.collect():
            texts[progress.key] += "".join(letters[token] for token in unpack_tokens(progress.tokens))
            missing -= progress.finish is not None
    await engine.close()
    return [
        {"prompt": text, "responses": [texts[f"{group}-{index}"] for index in range(size)]}
        for group, (text, _) in enumerate(drawn)
    ]


def main() -> None:
    """Samples and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=24)
    parser.add_argument("--size", type=int, default=16, help="responses per group")
    options = parser.parse_args()
    lines = asyncio.run(sample(options.groups, options.size))
    SAMPLED.parent.mkdir(exist_ok=True)
    SAMPLED.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{SAMPLED}: {len(lines)} groups, {sum(len(text) for line in lines for text in line['responses'])} tokens")


if __name__ == "__main__":
    main()
