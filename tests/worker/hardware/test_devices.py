"""Which processors a local worker gets."""

import pytest

from openseer_core.errors import InputError
from openseer_worker.hardware.devices import core_of, gpus_of


def test_workers_get_a_core_each_and_take_turns_when_there_are_too_few() -> None:
    assert [core_of(index, [2, 5]) for index in range(3)] == [2, 5, 2]


def test_workers_get_gpus_of_their_own() -> None:
    assert [gpus_of(index, 2, ["0", "1", "2", "3"], {}) for index in range(2)] == ["0,1", "2,3"]


def test_only_gpus_that_are_visible_are_given_out() -> None:
    assert gpus_of(1, 1, ["0", "1", "2", "3"], {"CUDA_VISIBLE_DEVICES": "3, 1"}) == "1"


def test_more_workers_than_gpus_is_refused_with_the_field() -> None:
    with pytest.raises(
        InputError, match=r"spec\.workers\.replicas: worker 1 needs 1 GPU of its own, and 1 are visible"
    ):
        gpus_of(1, 1, ["0"], {})
