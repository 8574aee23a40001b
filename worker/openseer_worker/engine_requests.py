"""Converts a lease into the engine's request, or returns the reason why this engine cannot run it."""

from hashlib import blake2b

from openseer_core.admission import ModelLimits, bad_token, misfit, overflow
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.messages import Claim, Delta, Finish
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import unpack_tokens
from openseer_worker.engine import EngineRequest

_SEED_BITS = 63


def derive_seed(seed: int, group: str, index: int, position: int) -> int:
    """The engine's seed for response `index` of `group`, resumed after `position` tokens.

    An engine initializes its random generator from a request's seed. With the same seed after a move, the response
    would repeat its draws; so the seed depends on the position. It is the same on all machines and in all releases.
    """
    text = f"{seed}\x1f{group}\x1f{index}\x1f{position}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> (64 - _SEED_BITS)


def engine_request(claim: Claim, weights: str, kv_place: str = "", rows_from: int | None = None) -> EngineRequest:
    """The engine's request for a lease. `weights`: the engine's weights version; any other version of a lease is an
    adapter. `kv_place`, `rows_from`: see EngineRequest."""
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
    """The reason why an engine with these limits cannot run a request; None if it can.

    The submitter makes the same check, but before the first worker is ready it does not have the limits. A request that
    fits here may grow to `largest` tokens, the largest token limit of any worker in the fleet: it then moves there.
    """
    if limits.request_tokens and len(request.prompt) + len(request.tokens) < limits.request_tokens < largest:
        limits = ModelLimits(vocabulary=limits.vocabulary, worker_tokens=largest)
    return (
        misfit(request.prompt, request.sampling, limits, (request.true_length,))
        or bad_token("token_ids", request.tokens, limits)
        or overflow(len(request.prompt), len(request.tokens), limits)
    )


def refusal(claim: Claim, reason: str) -> Finish:
    """The failed end of a request that no engine can run, with the reason."""
    return Finish(
        Delta(claim.request, claim.fence, claim.generated), Status.INFRA_FAILED, FinishReason.INFRA_FAILED, reason
    )
