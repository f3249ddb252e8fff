"""How many trials share a GPU: the choice by itself, its measuring with stand-ins, its place in a search."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.errors import InputError
from tuning.config.schema import BudgetSpec
from tuning.engine.journal import Journal
from tuning.measuring import crowd, packing
from tuning.measuring.crew import MeasuringFailed, Worker, ask, closing_all
from tuning.measuring.crowd import Found, Order, measure, measured_plainly
from tuning.measuring.packing import GAIN, MARGIN, Measured, choose_packing, levels, most, packing_of
from tuning.slots import find_slots, fitting

GIB = 2.0**30


def measured(*rates, total=80.0, need=10.0, cores=16.0, cpu=1.0, stopped=""):
    """Rates of 1, 2, 4, ... processes on a GPU that nobody else uses."""
    counts = [2**i for i in range(len(rates))]
    return Measured(total * GIB, total * GIB, need * GIB, cores, cpu, tuple(zip(counts, rates, strict=True)), stopped)


# --- the choice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "trials", "why"),
    [
        (measured(100), 1, "one trial a GPU: more were not tried"),
        (measured(100, 109.9), 1, "2 side by side bring 9.9 % more, below 10 %"),
        (measured(100, 110), 2, "more were not tried"),
        (measured(100, 180, 200), 4, "more were not tried"),
        (measured(100, 180, 190), 2, "4 side by side bring 5.6 % more"),
        (measured(100, 90), 1, "2 side by side are 10.0 % slower together"),
        (measured(100, 200, 400, need=30), 2, "one takes 30.0 of 80.0 GiB, and 10 % of the GPU's memory stays free"),
        (measured(100, 200, need=70), 1, "one takes 70.0 of 80.0 GiB"),
        (measured(100, 200, need=75), 1, "one takes 75.0"),  # not even one beside the margin: it is tried all the same
        (measured(100, 200, 400, cores=4, cpu=2), 2, "CPU cores a GPU: 4, of which a trial holds 2"),
        (measured(100, 200, 400, cores=1, cpu=2), 1, "CPU cores a GPU: 1, of which a trial holds 2"),
        (measured(100, 200, stopped="4 side by side failed: out of memory"), 2, "4 side by side failed: out of memory"),
        (measured(), 1, "its speed alone was not measured"),
        (measured(100, math.nan), 1, "bring nothing that could be measured"),
        (measured(100, math.inf), 1, "bring nothing that could be measured"),
        (measured(0, 10), 1, "bring nothing that could be measured"),
    ],
)
def test_the_choice_and_its_reason(found, trials, why):
    chosen = choose_packing(found)
    assert chosen.trials_per_gpu == trials
    assert why in chosen.words


def test_no_more_than_will_be_at_work():
    chosen = choose_packing(measured(100, 200, 400), wanted=2)
    assert (chosen.trials_per_gpu, chosen.gpu) == (2, 0.5)
    assert "no more are at work at once" in chosen.words
    assert choose_packing(measured(100, 200), wanted=0).trials_per_gpu == 1


def test_one_trial_a_gpu_is_said_plainly():
    assert choose_packing(measured(100, 105)).words.startswith("one trial a GPU: 2 side by side bring 5.0 % more")
    assert choose_packing(measured(100, 180)).words.startswith("2 trials a GPU (180 samples/s together, 100 alone): ")


@pytest.mark.parametrize(
    ("limit", "tried"), [(0, (1,)), (1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (11, (1, 2, 4, 8, 11))]
)
def test_the_levels(limit, tried):
    assert levels(limit) == tried


@given(st.integers(1, 10_000))
def test_the_levels_double_and_end_at_the_limit(limit):
    found = levels(limit)
    assert found[0] == 1
    assert found[-1] == limit
    assert all(a < b <= 2 * a for a, b in itertools.pairwise(found))


@given(st.integers(1, 100))
def test_the_share_lets_exactly_so_many_fit(trials):
    chosen = packing_of(trials, "")
    spec = BudgetSpec.model_validate({"trials": 1, "per_trial": {"gpu": "auto", "cpu": 1}})
    slots = find_slots(spec, {"CPU": 1000.0, "GPU": 3.0}, chosen.gpu)
    assert slots.count == 3 * trials
    assert trials * round(chosen.gpu * 10_000) <= 10_000  # as Ray counts them


sizes = st.floats(1e6, 1e12)
anything = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def measurements(draw, rate=st.floats(0.01, 1e6)):
    counts = levels(draw(st.integers(1, 40)))
    total = draw(sizes)
    return Measured(
        total=total,
        available=draw(st.floats(0, 1)) * total,
        need=draw(sizes),
        cores=draw(st.floats(0, 512)),
        cpu=draw(st.floats(0.1, 32)),
        rates=tuple((count, draw(rate)) for count in counts),
    )


@given(measurements(), st.none() | st.integers(0, 50))
def test_what_is_chosen_was_measured_fits_and_paid_at_every_step(m, wanted):
    chosen = choose_packing(m, wanted)
    k, rates = chosen.trials_per_gpu, dict(m.rates)
    assert k in rates
    assert 1 <= k <= most(m, wanted)
    assert chosen.words
    if k > 1:
        assert k * m.need <= m.available - MARGIN * m.total
        assert k * m.cpu <= m.cores * (1 + 1e-9) + 1e-6
        assert wanted is None or k <= wanted
    climbed = [count for count in rates if count <= k]
    assert all(rates[b] / rates[a] >= 1 + GAIN - 1e-9 for a, b in itertools.pairwise(climbed))
    higher = [count for count in rates if k < count <= most(m, wanted)]
    assert not higher or rates[higher[0]] / rates[k] < 1 + GAIN  # and it stopped for a reason


@given(measurements(), st.floats(1, 10))
def test_a_roomier_gpu_never_gets_fewer(m, factor):
    roomier = dataclasses.replace(m, need=m.need / factor, cores=m.cores * factor)
    assert choose_packing(roomier).trials_per_gpu >= choose_packing(m).trials_per_gpu


@given(measurements(), st.floats(0.001, 1000))
def test_the_unit_of_speed_does_not_matter(m, unit):
    near = any(abs(b / a - 1 - GAIN) < 1e-9 for (_, a), (_, b) in itertools.pairwise(m.rates))
    faster = dataclasses.replace(m, rates=tuple((count, rate * unit) for count, rate in m.rates))
    assert near or choose_packing(faster).trials_per_gpu == choose_packing(m).trials_per_gpu


@given(measurements(rate=anything), anything, anything, anything, anything, anything)
def test_numbers_that_make_no_sense_never_raise(m, total, available, need, cores, cpu):
    broken = dataclasses.replace(m, total=total, available=available, need=need, cores=cores, cpu=cpu)
    chosen = choose_packing(broken)
    assert chosen.trials_per_gpu >= 1
    assert 0 < chosen.gpu <= 1


@given(measurements())
def test_measurements_survive_json(m):
    import json

    assert Measured.from_plain(json.loads(json.dumps(dataclasses.asdict(m)))) == m


# --- its measuring ----------------------------------------------------------------------------------------------------


class Gpu:
    """A GPU of stand-ins: ``need`` (method -> GiB), ``speed`` (how many at work -> samples/s of all together)."""

    def __init__(self, need, speed, total=80.0, holds=100, seconds=1.0):
        self.need, self.speed, self.total, self.holds, self.seconds = need, speed, total, holds, seconds
        self.made: list[Stand] = []
        self.now, self.told = 0.0, False

    def __call__(self):
        self.made.append(Stand(self))
        return self.made[-1]

    @property
    def holding(self):
        return [one for one in self.made if one.held and not one.closed]


class Stand:
    """One process of it."""

    def __init__(self, gpu):
        self.gpu, self.held, self.asked, self.closed = gpu, "", [], False

    def tell(self, what):
        self.asked.append(dict(what))
        self.gpu.told = True
        if what["do"] == "hold":
            self.held = what["config"]["method"]

    def hear(self, within_s):
        self.gpu.now += self.gpu.seconds * self.gpu.told  # those who were told together work at the same time
        self.gpu.told = False
        do = self.asked[-1]["do"]
        if do == "open":
            return {"device": "a GPU"}
        if do == "hold":
            if len(self.gpu.holding) > self.gpu.holds:
                raise MeasuringFailed("out of memory", memory=True)
            need, total = self.gpu.need[self.held] * GIB, self.gpu.total * GIB
            return {"memory": {"peak": need, "total": total, "available": total, "need": need}}
        at_work = [one for one in self.gpu.made if one.asked[-1]["do"] == "turn"]
        return {"samples": 2.0 * self.gpu.speed(len(at_work)) / len(at_work), "seconds": 2.0}

    def close(self):
        self.closed = True


def order(*methods, cores=64.0, wanted=None, within_s=1e6):
    return Order({"seed": 0}, {m: {"method": m} for m in methods}, cores, 1.0, wanted, within_s)


def test_the_one_that_takes_most_memory_is_put_side_by_side():
    gpu = Gpu({"small": 1, "large": 12, "middle": 5}, lambda n: 100 * n**0.5)
    found = measure(order("small", "large", "middle"), gpu, now=lambda: gpu.now)
    assert (found.method, found.weighed, found.of, found.device) == ("large", 3, 3, "a GPU")
    assert {one.held for one in gpu.made} == {"large"}
    assert [count for count, _ in found.measured.rates] == [1, 2, 4, 6]  # (80 - 8) / 12
    assert found.measured.rates[2][1] == pytest.approx(200)
    assert choose_packing(found.measured).trials_per_gpu == 6
    assert len(gpu.made) == 6  # those that are there work on, only the missing ones start
    assert all(one.closed for one in gpu.made)


def test_it_stops_where_more_bring_too_little():
    gpu = Gpu({"a": 1}, lambda n: min(250, 100 * n))
    found = measure(order("a"), gpu, now=lambda: gpu.now)
    assert [count for count, _ in found.measured.rates] == [1, 2, 4, 8]
    assert choose_packing(found.measured).trials_per_gpu == 4


def test_no_more_are_tried_than_cores_or_wishes_allow():
    for bound in ({"cores": 2.0}, {"wanted": 2}):
        gpu = Gpu({"a": 1}, lambda n: 100 * n)
        assert len(measure(order("a", **bound), gpu, now=lambda g=gpu: g.now).measured.rates) == 2
        assert len(gpu.made) == 2


def test_memory_that_runs_out_ends_the_trying_not_the_measuring():
    gpu = Gpu({"a": 1}, lambda n: 100 * n, holds=3)
    found = measure(order("a"), gpu, now=lambda: gpu.now)
    chosen = choose_packing(found.measured)
    assert chosen.trials_per_gpu == 2
    assert "4 side by side failed: out of memory" in chosen.words
    assert all(one.closed for one in gpu.made)


def test_it_keeps_to_its_time():
    gpu = Gpu({"a": 1}, lambda n: 100 * n, seconds=2.0)
    found = measure(order("a", within_s=30.0), gpu, now=lambda: gpu.now)
    assert gpu.now < 30.0
    assert "were not tried within 30 s" in found.measured.stopped
    assert len(found.measured.rates) > 1


def test_weighing_many_methods_leaves_time_for_the_rest():
    names = [f"m{i:02}" for i in range(40)]
    gpu = Gpu(dict.fromkeys(names, 1), lambda n: 100, seconds=1.0)
    found = measure(order(*names, within_s=30.0), gpu, now=lambda: gpu.now)
    assert 5 < found.weighed < 20
    assert found.of == 40
    assert len(found.measured.rates) == 2


def test_one_that_does_not_fit_alone_is_a_failure_by_name():
    gpu = Gpu({"a": 1}, lambda n: 1, holds=0)
    with pytest.raises(MeasuringFailed, match="a: out of memory"):
        measure(order("a"), gpu, now=lambda: gpu.now)
    assert all(one.closed for one in gpu.made)


def test_far_away_a_failure_is_a_value(monkeypatch):
    def fails(order):
        raise InputError("no such data", "nor that")

    monkeypatch.setattr(crowd, "measure", fails)
    assert measured_plainly(order("a")) == {"failed": "no such data\nnor that"}


# --- its place in a search --------------------------------------------------------------------------------------------


calibrate = pytest.importorskip("tuning.measuring.calibrate")

SPACE = """
format: 1
name: packed
data: {{set: synthetic, frames: 16}}
search:
  method: {{one_of: {{skeletonclr: {{queue: 64}}, skeletonbyol: {{}}}}}}
  encoder: {{width: 8, dim: 16, depth: 3}}
  optim: {{batch: {{choice: [8, 16]}}}}
