"""The published systems of other authors, on a small fleet."""

from openseer_core.ids import GroupId
from openseer_core.queue.group import GroupView
from openseer_core.queue.policy import policy
from openseer_sim.engine import StepTime
from openseer_sim.fleet import ModelledFleet
from openseer_sim.partial import PartialRollout, partial_by
from openseer_sim.published import oracle_with_error, streamrl, streamrl_dedicated
from openseer_sim.systems import bound_by, divided_by
from openseer_sim.work import GroupLengths, LengthModel, tokens_of

CAP = 4_096
STEP = StepTime(((1.0, 0.01), (1_000.0, 0.02)), per_context=1e-8, per_prefill=1e-6)
FLEET = ModelledFleet(4, STEP, kv_tokens=20_000, slots=8, move_seconds=0.0, look_seconds=0.5)
WORK = LengthModel(1_000, CAP, spread=1.2, correlation=0.7).draw(32, 4, seed=1, prompt=64)
VERL = bound_by("round-robin")(FLEET, WORK, CAP)


def view(**known: int) -> GroupView:
    return GroupView(GroupId(1, "g0"), 0, 0, 4, CAP, 0.0, **known)


def test_streamrl_balances_tokens_over_instances() -> None:
    outcome = streamrl(FLEET, WORK, CAP)
    assert outcome.tokens == tokens_of(WORK)
    assert len(outcome.ends) == len(VERL.ends)
    assert outcome.idle < VERL.idle


def test_streamrl_never_divides_a_group() -> None:
    one = [GroupLengths(64, (1_000,) * 4)]
    for system in (streamrl, streamrl_dedicated):
        assert sum(busy > 0 for busy in system(FLEET, one, CAP).busy) == 1


def test_dedicated_instances_run_the_long_groups_in_small_batches() -> None:
    long, short = GroupLengths(64, (1_000,) * 4), GroupLengths(64, (500,) * 4)
    outcome = streamrl_dedicated(FLEET, [short] * 12 + [long] * 3, CAP)
    assert len(outcome.ends) == 60
    assert all(busy > 0 for busy in outcome.busy)
    alone = streamrl_dedicated(FLEET, [long], CAP)
    assert min(outcome.busy) == max(alone.busy)  # one long group has an instance for itself


def test_partial_rollout_stops_when_enough_groups_are_complete() -> None:
    rollout = PartialRollout(FLEET, WORK)
    rollout.iterate(64)
    first = len(rollout.outcome.ends)
    assert first >= 32 * 4  # 32 whole groups, and responses of groups that continue
    assert first < 64 * 4
    assert rollout.outcome.tokens > 0


def test_partial_rollout_carries_responses_into_the_next_iteration() -> None:
    rollout = PartialRollout(FLEET, WORK)
    for _ in range(3):
        rollout.iterate(64)
    assert rollout.outcome.computed_again > 0
    assert len(rollout.outcome.ends) >= 3 * 32 * 4


def test_partial_rollout_without_over_submission_is_a_whole_rollout() -> None:
    outcome = partial_by(1.0, warm=0, measured=1)(FLEET, WORK, CAP)
    assert len(outcome.ends) == 32 * 4
    assert outcome.tokens == tokens_of(WORK)


def test_partial_rollout_idles_less_than_verl() -> None:
    outcome = partial_by()(FLEET, WORK, CAP)
    assert outcome.throughput > VERL.throughput
    assert outcome.idle < VERL.idle


def test_the_printed_policy_ignores_running_responses() -> None:
    printed = policy("seer").priority
    assert printed(view(finished=1, longest_finished=500, longest_running=3_000)) == printed(
        view(finished=1, longest_finished=500)
    )
    assert printed(view(longest_running=3_000, longest_earlier=9)) == printed(view())


def test_the_printed_policy_runs_probes_shortest_first_then_long_groups() -> None:
    printed = policy("seer").priority
    unknown, short, long = (
        printed(view()),
        printed(view(finished=1, longest_finished=50)),
        printed(view(finished=1, longest_finished=900)),
    )
    assert unknown.request_score(0.0, 10, is_probe=True) < unknown.request_score(0.0, 20, is_probe=True)
    assert unknown.request_score(0.0, 20, is_probe=True) < unknown.request_score(0.0, 0, is_probe=False)
    scores = [priority.request_score(0.0, 0, is_probe=False) for priority in (unknown, long, short)]
    assert scores == sorted(scores)


def test_seer_as_printed_ends_every_response_and_beats_verl() -> None:
    outcome = divided_by("seer", 128)(FLEET, WORK, CAP)
    assert len(outcome.ends) == 32 * 4
    assert outcome.throughput > VERL.throughput


def test_an_oracle_without_error_is_the_oracle_and_errors_cost_time() -> None:
    oracle = divided_by("longest-first-oracle", 128)(FLEET, WORK, CAP)
    assert oracle_with_error(128, 0.0)(FLEET, WORK, CAP).seconds == oracle.seconds
    assert oracle_with_error(128, 2.0)(FLEET, WORK, CAP).seconds > oracle.seconds
