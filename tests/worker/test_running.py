"""A worker's reserved blocks: for the responses' next quantum, and for tokens before the next decision."""

from dataclasses import replace

from openseer_core.ids import GroupId, RequestId
from openseer_core.manifest.job import RolloutSpec
from openseer_core.model.request_queue import ChunkQueue
from openseer_core.queue.group import GroupView, Priority
from openseer_core.queue.kv_blocks import KvGroup, KvLayout, whole
from openseer_core.queue.messages import Claim, Finish, FleetLoad, Reply, WriteOutcome
from openseer_core.queue.placement import Lanes, Placement
from openseer_core.queue.policy import policy
from openseer_core.queue.quantum import Room
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_worker.engine import EngineOutput, EngineProfile
from openseer_worker.running import RunningRequest, RunningRequests
from tests.store.builders import ANN, BOB, VERSION, query

BLOCK_TOKENS = 16
PROFILE = EngineProfile(1000, whole(BLOCK_TOKENS), 4, 4096, "cpu", "none")
GROUP = GroupId(0, "g")


def running_requests(
    quantum: int = 1024, prompt: int = 2, profile: EngineProfile = PROFILE, most: int = 4000
) -> tuple[RunningRequests, str]:
    running = RunningRequests(profile, policy("context-aware"), RolloutSpec(quantum_tokens=quantum), 4)
    view = GroupView(GROUP, 0, 0, 1, most, 0.0)
    claim = Claim(
        request=RequestId(GROUP, 0),
        fence=1,
        prompt=pack_tokens([1] * prompt),
        tokens=b"",
        max_tokens=most,
        true_length=0,
        sampling="{}",
        bias=0.0,
        priority=Priority(0.0),
        view=view,
    )
    return running, running.admit(claim).key


def leaves_for(waiting: float, profile: EngineProfile) -> bool:
    """Whether a response of 1,000 tokens at the end of its quantum yields to a request with a score better by
    `waiting`."""
    running, key = running_requests(quantum=100, profile=profile)
    running.room = Room(1, profile.blocks)
    gain(running, key, 1000)
    own = policy("context-aware").priority(running.view(GROUP)).request_score(0.0, 1000, is_probe=True)
    running.note_load(FleetLoad(waiting=1, best_waiting=own - waiting, mine=1, inflight=1, workers=1))
    return key in running.decide().leave


def test_a_response_with_movable_context_yields_for_a_gain_of_a_quantum() -> None:
    """A response whose context is computed again elsewhere yields for a gain of a quantum and half of its own
    tokens."""
    moving = replace(PROFILE, contexts_move=True)
    assert [leaves_for(better, moving) for better in (99, 101)] == [False, True]
    assert [leaves_for(better, PROFILE) for better in (101, 599, 601)] == [False, False, True]


def gain(running: RunningRequests, key: str, count: int) -> None:
    running.take(EngineOutput(key, pack_tokens([1] * count), pack_logprobs([0.0] * count)), "v1")


def test_the_margin_is_twice_the_gain_between_two_decisions() -> None:
    running, key = running_requests()
    before = running.margin, running.reserved_blocks
    gain(running, key, 50)
    assert (running.margin, running.reserved_blocks) == before
    gain(running, key, 400)
    assert running.margin == 800
    assert running.reserved_blocks == -(-(2 + 1024 + 800) // BLOCK_TOKENS)


def test_the_margin_after_a_long_pause_is_limited() -> None:
    running, key = running_requests(quantum=256)
    gain(running, key, 3000)
    assert running.margin == 256


def test_output_of_a_removed_request_is_ignored() -> None:
    running, key = running_requests()
    running.drop(key)
    gain(running, key, 900)
    assert len(running) == 0


def test_blocks_of_the_prefill_are_free_after_the_first_token() -> None:
    window = KvLayout((KvGroup(BLOCK_TOKENS, most=4, most_computing=20),))
    running, key = running_requests(prompt=100, profile=replace(PROFILE, layout=window))
    assert running.reserved_blocks == 7
    assert not running.take(EngineOutput(key), "v1")
    assert running.take(EngineOutput(key, pack_tokens([1]), pack_logprobs([0.0])), "v1")
    assert running.reserved_blocks == 4
    assert not running.take(EngineOutput(key, pack_tokens([1]), pack_logprobs([0.0])), "v1")


def test_full_attention_frees_no_block_after_the_prefill() -> None:
    running, key = running_requests(prompt=100)
    before = running.reserved_blocks
    assert not running.take(EngineOutput(key, pack_tokens([1]), pack_logprobs([0.0])), "v1")
    assert running.reserved_blocks == before


def test_scored_tokens_take_no_further_blocks_and_set_no_margin() -> None:
    running, key = running_requests(prompt=1000, most=1)
    before = running.margin, running.reserved_blocks
    gain(running, key, 999)
    assert (running.margin, running.reserved_blocks) == before
    assert running.reserved_blocks == -(-(1000 + 1) // BLOCK_TOKENS)


def test_a_refused_completion_does_not_rescore_its_siblings() -> None:
    queue, chosen = ChunkQueue(), policy("context-aware")
    placement = Placement(chosen, Lanes("context-aware", 1))
    spec = placement.group(GROUP, VERSION, 0, pack_tokens([1]), 4000, 3, 0.0, sampling="{}", metadata="{}")
    queue.submit(spec)
    ann, bob = (RunningRequests(PROFILE, chosen, RolloutSpec(), 4) for _ in range(2))

    def end(running: RunningRequests, response: RunningRequest, length: int) -> Reply:
        gain(running, response.key, length)
        rescore = running.rescore_finish(response)
        [reply] = queue.complete([Finish(response.delta(), Status.OK, FinishReason.STOP, "", rescore)], 0.0)
        running.note_reply(response, reply)
        return reply

    lost, kept = (ann.admit(claim) for claim in queue.claim(ANN, query(2), 0.0))
    queue.give_back([lost.delta()], 0.0)
    [again] = queue.claim(BOB, query(1), 0.0)
    assert end(ann, lost, 10).outcome is WriteOutcome.LOST
    assert end(bob, bob.admit(again), 500).outcome is WriteOutcome.OK
    assert end(ann, kept, 0).outcome is WriteOutcome.STALE
    assert end(ann, kept, 20).outcome is WriteOutcome.OK
    [waiting] = queue.claim(BOB, query(1), 0.0)
    assert waiting.priority == chosen.priority(waiting.view)
