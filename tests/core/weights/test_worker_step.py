"""The next step of a worker in a weights transaction, for each state of it and of the fleet spec."""

from dataclasses import replace
from typing import Any

import pytest

from openseer_core.weights.canary import CANARY_TOLERANCE, canary_difference, canary_tolerance
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import Canary, Publish, Source
from openseer_core.weights.worker_step import WeightsState, WeightsTarget, WorkerStep, current_attempt, next_step

ONE, TWO = "1" * 64, "2" * 64
OLD, NEW = Source(path="/old", digest=ONE), Source(path="/new", digest=TWO)
ON_OLD, ON_NEW = WeightsState("v1", 1, ONE), WeightsState("v2", 2, TWO)
TO_OLD, TO_NEW = WeightsTarget("v1", 1, OLD), WeightsTarget("v2", 2, NEW)
HANDS_BACK = WorkerStep(give_back=True)
STAGE: dict[str, Any] = {"rest": "sleep", "awake": ("weights",), "keeps_weights": False}
WEIGHTS_AWAKE = WeightsState("", asleep=True, weights_awake=True)
NEW_ASLEEP = replace(ON_NEW, asleep=True, weights_awake=True)


def fleet_spec(phase: str = "", mode: str = "drain", **more: Any) -> FleetSpec:
    """The fleet spec of v1; with a phase, in a transaction to v2."""
    committed = phase == "commit"
    values: dict[str, Any] = {"version": "v2" if committed else "v1", "publisher": 2 if committed else 1}
    values["source"] = NEW if committed else OLD
    if phase:
        publish = Publish.model_validate({"version": "v2", "source": NEW, "mode": mode})
        values["transaction"] = WeightsTransaction.model_validate(
            {"id": 2, "publish": publish, "previous": "v1", "previous_source": OLD, "phase": phase}
            | {"started_at": 0.0, "entered_at": 0.0}
        )
    return FleetSpec(**(values | more))


