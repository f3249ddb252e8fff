"""Slots: what fits, and what is refused."""

from __future__ import annotations

import pytest

from methods.errors import InputError
from tuning.config.schema import BudgetSpec
from tuning.slots import Slots, find_slots


def budget(parallel="auto", gpu="one", cpu=1):
    return BudgetSpec.model_validate({"trials": 1, "parallel": parallel, "per_trial": {"gpu": gpu, "cpu": cpu}})


@pytest.mark.parametrize(
    ("wish", "cluster", "slots"),
    [
        (budget(), {"CPU": 2.0}, Slots(2, 1.0, 0.0)),
        (budget(), {"CPU": 16.0, "GPU": 1.0}, Slots(1, 1.0, 1.0)),
        (budget(gpu=0.25, cpu=2), {"CPU": 16.0, "GPU": 2.0}, Slots(8, 2.0, 0.25)),
        (budget(gpu=0.6), {"CPU": 16.0, "GPU": 2.0}, Slots(2, 1.0, 0.6)),  # 0.6 + 0.6 does not fit on one GPU
        (budget(gpu=2), {"CPU": 16.0, "GPU": 5.0}, Slots(2, 1.0, 2.0)),
        (budget(gpu=0), {"CPU": 3.0, "GPU": 1.0}, Slots(3, 1.0, 0.0)),
        (budget(cpu=0.5), {"CPU": 2.0}, Slots(4, 0.5, 0.0)),
        (budget(parallel=1), {"CPU": 4.0}, Slots(1, 1.0, 0.0)),
    ],
)
def test_what_fits(wish, cluster, slots):
    assert find_slots(wish, cluster) == slots


def test_threads_follow_the_cores():
    assert Slots(1, 0.5, 0).threads == 1
    assert Slots(1, 4.0, 0).threads == 4


@pytest.mark.parametrize(
    ("wish", "cluster", "words"),
    [
        (budget(cpu=64), {"CPU": 2.0}, "budget.per_trial.cpu is 64, but the cluster has 2 CPUs"),
        (budget(gpu=1), {"CPU": 2.0}, "budget.per_trial.gpu is 1, but the cluster has 0 GPUs"),
        (budget(gpu=1.5), {"CPU": 2.0, "GPU": 4.0}, "at most 1 or a whole number"),
        (budget(parallel=3), {"CPU": 8.0, "GPU": 2.0}, "budget.parallel is 3, but only 2 trials fit"),
        (budget(parallel=3, gpu="auto"), {"CPU": 2.0, "GPU": 2.0}, "budget.parallel is 3, but only 2 trials fit"),
        (budget(parallel=3), {"CPU": 2.0}, "budget.parallel is 3, but only 2 trials fit"),
    ],
)
def test_what_cannot_be(wish, cluster, words):
    with pytest.raises(InputError, match=words):
        find_slots(wish, cluster)


@pytest.mark.parametrize(
    ("wish", "cluster", "packed", "slots"),
    [
        (budget(gpu="auto"), {"CPU": 2.0}, 0.25, Slots(2, 1.0, 0.0)),  # no GPU, nothing to pack
        (budget(gpu="auto"), {"CPU": 16.0, "GPU": 2.0}, 1.0, Slots(2, 1.0, 1.0)),  # before it is measured
        (budget(gpu="auto"), {"CPU": 16.0, "GPU": 2.0}, 0.3333, Slots(6, 1.0, 0.3333)),
        (budget(gpu="auto", cpu=4), {"CPU": 16.0, "GPU": 2.0}, 0.25, Slots(4, 4.0, 0.25)),  # the cores bind
        (budget(gpu="auto", parallel=3), {"CPU": 16.0, "GPU": 2.0}, 0.5, Slots(3, 1.0, 0.5)),
        (budget(gpu="auto", parallel=3), {"CPU": 16.0, "GPU": 2.0}, 1.0, Slots(2, 1.0, 1.0)),  # a bound, no demand
        (budget(gpu="one"), {"CPU": 16.0, "GPU": 2.0}, 0.25, Slots(2, 1.0, 1.0)),
        (budget(gpu=0.5), {"CPU": 16.0, "GPU": 2.0}, 0.25, Slots(4, 1.0, 0.5)),
    ],
)
def test_a_packing_is_for_auto_alone(wish, cluster, packed, slots):
    assert find_slots(wish, cluster, packed) == slots
