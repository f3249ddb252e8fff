"""What of the cluster a trial takes."""

from __future__ import annotations

import pytest

from tuning.fit import Placing
from tuning.slots import Slots, find_slots, fitting, read_expected
from tuning.trial import task_config


def config(**place):
    return {"place": {"avoid": [], "alone": False} | place}


@pytest.mark.parametrize(
    ("gpu", "alone", "bundle"),
    [
        (0.0, False, {"CPU": 2.0}),
        (0.0, True, {"CPU": 2.0}),
        (0.25, False, {"CPU": 2.0, "GPU": 0.25}),
        (0.25, True, {"CPU": 2.0, "GPU": 1.0}),
        (2.0, True, {"CPU": 2.0, "GPU": 2.0}),
    ],
)
def test_who_ran_out_of_memory_gets_a_whole_gpu(gpu, alone, bundle) -> None:
    assert Placing(Slots(2, 2.0, gpu))(config(alone=alone)).bundles == [bundle]


def test_bad_nodes_are_left_out_and_workers_are_shared_only_among_equals() -> None:
    placing = Placing(Slots(2, 1.0, 0.0))
    away = placing(config(avoid=["1a", "2b"]))
    assert away._kwargs["bundle_label_selector"] == [{"ray.io/node-id": "!in(1a,2b)"}]
    assert away == placing(config(avoid=["1a", "2b"]))
    assert away != placing(config())
    assert placing(config()) == placing(config())


def test_a_task_travels_with_its_place() -> None:
    from tuning.session import Task

    found = task_config(Task("t0001", {"method": "x"}, 1, (3,), "/runs"), ("a",), alone=True)
    assert found["place"] == {"avoid": ["a"], "alone": True}
    assert found["task"]["key"] == "t0001"


@pytest.mark.parametrize("text", ["GPU", "GPU=", "GPU=-1", "GPU=1e9999", "TPU=1", "GPU=1,GPU=2", "GPU=x", "gpu=1"])
def test_expectations_that_make_no_sense_are_one_line(text) -> None:
    from methods.errors import InputError

    with pytest.raises(InputError, match="--expect takes"):
        read_expected(text)


def test_what_is_expected_counts_as_there() -> None:
    from tuning.config.schema import BudgetSpec

    assert read_expected("") == {}
    grown = read_expected("CPU=64, GPU=8")
    assert grown == {"CPU": 64.0, "GPU": 8.0}
    slots = find_slots(BudgetSpec(trials=3), grown)
    assert (slots.count, slots.gpu) == (8, 1.0)
    assert fitting(slots, {"CPU": 4.0}) == 0
    assert fitting(slots, {"CPU": 64.0, "GPU": 2.0}) == 2


@pytest.mark.parametrize(
    ("status", "actor", "at_work"),
    [("RUNNING", "a", True), ("PENDING", "a", True), ("PENDING", None, False), ("TERMINATED", "a", False)],
)
def test_a_worker_that_is_being_given_a_trial_is_watched_too(status, actor, at_work) -> None:
    """It may hang in just that moment. A trial that waits for a place has no worker, and may wait."""
    from types import SimpleNamespace

    from tuning.fit import _at_work

    trial = SimpleNamespace(status=status, temporary_state=SimpleNamespace(ray_actor=actor))
    assert _at_work(trial) is at_work
