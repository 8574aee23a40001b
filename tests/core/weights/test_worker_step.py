"""What a worker does about its weights, line by line."""

from typing import Any

import pytest

from openseer_core.weights.canary import CANARY_TOLERANCE, canary_difference, canary_tolerance
from openseer_core.weights.fleet_spec import Ongoing, Orders
from openseer_core.weights.publish import Canary, Publish, Source
from openseer_core.weights.worker_step import Have, Target, Todo, the_try, todo

OLD, NEW = Source(path="/old"), Source(path="/new")
ON_OLD, ON_NEW = Have("v1", 1), Have("v2", 2)
TO_OLD, TO_NEW = Target("v1", 1, OLD), Target("v2", 2, NEW)
HANDS_BACK = Todo(give_back=True)


def orders(phase: str = "", mode: str = "drain", **more: Any) -> Orders:
    """A fleet on v1; with a phase, on its way to v2."""
    committed = phase == "commit"
    values: dict[str, Any] = {"version": "v2" if committed else "v1", "publisher": 2 if committed else 1}
    values["source"] = NEW if committed else OLD
    if phase:
        publish = Publish.model_validate({"version": "v2", "source": NEW, "mode": mode})
        values["transaction"] = Ongoing.model_validate(
            {"id": 2, "publish": publish, "previous": "v1", "previous_source": OLD, "phase": phase}
            | {"started_at": 0.0, "entered_at": 0.0}
        )
    return Orders(**(values | more))


@pytest.mark.parametrize(
    ("told", "have", "held", "expected"),
    [
        # At rest, and what was missed.
        (orders(), ON_OLD, 3, Todo(claims=True)),
        (orders(), Have(), 3, HANDS_BACK),
        (orders(), Have(), 0, Todo(load=TO_OLD)),
        (orders(), Have(""), 0, Todo(load=TO_OLD)),
        (orders(), Have("v1", 7), 0, Todo(load=TO_OLD)),
        (orders(), Have(failed=(0, 0, "")), 0, Todo()),
        # Prefetch goes beside the work.
        (orders("prefetch"), ON_OLD, 3, Todo(claims=True, fetch=NEW)),
        (orders("prefetch"), Have("v1", 1, fetched=2), 3, Todo(claims=True, confirms="prefetch")),
        (orders("prefetch"), Have("v1", 1, failed=(2, 0, "prefetch")), 3, Todo(claims=True)),
        (orders("prefetch"), Have(), 0, Todo(load=TO_OLD, fetch=NEW)),
        # Quiesce.
        (orders("quiesce"), ON_OLD, 3, Todo(claims=True, confirms="quiesce")),
        (orders("quiesce", "keep"), ON_OLD, 3, HANDS_BACK),
        (orders("quiesce", "keep"), ON_OLD, 0, Todo(confirms="quiesce")),
        (orders("quiesce", "abort"), Have(), 0, Todo(confirms="quiesce")),
        # Load.
        (orders("load"), ON_OLD, 1, HANDS_BACK),
        (orders("load"), ON_OLD, 0, Todo(load=TO_NEW)),
        (orders("load"), Have(), 0, Todo(load=TO_NEW)),
        (orders("load"), ON_NEW, 0, Todo(confirms="load")),
        (orders("load"), Have("", failed=(2, 0, "load")), 0, Todo()),
        (orders("load"), Have("", failed=(2, 0, "prefetch")), 0, Todo(load=TO_NEW)),
        # Commit: nobody claims until it is done.
        (orders("commit"), ON_NEW, 0, Todo()),
        (orders("commit"), ON_OLD, 0, Todo(load=TO_NEW)),
        # Rollback.
        (orders("rollback"), ON_NEW, 0, Todo(load=TO_OLD)),
        (orders("rollback"), ON_OLD, 0, Todo(confirms="rollback")),
        (orders("rollback"), Have("", failed=(2, 0, "load")), 0, Todo(load=TO_OLD)),
        (orders("rollback"), Have("", failed=(2, 0, "rollback")), 0, Todo(leaves=True)),
        # Rest.
        (orders(rest="sleep"), ON_OLD, 3, HANDS_BACK),
        (orders(rest="sleep"), ON_OLD, 0, Todo(sleep=True)),
        (orders(rest="sleep"), Have("v1", 1, asleep=True), 0, Todo()),
        (orders(rest="sleep"), Have("v1", 1, failed=(0, 0, "")), 0, Todo()),
        (orders(rest="stop"), ON_OLD, 0, Todo()),
        (orders(), Have("v1", 1, asleep=True), 0, Todo(wake=True)),
        (orders("load", rest="sleep"), ON_OLD, 0, Todo(sleep=True)),
    ],
)
def test_the_next_step_follows_from_the_orders_and_from_what_it_has(
    told: Orders, have: Have, held: int, expected: Todo
) -> None:
    assert todo(told, have, held) == expected


def test_a_failure_is_of_one_attempt_in_one_phase() -> None:
    assert the_try(orders()) == (0, 0, "")
    assert the_try(orders("load")) == (2, 0, "load")


CANARY = Canary(token_ids=[1, 2, 3], logprobs=[-1.0, -2.0])


def test_a_canary_agrees_within_what_the_number_format_can_tell() -> None:
    assert canary_difference(CANARY, [-1.25, -2.0]) == 0.25
    assert canary_difference(CANARY, [-1.0, -2.25]) == 0.125
    assert canary_tolerance(CANARY, "float32") == CANARY_TOLERANCE["float32"]
    assert canary_tolerance(CANARY, "float4") == max(CANARY_TOLERANCE.values())
    assert canary_tolerance(CANARY.model_copy(update={"tolerance": 0.5}), "float32") == 0.5


@pytest.mark.parametrize("scored", [[], [-1.0], [-1.0, float("nan")], [-1.0, float("-inf")]])
def test_a_canary_that_cannot_be_compared_never_agrees(scored: list[float]) -> None:
    assert canary_difference(CANARY, scored) == float("inf")