@pytest.mark.parametrize(
    ("spec", "state", "running", "expected"),
    [
        # No transaction: claims, or loads of weights that were missed.
        (fleet_spec(), ON_OLD, 3, WorkerStep(claims=True)),
        (fleet_spec(), WeightsState(), 3, HANDS_BACK),
        (fleet_spec(), WeightsState(), 0, WorkerStep(load=TO_OLD)),
        (fleet_spec(), WeightsState(""), 0, WorkerStep(load=TO_OLD)),
        (fleet_spec(), WeightsState("v1", 7), 0, WorkerStep(load=TO_OLD)),
        (fleet_spec(), WeightsState(failed=(0, 0, "")), 0, WorkerStep()),
        # Content that differs from the version's, and a version whose digest is not known yet.
        (fleet_spec(), WeightsState("v1", 1, TWO), 3, HANDS_BACK),
        (fleet_spec(), WeightsState("v1", 1, TWO), 0, WorkerStep(load=TO_OLD)),
        (fleet_spec("commit"), WeightsState("v2", 2, ONE), 0, WorkerStep(load=TO_NEW)),
        (fleet_spec(source=Source(path="/old")), ON_OLD, 0, WorkerStep()),
        (fleet_spec(source=None), WeightsState("v1", 1), 0, WorkerStep(claims=True)),
        # Prefetch runs beside the requests.
        (fleet_spec("prefetch"), ON_OLD, 3, WorkerStep(claims=True, fetch=TO_NEW)),
        (
            fleet_spec("prefetch"),
            WeightsState("v1", 1, ONE, fetched=2),
            3,
            WorkerStep(claims=True, confirms="prefetch"),
        ),
        (fleet_spec("prefetch"), WeightsState("v1", 1, ONE, failed=(2, 0, "prefetch")), 3, WorkerStep(claims=True)),
        (fleet_spec("prefetch"), WeightsState(), 0, WorkerStep(load=TO_OLD, fetch=TO_NEW)),
        # Quiesce.
        (fleet_spec("quiesce"), ON_OLD, 3, WorkerStep(claims=True, confirms="quiesce")),
        (fleet_spec("quiesce", "keep"), ON_OLD, 3, HANDS_BACK),
        (fleet_spec("quiesce", "keep"), ON_OLD, 0, WorkerStep(confirms="quiesce")),
        (fleet_spec("quiesce", "abort"), WeightsState(), 0, WorkerStep(confirms="quiesce")),
        # Load.
        (fleet_spec("load"), ON_OLD, 1, HANDS_BACK),
        (fleet_spec("load"), ON_OLD, 0, WorkerStep(load=TO_NEW)),
        (fleet_spec("load"), WeightsState(), 0, WorkerStep(load=TO_NEW)),
        (fleet_spec("load"), ON_NEW, 0, WorkerStep(confirms="load")),
        (fleet_spec("load"), WeightsState("", failed=(2, 0, "load")), 0, WorkerStep()),
        (fleet_spec("load"), WeightsState("", failed=(2, 0, "prefetch")), 0, WorkerStep(load=TO_NEW)),
        # Commit: no worker claims until it is done.
        (fleet_spec("commit"), ON_NEW, 0, WorkerStep()),
        (fleet_spec("commit"), ON_OLD, 0, WorkerStep(load=TO_NEW)),
        # Rollback.
        (fleet_spec("rollback"), ON_NEW, 0, WorkerStep(load=TO_OLD)),
        (fleet_spec("rollback"), ON_OLD, 0, WorkerStep(confirms="rollback")),
        (fleet_spec("rollback"), WeightsState("", failed=(2, 0, "load")), 0, WorkerStep(load=TO_OLD)),
        (fleet_spec("rollback"), WeightsState("", failed=(2, 0, "rollback")), 0, WorkerStep(leaves=True)),
        # Rest.
        (fleet_spec(rest="sleep"), ON_OLD, 3, HANDS_BACK),
        (fleet_spec(rest="sleep"), ON_OLD, 0, WorkerStep(sleep=True)),
        (fleet_spec(rest="sleep"), WeightsState("v1", 1, ONE, asleep=True), 0, WorkerStep()),
        (fleet_spec(rest="sleep"), WeightsState("v1", 1, ONE, failed=(0, 0, "")), 0, WorkerStep()),
        (fleet_spec(rest="stop"), ON_OLD, 0, WorkerStep()),
        (fleet_spec(), WeightsState("v1", 1, ONE, asleep=True), 0, WorkerStep(wake=True)),
        (fleet_spec("load", rest="sleep"), ON_OLD, 0, WorkerStep(sleep=True)),
        # Weights that are discarded or awake alone: new ones are loaded, the previous ones not yet.
        (fleet_spec(rest="sleep", keeps_weights=False), ON_OLD, 0, WorkerStep(sleep=True, discards=True)),
        (fleet_spec(), WeightsState("", asleep=True), 0, WorkerStep(wake=True)),
        (fleet_spec(**STAGE), ON_OLD, 3, HANDS_BACK),
        (fleet_spec(**STAGE), ON_OLD, 0, WorkerStep(sleep=True, discards=True)),
        (fleet_spec(**STAGE), WeightsState("", asleep=True), 0, WorkerStep(wake_weights=True)),
        (fleet_spec(**STAGE), WEIGHTS_AWAKE, 0, WorkerStep()),
        (fleet_spec(**STAGE), WeightsState("", asleep=True, failed=(0, 0, "")), 0, WorkerStep()),
        (fleet_spec(rest="sleep", awake=("kv_cache",)), WeightsState("", asleep=True), 0, WorkerStep()),
        (fleet_spec(rest="sleep"), WEIGHTS_AWAKE, 0, WorkerStep(sleep=True)),
        (fleet_spec(), WEIGHTS_AWAKE, 0, WorkerStep(wake=True)),
        (fleet_spec("prefetch", **STAGE), WEIGHTS_AWAKE, 0, WorkerStep(fetch=TO_NEW)),
        (fleet_spec("prefetch", **STAGE), replace(WEIGHTS_AWAKE, fetched=2), 0, WorkerStep(confirms="prefetch")),
        (fleet_spec("quiesce", **STAGE), WEIGHTS_AWAKE, 0, WorkerStep(confirms="quiesce")),
        (fleet_spec("load", **STAGE), WEIGHTS_AWAKE, 0, WorkerStep(load=TO_NEW)),
        (fleet_spec("load", **STAGE), NEW_ASLEEP, 0, WorkerStep(confirms="load")),
        (fleet_spec("rollback", **STAGE), NEW_ASLEEP, 0, WorkerStep(load=TO_OLD)),
        (fleet_spec("commit", **STAGE), NEW_ASLEEP, 0, WorkerStep()),
        (fleet_spec("load", rest="sleep"), WeightsState("", asleep=True), 0, WorkerStep()),
    ],
)
def test_the_next_step_follows_from_fleet_spec_and_state(
    spec: FleetSpec, state: WeightsState, running: int, expected: WorkerStep
) -> None:
    assert next_step(spec, state, running) == expected


def test_a_failure_belongs_to_one_attempt_in_one_phase() -> None:
    assert current_attempt(fleet_spec()) == (0, 0, "")
    assert current_attempt(fleet_spec("load")) == (2, 0, "load")


CANARY = Canary(token_ids=[1, 2, 3], logprobs=[-1.0, -2.0])


def test_a_canary_agrees_within_the_tolerance_of_the_number_format() -> None:
    assert canary_difference(CANARY, [-1.25, -2.0]) == 0.25
    assert canary_difference(CANARY, [-1.0, -2.25]) == 0.125
    assert canary_tolerance(CANARY, "float32") == CANARY_TOLERANCE["float32"]
    assert canary_tolerance(CANARY, "float4") == max(CANARY_TOLERANCE.values())
    assert canary_tolerance(CANARY.model_copy(update={"tolerance": 0.5}), "float32") == 0.5


@pytest.mark.parametrize("scored", [[], [-1.0], [-1.0, float("nan")], [-1.0, float("-inf")]])
def test_a_canary_that_cannot_be_compared_never_agrees(scored: list[float]) -> None:
    assert canary_difference(CANARY, scored) == float("inf")
