"""What a worker promises to its responses: blocks for their next quantum, and for what comes before it can decide."""

from openseer_core.ids import GroupId, RequestId
from openseer_core.manifest.job import RolloutSpec
from openseer_core.queue.group import GroupView, Priority
from openseer_core.queue.messages import Claim
from openseer_core.queue.policy import policy
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_worker.engine import EngineOutput, EngineProfile
from openseer_worker.running import RunningRequests

PROFILE = EngineProfile(1000, 16, 4, 4096, "cpu", "none")
GROUP = GroupId(0, "g")


def holdings(quantum: int = 1024) -> tuple[RunningRequests, str]:
    held = RunningRequests(PROFILE, policy("context-aware"), RolloutSpec(quantum_tokens=quantum), 4)
    view = GroupView(GROUP, 0, 0, 1, 4000, 0.0)
    claim = Claim(
        request=RequestId(GROUP, 0),
        fence=1,
        prompt=pack_tokens([1, 2]),
        tokens=b"",
        max_tokens=4000,
        true_length=0,
        sampling="{}",
        bias=0.0,
        priority=Priority(0.0),
        view=view,
    )
    return held, held.admit(claim).key


def gain(held: RunningRequests, key: str, count: int) -> None:
    held.take(EngineOutput(key, pack_tokens([1] * count), pack_logprobs([0.0] * count)))


def test_a_response_that_gains_much_between_two_looks_is_promised_twice_that() -> None:
    held, key = holdings()
    before = held.margin, held.reserved_blocks
    gain(held, key, 50)
    assert (held.margin, held.reserved_blocks) == before
    gain(held, key, 400)
    assert held.margin == 800
    assert held.reserved_blocks == -(-(2 + 1024 + 800) // PROFILE.block_tokens)


def test_one_long_pause_of_the_machine_does_not_take_all_blocks() -> None:
    held, key = holdings(quantum=256)
    gain(held, key, 3000)
    assert held.margin == 256


def test_what_is_no_longer_held_is_not_taken() -> None:
    held, key = holdings()
    held.drop(key)
    gain(held, key, 900)
    assert len(held) == 0
