"""Samples from the real engine with drafts: their distribution is the model's."""

# pyright: reportPrivateUsage=false

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openseer_core.manifest.job import Sampling
from openseer_draft.drafter import Drafter, Drafts
from openseer_worker.engine import EngineRequest
from openseer_worker.gpu_bench.exactness import deviations
from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.drafting import NAMES, PROMPTS, drafting_player
from tests.worker.player import PROMPT, Player

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]


LONG = 3
"""Tokens of each sample."""
SAMPLES = 2400
FAR = 5.0
"""Standard deviations that chance does not reach once in a million tests."""


class Stubborn(Drafter):
    """A drafter that always drafts the likeliest continuation of a sample, independent of earlier acceptance."""

    def __init__(self) -> None:
        super().__init__(slots=16, max_tokens=LONG, memory_bytes=2**24)
        self.ends: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.drafted = 0

    def expect(self, chances: dict[tuple[int, ...], float]) -> None:
        """Sets the probabilities of whole samples."""
        self.ends = {}
        for text in sorted(chances, key=chances.__getitem__):
            self.ends |= {text[:done]: text[done:] for done in range(LONG)}

    def step(self, slots: Any, token_ids: Any, rows: Any, ends: Any, seconds: float = 0.0) -> Drafts:
        found = [
            self.ends.get(tuple(token_ids[row, len(PROMPT) : end]), ()) for row, end in zip(rows, ends, strict=True)
        ]
        self.drafted += sum(map(len, found))
        tokens = np.array([(*draft, *[0] * (LONG - len(draft))) for draft in found], np.int32)
        return Drafts(tokens, np.array([len(draft) for draft in found], np.int32))


@pytest.fixture(scope="module")
def stubborn() -> Stubborn:
    return Stubborn()


@pytest.fixture(scope="module")
def player(folder: Path, stubborn: Stubborn) -> Iterator[Player]:
    """An engine with the stubborn drafter."""
    with drafting_player(folder) as player:
        player.engine._core.engine_core.model_executor.driver_worker.worker.model_runner.drafter._drafter = stubborn
        yield player


@pytest.fixture(scope="module")
def logits_of(folder: Path) -> Any:
    """The model's logits for the next token of each of several texts of one length, computed without vLLM."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def logits(texts: list[list[int]]) -> Any:
        with torch.no_grad():
            return reference(torch.tensor(texts)).logits[:, -1]

    return logits


def distribution(logits_of: Any, sampling: Sampling) -> dict[tuple[int, ...], float]:
    """The probability of each sample, if at least 1e-4."""
    import torch  # noqa: PLC0415 - heavy

    chances: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(LONG):
        texts = list(chances)
        scaled = logits_of([PROMPTS[0] + list(text) for text in texts]) / sampling.temperature
        if sampling.top_k:
            scaled[scaled < scaled.topk(sampling.top_k).values[:, -1:]] = -torch.inf
        ordered, indices = scaled.softmax(-1).sort(-1)
        dropped = ordered.cumsum(-1) <= 1 - sampling.top_p
        dropped[:, -1] = False
        scaled[torch.zeros_like(dropped).scatter(1, indices, dropped)] = -torch.inf
        following = scaled.softmax(-1).tolist()
        chances = {
            (*text, token): chances[text] * chance
            for text, row in zip(texts, following, strict=True)
            for token, chance in enumerate(row)
            if chances[text] * chance > 1e-4
        }
    return chances


def surprise(player: Player, chances: dict[tuple[int, ...], float], sampling: Sampling) -> float:
    """Chi-square of the samples against the expected distribution, as standard deviations of equal probability."""
    group = NAMES.new()
    works = [
        EngineRequest(
            f"{group}-{number}", group, number % 64, PROMPTS[0], [], LONG, sampling, number if number % 2 else None
        )
        for number in range(SAMPLES)
    ]
    seen = Counter(tuple(response.tokens) for response in player.run(*works))
    expected = {text: chance * SAMPLES for text, chance in chances.items() if chance * SAMPLES >= 5}
    parts = [(seen[text], mean) for text, mean in expected.items()]
    rest = SAMPLES - sum(mean for _, mean in parts)
    if rest >= 5:
        parts.append((SAMPLES - sum(count for count, _ in parts), rest))
    degrees = len(parts) - 1
    chi_square = sum((count - mean) ** 2 / mean for count, mean in parts)
    return deviations(chi_square, degrees)


SAMPLED = [
    Sampling(temperature=0.6, ignore_eos=True),
    Sampling(temperature=1.0, top_k=4, ignore_eos=True),
    Sampling(temperature=0.9, top_p=0.7, ignore_eos=True),
    Sampling(temperature=1.3, top_k=6, top_p=0.8, ignore_eos=True),
]


@pytest.mark.parametrize("sampling", SAMPLED, ids=["temperature", "top-k", "top-p", "both"])
def test_samples_with_drafts_have_the_models_distribution(
    player: Player, stubborn: Stubborn, logits_of: Any, sampling: Sampling
) -> None:
    chances = distribution(logits_of, sampling)
    stubborn.expect(chances)
    drafted = stubborn.drafted
    assert abs(surprise(player, chances, sampling)) < FAR
    assert stubborn.drafted > drafted + SAMPLES
    assert player.engine.metrics()["drafts"] == "on"


def test_the_test_detects_an_acceptance_that_favours_drafts(
    player: Player, stubborn: Stubborn, logits_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: PLC0415 - heavy
    from vllm.v1.sample import rejection_sampler  # noqa: PLC0415 - heavy

    def lenient(num_tokens: int, *_: Any) -> Any:
        return torch.rand(num_tokens, dtype=torch.float64) * 0.5

    monkeypatch.setattr(rejection_sampler, "generate_uniform_probs", lenient)
    chances = distribution(logits_of, SAMPLED[1])
    stubborn.expect(chances)
    assert surprise(player, chances, SAMPLED[1]) > FAR
