"""From a lease to the engine's request, or to the reason why this engine cannot go on with it."""

from hashlib import blake2b

from openseer_core.admission import ModelLimits, bad_token, misfit, overflow
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.messages import Claim, Delta, Finish
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import unpack_tokens
from openseer_worker.engine import EngineRequest

_SEED_BITS = 63


def derive_seed(seed: int, group: str, index: int, position: int) -> int:
    """The engine's seed for response `index` of `group`, taken up after `position` tokens.

    An engine starts its generator anew when it is given a seed. With the same seed after a move, the response would
    repeat the same draws; so the position is a part of it. Stable over machines and releases.
    """
    text = f"{seed}\x1f{group}\x1f{index}\x1f{position}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> (64 - _SEED_BITS)


def engine_request(claim: Claim, weights: str, kv_place: str = "", rows_from: int | None = None) -> EngineRequest:
    """What the engine is given for a lease. `weights`: the version that it has; another one is an adapter's.
    `kv_place`, `rows_from`: see EngineRequest."""
    sampling = parse_sampling(claim.sampling)
    group, index = str(claim.request.group), claim.request.index
    base_seed = sampling.seed if claim.seed is None else claim.seed
    seed = None if base_seed is None else derive_seed(base_seed, group, index, claim.generated)
    return EngineRequest(
        claim.key,
        group,
        index,
        unpack_tokens(claim.prompt),
        unpack_tokens(claim.tokens),
        claim.max_tokens,
        sampling,
        seed,
        claim.true_length,
        "" if claim.version == weights else claim.version,
        kv_place,
        rows_from,
    )


def misfit_here(request: EngineRequest, limits: ModelLimits, largest: int) -> str | None:
    """Why an engine of these limits cannot go on with a request; None when it can.

    Who submitted it has checked the same, but may have known no limits before the first worker was there. A request
    that has room here may become as long as the fleet's largest worker takes, `largest` tokens: it moves there.
    """
    if limits.request_tokens and len(request.prompt) + len(request.tokens) < limits.request_tokens < largest:
        limits = ModelLimits(vocabulary=limits.vocabulary, worker_tokens=largest)
    return (
        misfit(request.prompt, request.sampling, limits, (request.true_length,))
        or bad_token("token_ids", request.tokens, limits)
        or overflow(len(request.prompt), len(request.tokens), limits)
    )


def refusal(claim: Claim, reason: str) -> Finish:
    """The end of a request that no engine gets."""
    return Finish(
        Delta(claim.request, claim.fence, claim.generated), Status.INFRA_FAILED, FinishReason.INFRA_FAILED, reason
    )
