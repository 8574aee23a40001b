"""The sleep of engines: changes of the fleet spec, and the workers that have followed."""

from openseer_core.weights.fleet_spec import MEMORY_PARTS, FleetSpec
from openseer_core.weights.rest import asleep, awake_parts, is_at_rest, woken
from openseer_core.weights.transaction import participants
from openseer_core.worker.heartbeat import Heartbeat, WeightsReport, WorkerState, WorkerStatus

AWAKE = FleetSpec()


def test_parts_wake_one_after_the_other_and_in_any_order() -> None:
    sleeping = asleep(AWAKE, MEMORY_PARTS, 5.0, keep_weights=False)
    assert (sleeping.rest, sleeping.awake, sleeping.keeps_weights, sleeping.rest_since) == ("sleep", (), False, 5.0)
    for first, second in (MEMORY_PARTS, MEMORY_PARTS[::-1]):
        half = woken(sleeping, [first], 6.0)
        assert (half.rest, half.awake, half.keeps_weights) == ("sleep", (first,), False)
        whole = woken(half, [second], 7.0)
        assert (whole.rest, whole.awake, whole.keeps_weights, whole.rest_since) == (None, (), True, 7.0)
        assert awake_parts(whole) == MEMORY_PARTS


def test_a_change_without_effect_returns_the_same_fleet_spec() -> None:
    sleeping = asleep(AWAKE, MEMORY_PARTS, 5.0)
    stopped = AWAKE.changed(rest="stop")
    assert asleep(sleeping, MEMORY_PARTS, 6.0, keep_weights=False) is sleeping
    assert asleep(stopped, ["weights"], 6.0) is stopped
    assert woken(AWAKE, MEMORY_PARTS, 6.0) is AWAKE
    assert woken(sleeping, ["scheduling"], 6.0) is sleeping


def test_only_awake_weights_follow_a_new_choice_of_being_kept() -> None:
    half = woken(asleep(AWAKE, MEMORY_PARTS, 5.0, keep_weights=False), ["kv_cache"], 6.0)
    assert asleep(half, MEMORY_PARTS, 7.0, keep_weights=True).keeps_weights is False
    half = woken(asleep(AWAKE, MEMORY_PARTS, 5.0, keep_weights=True), ["weights"], 6.0)
    assert asleep(half, MEMORY_PARTS, 7.0, keep_weights=False).keeps_weights is False


def test_a_stopped_fleet_that_wakes_in_part_has_workers_again() -> None:
    half = woken(AWAKE.changed(rest="stop"), ["weights"], 5.0)
    assert (half.rest, half.awake, half.weights_awake) == ("sleep", ("weights",), True)


def test_a_worker_at_rest_has_the_sleep_that_the_fleet_spec_states() -> None:
    sleeping = asleep(AWAKE, MEMORY_PARTS, 5.0)
    half = woken(sleeping, ["weights"], 6.0)
    for report in (None, WeightsReport()):
        assert not is_at_rest(sleeping, report)
    deep, shallow = WeightsReport(asleep=True), WeightsReport(asleep=True, weights_awake=True)
    assert [is_at_rest(sleeping, report) for report in (deep, shallow)] == [True, False]
    assert [is_at_rest(half, report) for report in (deep, shallow)] == [False, True]
    followed = [deep.model_copy(update={"rest_since": since}) for since in (5.0, 4.0)]
    assert [is_at_rest(sleeping, report) for report in followed] == [True, False]


def test_weights_reach_engines_whose_weights_are_awake_and_adapters_do_not() -> None:
    reports = {"a": WeightsReport(asleep=True), "b": WeightsReport(asleep=True, weights_awake=True)}
    workers = [
        WorkerStatus(name, "boot", 0.0, 0, Heartbeat(WorkerState.IDLE, weights=report))
        for name, report in reports.items()
    ]
    assert participants(workers, 0.0) == ("b",)
    assert participants(workers, 0.0, adapter=True) == ()
