"""What a worker reserves for its responses: blocks for their next quantum, and for what comes before it can decide."""

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


def running_requests(quantum: int = 1024) -> tuple[RunningRequests, str]:
    running = RunningRequests(PROFILE, policy("context-aware"), RolloutSpec(quantum_tokens=quantum), 4)
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
    return running, running.admit(claim).key


def gain(running: RunningRequests, key: str, count: int) -> None:
    running.take(EngineOutput(key, pack_tokens([1] * count), pack_logprobs([0.0] * count)))


def test_a_response_that_gains_much_between_two_decisions_is_reserved_twice_that() -> None:
    running, key = running_requests()
    before = running.margin, running.reserved_blocks
    gain(running, key, 50)
    assert (running.margin, running.reserved_blocks) == before
    gain(running, key, 400)
    assert running.margin == 800
    assert running.reserved_blocks == -(-(2 + 1024 + 800) // PROFILE.block_tokens)


def test_one_long_pause_of_the_machine_does_not_take_all_blocks() -> None:
    running, key = running_requests(quantum=256)
    gain(running, key, 3000)
    assert running.margin == 256


def test_output_of_a_request_that_is_gone_is_not_taken() -> None:
    running, key = running_requests()
    running.drop(key)
    gain(running, key, 900)
    assert len(running) == 0
