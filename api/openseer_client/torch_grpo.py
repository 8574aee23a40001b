"""A plain GRPO in torch: advantages, log-probabilities and loss over finished groups."""

# torch's types are partial: its values are Any here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from openseer_client.groups import FinishedGroup
from openseer_core.wire.results import ResultItem


@dataclass(frozen=True, slots=True)
class Sample:
    """A response to train on. `mask`: True for sampled tokens; `logprobs`: one per token of the response, recorded at
    the sampling, None if the job records none."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    mask: tuple[bool, ...]
    logprobs: tuple[float, ...] | None
    advantage: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Metrics of a loss, over sampled tokens. `tokens`: their number; `ratio`: mean of new / old probability;
    `clipped`: share of tokens with a clipped ratio; `difference`, `mean_difference`: greatest and mean absolute
    difference between new and old log-probability."""

    tokens: int
    ratio: float
    clipped: float
    difference: float
    mean_difference: float


def advantages(rewards: Sequence[float], *, by_deviation: bool = True) -> list[float]:
    """Returns each reward minus the group's mean, divided by the standard deviation if `by_deviation`;
    0 for equal rewards."""
    mean = sum(rewards) / len(rewards)
    centred = [reward - mean for reward in rewards]
    if not by_deviation:
        return centred
    deviation = (sum(value * value for value in centred) / len(centred)) ** 0.5
    return [value / deviation if deviation > 1e-8 else 0.0 for value in centred]


def samples(group: FinishedGroup, rewards: Sequence[float], *, by_deviation: bool = True) -> list[Sample]:
    """Returns a whole group as samples. `rewards`: in the order of the group's results.

    Raises ValueError for a group that is not whole, or has a log-probability that is not finite.
    """
    if not group.whole or len(rewards) != len(group.results):
        raise ValueError(
            f"group {group.name}: found {group.end.ok} whole of {group.end.size} responses and {len(rewards)} rewards; "
            "needed: all whole, and a reward for each"
        )
    pairs = zip(group.results, advantages(rewards, by_deviation=by_deviation), strict=True)
    return [_sample(item, advantage) for item, advantage in pairs]


def _sample(item: ResultItem, advantage: float) -> Sample:
    scores = item.scores()
    logprobs = tuple(scores) if scores is not None else None
    return Sample(tuple(item.prompt_token_ids), tuple(item.token_ids), tuple(item.mask()), logprobs, advantage)


def log_probabilities(model: Any, batch: Sequence[Sample], *, temperature: float = 1.0) -> Tensor:
    """Returns the log-probability of each response token under the model: float32, [samples, tokens], padded on the
    right with 0.

    With the sampling's `temperature`, and if top_p, top_k and min_p are off, the values equal those that openseer
    records as `sampled`.
    """
    device = next(iter(model.parameters())).device
    rows = [torch.tensor(sample.prompt + sample.response, dtype=torch.long) for sample in batch]
    ids = pad_sequence(rows, batch_first=True).to(device)
    seen = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    logits = model(input_ids=ids, attention_mask=seen).logits[:, :-1].float() / temperature
    chosen = logits.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    every = chosen - logits.logsumexp(-1)
    parts = [
        every[position, len(sample.prompt) - 1 : len(sample.prompt) - 1 + len(sample.response)]
        for position, sample in enumerate(batch)
    ]
    return pad_sequence(parts, batch_first=True)


def loss(
    model: Any,
    batch: Sequence[Sample],
    *,
    temperature: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
) -> tuple[Tensor, Figures]:
    """Returns the clipped GRPO loss and its metrics. The loss is the mean over all sampled tokens of the batch, so each
    token has the same weight.

    The old log-probabilities are those recorded at the sampling, which corrects for responses that were begun with
    older weights; if a sample has none, those of the model itself (ratio 1). Appended tokens are only context, and do
    not count in the loss. The ratio is clipped to [1 - clip_low, 1 + clip_high].
    """
    new = log_probabilities(model, batch, temperature=temperature)
    mask = _padded([torch.tensor(sample.mask, dtype=torch.float32) for sample in batch], new)
    old = new.detach()
    if all(sample.logprobs is not None for sample in batch):
        old = _padded([torch.tensor(sample.logprobs, dtype=torch.float32) for sample in batch], new)
    weight = torch.tensor([sample.advantage for sample in batch], device=new.device).unsqueeze(-1)
    ratio = ((new - old) * mask).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    tokens = mask.sum().clamp(min=1)
    value = -(torch.minimum(ratio * weight, clipped * weight) * mask).sum() / tokens
    with torch.no_grad():
        metrics = Figures(
            tokens=int(mask.sum()),
            ratio=float((ratio * mask).sum() / tokens),
            clipped=float(((ratio != clipped) * mask).sum() / tokens),
            difference=float(((new - old).abs() * mask).max()),
            mean_difference=float(((new - old).abs() * mask).sum() / tokens),
        )
    return value, metrics


def _padded(rows: list[Tensor], like: Tensor) -> Tensor:
    return pad_sequence(rows, batch_first=True).to(like.device)


def difference(model: Any, items: Sequence[ResultItem], *, temperature: float = 1.0) -> float:
    """Returns the greatest absolute difference of recorded and this model's log-probabilities of sampled tokens."""
    batch = [_sample(item, 0.0) for item in items if item.logprobs is not None and item.token_ids]
    with torch.no_grad():
        return loss(model, batch, temperature=temperature)[1].difference if batch else 0.0