schedule: {{max: 2}}
budget: {{trials: 4, parallel: {parallel}, per_trial: {{gpu: {gpu}, cpu: 2}}}}
"""


@pytest.fixture
def plan(tmp_path):
    def make(gpu="auto", parallel="auto"):
        from tuning.plan import plan_search

        (tmp_path / "space.yaml").write_text(SPACE.format(gpu=gpu, parallel=parallel))
        return plan_search(tmp_path / "space.yaml", tmp_path / "runs")

    return make


def ground_of(plan, **resources):
    from tuning.ground import Ground

    view = SimpleNamespace(now=resources, resources=resources)
    slots = find_slots(plan.spec.budget, resources)
    return Ground(view, slots, SimpleNamespace(), lambda cluster: fitting(slots, cluster))


def journal_in(folder: Path) -> Journal:
    return Journal(folder / "journal.jsonl", {"space": "s", "data": "d"})


@pytest.fixture
def nodes(monkeypatch):
    monkeypatch.setattr(
        calibrate.ray,
        "nodes",
        lambda: [
            {"Alive": True, "Resources": {"CPU": 64.0}},
            {"Alive": True, "Resources": {"CPU": 32.0, "GPU": 4.0}},
            {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 1.0}},
        ],
    )


class Measurer:
    """Remembers what was ordered; answers or fails."""

    def __init__(self, answer):
        self.answer, self.orders = answer, []

    def __call__(self, order):
        self.orders.append(order)
        if isinstance(self.answer, Exception):
            raise self.answer
        return Found(self.answer, "A100", "skeletonclr", len(order.configs), len(order.configs))


def test_a_packing_is_measured_once_said_and_kept(plan, nodes, tmp_path):
    search, said = plan(), []
    ground = ground_of(search, CPU=32.0, GPU=4.0)
    assert (ground.slots.count, ground.slots.gpu) == (4, 1.0)
    measurer = Measurer(measured(100, 180, 300, 310, need=5, cores=8, cpu=2))
    with journal_in(tmp_path) as journal:
        packed = calibrate.packed(ground, search, journal, said.append, measurer)
    assert (packed.slots.count, packed.slots.gpu, packed.slots.cpu) == (16, 0.25, 2.0)
    assert packed.fits({"CPU": 8.0, "GPU": 1.0}) == 4
    assert said[0].startswith("packing: measuring how many trials a GPU is worth sharing among")
    assert said[1].startswith("packing: 4 trials a GPU (300 samples/s together, 100 alone): CPU cores a GPU: 8")
    assert "measured on A100 with skeletonclr" in said[1]
    [asked] = measurer.orders
    assert set(asked.configs) == {"skeletonclr", "skeletonbyol"}
    assert {config["optim"]["batch"] for config in asked.configs.values()} == {16}  # the dearest of each
    assert (asked.cores, asked.cpu, asked.wanted, asked.opening["device"]) == (8.0, 2.0, None, "cuda")

    again: list[str] = []
    with journal_in(tmp_path) as journal:  # the same command goes on
        same = calibrate.packed(ground, search, journal, again.append, Measurer(AssertionError("measured again")))
    assert same.slots == packed.slots
    assert len(again) == 1
    assert again[0].endswith("(as this search began)")


@pytest.mark.parametrize("failure", [MeasuringFailed("no answer within 3 min"), InputError("no data there")])
def test_a_calibration_that_fails_leaves_one_trial_a_gpu(plan, nodes, tmp_path, failure):
    search, said, measurer = plan(), [], Measurer(failure)
    with journal_in(tmp_path) as journal:
        packed = calibrate.packed(ground_of(search, CPU=32.0, GPU=4.0), search, journal, said.append, measurer)
        assert packed.slots.gpu == 1.0
        assert said[-1] == f"packing: one trial a GPU: the calibration failed ({failure})"
        calibrate.packed(ground_of(search, CPU=32.0, GPU=4.0), search, journal, said.append, measurer)
    assert len(measurer.orders) == 1


@pytest.mark.parametrize(("gpu", "resources"), [("one", {"GPU": 4.0}), (0.5, {"GPU": 4.0}), ("auto", {})])
def test_nothing_is_measured_without_the_word_or_without_a_gpu(plan, tmp_path, gpu, resources):
    search, said = plan(gpu), []
    ground = ground_of(search, CPU=32.0, **resources)
    with journal_in(tmp_path) as journal:
        same = calibrate.packed(ground, search, journal, said.append, Measurer(AssertionError("measured")))
        assert calibrate.PACKING not in journal.state.facts
    assert same is ground
    assert said == []


def test_the_default_is_a_whole_gpu():
    spec = BudgetSpec.model_validate({"trials": 1})
    assert spec.per_trial.gpu == "one"
    assert find_slots(spec, {"CPU": 8.0, "GPU": 2.0}, 0.25).gpu == 1.0


def test_a_gpu_that_has_not_joined_is_not_waited_for(plan, tmp_path):
    search, said = plan(), []
    ground = ground_of(search, CPU=32.0, GPU=4.0)
    ground.view.now = {"CPU": 8.0}  # the four are only expected
    with journal_in(tmp_path) as journal:
        packed = calibrate.packed(ground, search, journal, said.append, Measurer(AssertionError("measured")))
    assert packed.slots.gpu == 1.0
    assert said == ["packing: one trial a GPU: no GPU has joined yet that could be measured"]


def test_a_search_older_than_packings_keeps_what_its_trials_held(plan, tmp_path):
    search, said = plan(), []
    with journal_in(tmp_path) as journal:
        journal.fact("slots", {"gpu": 1.0, "cpu": 2.0})
        packed = calibrate.packed(
            ground_of(search, CPU=32.0, GPU=4.0), search, journal, said.append, Measurer(AssertionError("measured"))
        )
    assert packed.slots.gpu == 1.0
    assert said == ["packing: 1 GPU a trial (as this search began)"]


def test_parallel_bounds_the_packing(plan, nodes, tmp_path):
    search, said = plan(parallel=6), []
    measurer = Measurer(measured(100, 190, 380, need=1))
    ground = ground_of(search, CPU=32.0, GPU=4.0)
    assert ground.slots.count == 4
    with journal_in(tmp_path) as journal:
        packed = calibrate.packed(ground, search, journal, said.append, measurer)
    assert measurer.orders[0].wanted == 2  # six trials on four GPUs
    assert (packed.slots.count, packed.slots.gpu) == (6, 0.5)


def test_several_kinds_of_gpus_are_told(plan, nodes, tmp_path):
    search, said = plan(), []
    ground = ground_of(search, CPU=32.0, GPU=4.0, **{"accelerator_type:A100": 1.0, "accelerator_type:T4": 1.0})
    with journal_in(tmp_path) as journal:
        calibrate.packed(ground, search, journal, said.append, Measurer(measured(100)))
    assert "the cluster has GPUs of several kinds: A100, T4" in said[-1]


def test_cores_a_gpu(nodes):
    assert calibrate.cores_per_gpu(calibrate.ray.nodes()) == 8.0
    assert calibrate.cores_per_gpu([]) == 0.0


# --- for real ---------------------------------------------------------------------------------------------------------


def test_real_processes_side_by_side(plan, monkeypatch):
    """On the CPU, where nothing is packed: two processes, asked as on a GPU."""
    from tuning.measuring.candidates import first_drawn

    search = plan(gpu="one")
    config = first_drawn(search.space, 0)["skeletonclr"].config.to_dict()
    monkeypatch.setattr(crowd, "TURN_S", 0.1)
    monkeypatch.setattr(packing, "most_by_memory", lambda m: 2)
    opening = crowd.opening_of(search, "cpu", 1)
    said: list[str] = []
    found = measure(Order(opening, {"skeletonclr": config}, 2.0, 1.0, None, 300.0), say=said.append)
    assert said == ["skeletonclr: 2 side by side"]
    assert [count for count, _ in found.measured.rates] == [1, 2]
    assert all(rate > 0 for _, rate in found.measured.rates)
    assert (found.device, found.measured.need) == ("cpu", 0.0)


def test_a_process_that_dies_or_hangs_is_a_sentence():
    workers = [Worker(), Worker()]
    with closing_all(workers):
        workers[0]._process.kill()
        with pytest.raises(MeasuringFailed, match=r"ended by SIGKILL \(out of memory\?\)") as caught:
            ask(workers[0], {"do": "open"}, 60.0)
        assert caught.value.memory
        with pytest.raises(MeasuringFailed, match="no answer within 0 s"):
            workers[1].hear(0.0)
    assert all(worker._process.poll() is not None for worker in workers)


@pytest.mark.gpu
def test_on_a_gpu(plan, monkeypatch):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from tuning.measuring.candidates import first_drawn

    search = plan()
    configs = {name: one.config.to_dict() for name, one in first_drawn(search.space, 0).items()}
    found = measure(Order(crowd.opening_of(search, "cuda", 1), configs, 4.0, 1.0))
    m = found.measured
    assert 0 < m.need < m.available <= m.total
    assert m.rates[0][0] == 1
    assert found.weighed == len(configs)
    assert choose_packing(m).trials_per_gpu <= 4


@pytest.mark.system
def test_a_task_on_the_cluster_that_finds_no_gpu_is_a_sentence(plan):
    """Ray is told that there is a GPU; the process that measures finds none."""
    ray = pytest.importorskip("ray")
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one here")
    search = plan()
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        order = Order(crowd.opening_of(search, "cuda", 1), {"skeletonclr": {}}, 2.0, 1.0)
        with pytest.raises(MeasuringFailed, match="PyTorch sees no GPU here"):
            calibrate.on_the_cluster(order)
    finally:
        ray.shutdown()
