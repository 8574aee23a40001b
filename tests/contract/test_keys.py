"""The key space of a job and the constants that are in stored values stay as they are."""

from typing import get_args

from openseer_core.ids import INITIAL_VERSION, PARKED_BATCH, GroupId, RequestId, WorkerId, worker_name
from openseer_core.manifest.fleet import PolicyName
from openseer_core.numbers import NUMBERS_PER_MILLISECOND
from openseer_core.queue.group import SHARED_LANE
from openseer_core.queue.messages import APPEND
from openseer_core.queue.policy import BATCH_STRIDE, PROBES_FIRST, RESERVE, TIER_STRIDE, TIERS
from openseer_core.queue.siblings import EARLIER_SECONDS, EARLIER_TOKENS, prompt_digest
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_store.keys import KEY_SPACE, STORE, prefix
from openseer_worker.engine_requests import derive_seed
from tests.contract.forms.recorded import compare


def test_the_keys_of_a_job_stay_the_same() -> None:
    compare("keys", {"prefix": prefix("team-a", "job-1"), "store": STORE, "after the prefix": sorted(KEY_SPACE)})


def test_ids_keep_their_text_form() -> None:
    request = RequestId(GroupId(3, "group:with/slash"), 7)
    worker = WorkerId("worker-1", "boot")
    assert RequestId.parse(str(request)) == request
    assert WorkerId.parse(str(worker)) == worker
    assert (str(request.group), str(request), str(worker), worker_name(4)) == (
        "3/group:with/slash",
        "3/group:with/slash/7",
        "worker-1#boot",
        "worker-4",
    )


def test_packed_tokens_keep_their_bytes() -> None:
    assert pack_tokens([0, 1, 258, 2**31 - 1]).hex() == "000000000100000002010000ffffff7f"
    assert pack_logprobs([0.0, -1.5]).hex() == "000000000000c0bf"


def test_constants_that_are_in_stored_values_are_the_same() -> None:
    found = {
        "shared lane": SHARED_LANE,
        "initial version": INITIAL_VERSION,
        "parked batch": PARKED_BATCH,
        "append": APPEND,
        "numbers of a millisecond": NUMBERS_PER_MILLISECOND,
        "batch stride": BATCH_STRIDE,
        "probes first": PROBES_FIRST,
        "reserve": RESERVE,
        "tier stride": TIER_STRIDE,
        "tiers": TIERS,
        "policies": sorted(get_args(PolicyName)),
        "earlier seconds": EARLIER_SECONDS,
        "earlier tokens": EARLIER_TOKENS,
        "digest of a prompt": prompt_digest(pack_tokens([1, 2, 3])),
        "derived seed": derive_seed(42, "1/g0", 3, 128),
    }
    compare("constants", found)
