"""`skeltune profile`: which configurations, their clock, what a search comes to, and how it is told."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from methods.data import Split
from methods.errors import InputError, WorkFailed
from methods.training.probe import ProbeConfig
from methods.training.step import PARTS
from tuning.arithmetic import epochs_of
from tuning.cli import app
from tuning.config.schema import ScheduleSpec
from tuning.engine.ladder import make_ladder
from tuning.measuring import profile as profiling
from tuning.measuring import rung, steps, worker
from tuning.measuring.candidates import dearest, first_drawn
from tuning.measuring.cost import MethodTime, estimate, seconds_an_epoch, segments
from tuning.measuring.crew import MeasuringFailed
from tuning.measuring.crowd import opening_of
from tuning.measuring.memory import resident
from tuning.measuring.profile import DEAREST, FIRST, Wishes, profile
from tuning.measuring.profile_lines import lines, to_json
from tuning.plan import plan_search
from tuning.preview import sample_draws
from tuning.slots import Slots
from tuning.space import load_search

SPACE = """
format: 1
name: profiled
seed: 3
data: {set: synthetic, frames: 16}
search:
  method:
    one_of:
      skeletonclr: {queue: 128, hidden: {choice: [16, 64]}, projection: 16, temperature: {log: [0.05, 0.5]}}
      skeletonbyol: {hidden: 32, projection: 16, optim: {batch: 32}}
  augment: {strength: {uniform: [0.2, 1.4]}}
  encoder: {width: 8, dim: 16, depth: 3}
  optim: {name: adam, batch: {choice: [16, 64, 32]}}
  streams: {use: {choice: [[joint], [joint, bone]]}}
schedule: {max: 6, asha: {min: 2, eta: 2, repeats: 0, ladder: shared}}
budget: {trials: 8, per_trial: {gpu: %s, cpu: 1}}
"""


@pytest.fixture(scope="module")
def space_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "space.yaml"
    text = SPACE % "one"
    path.write_text(text.replace("optim: {batch: 32}}", "optim: {batch: 32, lr: 0.01}}"))
    return path


@pytest.fixture(scope="module")
def plan(space_file):
    return plan_search(space_file, space_file.parent)


@pytest.fixture(scope="module")
def bench(plan):
    """What runs in the process that measures, here."""
    made = worker.Bench()
    assert made.open(**opening_of(plan, "cpu", 1)) == {"device": "cpu"}
    return made


# --- which configurations ---------------------------------------------------------------------------------------------


def test_the_first_of_each_method_is_what_sample_prints(plan):
    first = first_drawn(plan.space, 3)
    assert list(first) == ["skeletonclr", "skeletonbyol"]
    drawn = sample_draws(plan.space, 20, 3)
    for method, one in first.items():
        assert one.draws == next(d for d in drawn if d["method"] == method)
        assert one.config == plan.space.resolve(one.draws)


def test_the_dearest_has_every_size_at_its_largest_and_the_rest_as_it_was(plan):
    for one in first_drawn(plan.space, 3).values():
        most = dearest(plan.space, one).config
        assert most.streams.use == ("joint", "bone")
        assert most.augment == one.config.augment
        if most.method == "skeletonclr":
            assert (most.optim.batch, most.params.hidden) == (64, 64)
            assert most.params.temperature == one.config.params.temperature
        else:
            assert most.optim.batch == 32  # the branch fixes it


def test_a_size_that_does_not_go_with_the_others_stays(tmp_path):
    """The larger number of parts would not divide the frames, whichever is asked for first."""
    (tmp_path / "space.yaml").write_text(
        "format: 1\nname: x\ndata: {set: synthetic}\nsearch:\n  method: {skeletonclr: {queue: {choice: [64, 128]}}}\n"
        "  optim: {batch: {choice: [8, 32]}}\n"
    )
    spec, space = load_search(tmp_path / "space.yaml")
    one = first_drawn(space, spec.seed)["skeletonclr"]
    refusing = SimpleNamespace(branch=space.branch, resolve=lambda draws: _no_large_batch(space, draws))
    most = dearest(refusing, one).config
    assert (most.params.queue, most.optim.batch) == (128, one.config.optim.batch)


def _no_large_batch(space, draws):
    config = space.resolve(draws)
    if config.optim.batch == 32:
        raise InputError("no")
    return config


def test_a_space_without_free_sizes_has_no_dearer_one():
    _, space = load_search("search_spaces/quickstart.yaml")
    for one in first_drawn(space, 0).values():
        assert dearest(space, one) is one


def test_methods_that_never_come_in_a_form_that_can_be_are_left_out(plan, monkeypatch):
    monkeypatch.setattr("tuning.measuring.candidates.TRIES", 50)

    def resolve(draws):
        if draws["method"] == "skeletonbyol":
            raise InputError("never")
        return plan.space.resolve(draws)

    broken = SimpleNamespace(methods=plan.space.methods, sample=plan.space.sample, resolve=resolve)
    assert list(first_drawn(broken, 3)) == ["skeletonclr"]


# --- the clock --------------------------------------------------------------------------------------------------------


class Ticks:
    """A clock by which each part of a step takes as many seconds as its place in PARTS, from 1."""

    def __init__(self):
        self.now, self.taken = 0.0, Counter()

    def __call__(self):
        return self.now

    def take_step(self, run, index, views, mark=None):
        self.taken[run.step] += 1
        assert len(index) == run.config.optim.batch
        for seconds, part in enumerate(PARTS, 1):
            self.now += seconds
            if mark is not None:
                mark(part)


@pytest.fixture
def ticks(monkeypatch):
    clock = Ticks()
    monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(steps, "take_step", clock.take_step)
    return clock


@pytest.fixture
def run(bench, plan):
    return bench._start(first_drawn(plan.space, 3)["skeletonclr"].config.to_dict())


def test_a_stage_is_timed_part_by_part(run, ticks):
    found = steps.time_stage(run, "train", 0.0, 4, 1e9)
    assert (found.steps, found.seconds) == (4, 21.0)
    assert list(found.parts.values()) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert ticks.taken == {0: 5}  # one more, which is not counted


def test_no_step_begins_after_its_time_but_one_there_is(run, ticks):
    assert steps.time_stage(run, "train", 0.0, 100, 50.0).steps == 3
    assert steps.time_stage(run, "train", 0.0, 100, 0.0).steps == 1


def test_a_later_stage_is_timed_where_it_begins(run, ticks):
    steps.time_stage(run, "mining", 0.5, 2, 1e9)
    assert ticks.taken == {run.total_steps // 2: 3}
    steps.time_stage(run, "last", 1.0, 2, 1e9)
    assert ticks.taken[run.total_steps - 1] == 3  # a progress of 1 there is none


def test_batches_come_again_when_an_epoch_is_out(run, ticks):
    found = steps.time_stage(run, "train", 0.0, 3 * run.steps_per_epoch, 1e9)
    assert found.steps == 3 * run.steps_per_epoch


def test_real_steps_train_and_leave_the_parts_adding_up(run):
    before = [p.detach().clone() for p in run.model.parameters()]
    state = torch.get_rng_state()
    found = steps.time_stage(run, "train", 0.0, 2, 60.0)
    assert torch.equal(state, torch.get_rng_state())
    assert any(not torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))
    assert tuple(found.parts) == PARTS
    assert sum(found.parts.values()) == pytest.approx(found.seconds)
    assert min(found.parts.values()) >= 0
    assert steps.time_spread(run) > 0


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
def test_a_rung_of_all_clips_or_of_some(bench, run, seconds):
    found = rung.time_rung(run, bench.split, bench.probe, seconds)
    assert found.of == len(bench.split.train) + len(bench.split.validation)
    assert (found.clips == found.of) == (seconds > 1)
    assert found.clips >= 32
    assert found.features > 0
    assert found.probe > 0


@pytest.mark.parametrize("settle", [True, False])
@pytest.mark.parametrize(("subset", "folds"), [(0, 0), (24, 0), (0, 3), (24, 3)])
def test_a_rung_is_scaled_up_to_what_all_clips_take(bench, run, monkeypatch, settle, subset, folds):
    """By a clock on which a clip takes a second on its way through the encoder, and nothing else any time."""
    clock, embed, passed = Ticks(), run.model.embed, []

    def embedded(clips):
        clock.now += len(clips)
        passed[-1] += len(clips)
        return embed(clips)

    def validate(*given, **named):
        passed.append(0)
        return real(*given, **named)

    real = rung.validate
    monkeypatch.setattr(rung, "settled", lambda device: clock.now)
    monkeypatch.setattr(rung, "validate", validate)
    monkeypatch.setattr(type(run.model), "embed", lambda self, clips: embedded(clips))
    split = bench.split
    if folds:
        numbers = np.arange(len(split.train)) % folds
        numbers[:5] = -1
        split = dataclasses.replace(split, folds=numbers, validation=split.validation[:0])
    config = ProbeConfig(kind="knn", settle=settle, subset=subset)
    whole = rung.time_rung(run, split, config, 1e9, below_top=True)
    assert whole.features == passed[-1]  # all of them were measured
    assert whole.clips == whole.probed == whole.of
    assert whole.probe == 0
    everything, passed[:] = passed[-1], []
    some = rung.time_rung(run, split, config, 1e-9, below_top=True)
    assert some.clips < some.of == whole.of
    assert max(passed) < everything
    assert some.features == pytest.approx(whole.features, rel=0.1)  # but for what subsets round


def test_the_probe_is_what_is_left_of_a_rung(bench, run, monkeypatch):
    """By a clock on which a probe takes 1,000 seconds whatever it is run on, and ten more for each clip."""
    clock, clips, sizes = Ticks(), len(bench.split.train) + len(bench.split.validation), []

    def validate(model, store, split, probe, seed, below_top):
        assert (below_top, seed) == (False, run.seed)
        index = torch.as_tensor(np.concatenate([split.train, split.validation]))
        features = model.embed(store.take(index))
        assert all(len(z) == len(index) and torch.isfinite(z).all() for z in features.values())
        sizes.append(len(index))
        clock.now += 1000 + 10 * len(index)

    monkeypatch.setattr(rung, "settled", lambda device: clock.now)
    monkeypatch.setattr(rung, "validate", validate)

    def probe(seconds):
        sizes.clear()
        return rung.time_rung(run, bench.split, bench.probe, seconds)

    # Features take no time on this clock, so all clips are measured as they are, however few seconds there are.
    assert probe(1e-9).probe == 1000 + 10 * clips
    embed, each = run.model.embed, [1.0]

    def embedded(self, clips):
        clock.now += each[0] * len(clips)
        return embed(clips)

    monkeypatch.setattr(type(run.model), "embed", embedded)
    exact = probe(1e9)
    assert (exact.features, exact.probe, exact.clips, exact.probed) == (clips, 1000 + 10 * clips, clips, clips)
    few = probe(1e-9)
    assert few.features == pytest.approx(clips, rel=0.05)  # what settles the statistics is rounded
    assert few.probe == pytest.approx((1000 + 10 * few.clips) * clips / few.clips)
    assert few.probed == few.clips < 64
    each[0] = 100.0
    borrowed = probe(40_000.0)
    assert borrowed.clips < borrowed.probed == clips
    assert borrowed.probe == 1000 + 10 * clips
    assert borrowed.features == pytest.approx(100 * clips, rel=0.05)
    assert sizes[-1] == clips
    assert "take" not in vars(run.store)  # as it was
    assert "embed" not in vars(run.model)


def test_stand_ins_are_near_what_was_seen_last(bench, run):
    """The nearest clip's features, those of the probe rather than those of settling, and no two alike."""
    part = rung._Part(bench.split, bench.probe, 1, False, run.store.clips.num_classes)
    done = rung._Pass(run, part.every(9))
    train = bench.split.train
    first, second = torch.full((2, 3), 5.0), torch.tensor([[0.0, 0.0, 0.0], [100.0, 100.0, 100.0]])
    done.seen = [(train[[0, 200]], {"joint": first}), (train[[0, 200]], {"joint": second})]
    borrowed, got = rung._Pass(run, part), {}

    def validate(model, store, split, probe, seed, below_top):
        got.update(model.embed(store.take(torch.as_tensor(train[:400]))))

    original, rung.validate = rung.validate, validate
    try:
        borrowed.on_stand_ins(done)
    finally:
        rung.validate = original
    z = got["joint"]
    assert z.shape == (400, 3)
    assert z[0].mean() < 50 < z[300].mean()
    assert len(z.unique(dim=0)) == 400


def test_a_rung_below_the_top_fits_on_the_subset(bench, run):
    config = ProbeConfig(kind="knn", subset=24)
    held = len(bench.split.validation)
    assert rung.time_rung(run, bench.split, config, 1e9, below_top=True).of == 24 + held
    assert rung.time_rung(run, bench.split, config, 1e9).of == len(bench.split.train) + held
    assert rung.time_rung(run, bench.split, config, 1e-9, below_top=True).clips <= 24 + held


def test_a_rung_with_folds(bench, run):
    split = bench.split
    folds = np.arange(len(split.train)) % 3
    folds[:5] = -1
    crossed = dataclasses.replace(split, folds=folds, validation=split.validation[:0])
    found = rung.time_rung(run, crossed, ProbeConfig(kind="knn"), 1e9)
    assert found.clips == found.of == len(split.train) - 5
    assert rung.time_rung(run, crossed, ProbeConfig(kind="knn"), 1e-9).clips < found.of


def test_too_few_clips_for_several_folds_are_all_taken():
    train = np.arange(100)
    folds = (np.arange(100) == 99).astype(np.int64)  # any part of a stride misses the second one
    split = Split("s", train, train[:0], train[:0], folds, (), "")
    whole = rung._Part(split, ProbeConfig(), 1, False, 5)
    assert rung._few(whole, 10) is whole
    other = dataclasses.replace(split, folds=np.arange(100) % 7)
    assert len(rung._few(rung._Part(other, ProbeConfig(), 1, False, 5), 10)) == 10


def test_memory_grows_with_what_is_held():
    """In a process of its own: one that keeps what it freed has room for more without growing."""
    script = """
import torch
from tuning.measuring.memory import Meter
meter = Meter(torch.device("cpu"))
held = torch.ones(64 << 20, dtype=torch.uint8)
first = meter.read().peak
assert first >= held.numel() / 2, first
del held
last = meter.read().peak
assert last >= 0.9 * first, (first, last)  # a peak stays, but for the kernel's rounding
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_peak_of_a_process_is_its_own():
    """What the process that started it holds is none of its memory (getrusage counts it)."""
    ballast = torch.ones(512 << 20, dtype=torch.uint8)
    code = "import tuning.measuring.memory as m; print(m.resident(peak=True))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert ballast.numel() < resident()
    assert 0 < float(told) < resident() - ballast.numel() / 2


# --- the process that measures ----------------------------------------------------------------------------------------


def test_answers_are_plain_and_failures_are_answers(bench, plan, monkeypatch):
    config = first_drawn(plan.space, 3)["skeletonbyol"].config.to_dict()
    ask = {"do": "profile", "config": config, "steps": 1, "seconds": 0.1}
    found = worker.answer(bench, json.dumps(ask))
    assert json.loads(json.dumps(found)) == found
    assert found["batch"] == 32
    assert found["steps_per_epoch"] == len(bench.split.train) // 32
    assert [stage["name"] for stage in found["stages"]] == ["train"]
    assert found["memory"]["need"] == 0  # there is no GPU

    assert "only" in worker.answer(bench, json.dumps({**ask, "config": _with_batch(config, 10**6)}))["faults"][0]
    strange = worker.answer(bench, json.dumps({**ask, "steps": "many"}))
    assert strange["failed"].startswith("TypeError: ")

    def lacks(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(worker, "start", lacks)
    lacked = worker.answer(bench, json.dumps(ask))
    assert lacked == {"failed": "out of memory (CUDA out of memory. Tried to allocate 2 GiB)", "memory": True}


def _with_batch(config, batch):
    return {**config, "optim": {**config["optim"], "batch": batch}}


def test_what_is_held_trains_in_turns(bench, plan):
    fresh = worker.Bench()
    assert "faults" in worker.answer(fresh, json.dumps({"do": "turn", "seconds": 0.0}))
    config = first_drawn(plan.space, 3)["skeletonclr"].config
    held = worker.answer(bench, json.dumps({"do": "hold", "config": config.to_dict()}))
    assert held["memory"]["peak"] >= 0
    turn = worker.answer(bench, json.dumps({"do": "turn", "seconds": 0.0}))
    assert turn["samples"] == config.optim.batch
    assert turn["seconds"] > 0


# --- what a search comes to -------------------------------------------------------------------------------------------


def flat(epoch, spread=0.0, rung=0.0, below=None):
    """One stage."""
    return MethodTime(((0.0, epoch),), spread, rung, rung if below is None else below)


def test_seconds_of_epochs_by_stages():
    two = MethodTime(((0.0, 10.0), (0.5, 30.0)), spread=1.0, rung=5.0, below=5.0)
    assert two.train(0, 6, 6) == 3 * 10 + 3 * 30 + 6
    assert two.train(0, 2, 6) == 22
    assert two.train(2, 4, 6) == 10 + 30 + 2
    assert two.epoch() == pytest.approx(21)
    assert flat(4.0).train(3, 5, 9) == 8


@pytest.mark.parametrize("asha", [{"repeats": 0}, {"repeats": 5}, {"brackets": 2}, {"rule": "stop"}])
@pytest.mark.parametrize("trials", [1, 7, 40, 1000])
def test_the_segments_are_the_epochs_of_the_arithmetic(asha, trials):
    ladder = make_ladder(ScheduleSpec.model_validate({"max": 18, "asha": {"min": 2, "eta": 3, **asha}}))
    parts = list(segments(ladder, trials, 2))
    assert sum(n * (end - begin) for n, begin, end in parts) == epochs_of(ladder, trials, 2)
    assert {end for _, _, end in parts} <= set(ladder.rungs)
    assert seconds_an_epoch(flat(2.0, spread=0.5), ladder, trials, 2) == pytest.approx(2.5)


def test_probes_count_once_a_rung():
    ladder = make_ladder(ScheduleSpec.model_validate({"max": 4, "asha": {"min": 1, "eta": 2, "repeats": 0}}))
    # 8 trials to epoch 1, 4 on to 2, 2 on to 4: 8 + 4 + 4 = 16 epochs, 14 probes
    assert seconds_an_epoch(flat(1.0, rung=8.0), ladder, 8, 1) == (16 + 14 * 8) / 16
    # the two at the top by themselves, where rungs below it fit on a subset
    assert seconds_an_epoch(flat(1.0, rung=8.0, below=3.0), ladder, 8, 1) == (16 + 2 * 8 + 12 * 3) / 16


def test_a_whole_search(plan):
    """8 trials on a shared ladder of 2, 4, 6 epochs by 2: 8x2 + 4x2 + 2x2 = 28 epochs, 14 probes."""
    times = {"skeletonclr": [flat(1.0), flat(6.0)], "skeletonbyol": [flat(3.0, rung=2.0)]}
    ladder = make_ladder(plan.spec.schedule)
    assert ladder.rungs == (2, 4, 6)
    found = estimate(plan.spec, plan.space, times, Slots(2, 1.0, 0.0))
    assert (found.trials, found.epochs) == (8, 28)
    assert found.pace.seconds == {"skeletonclr": 1.0, "skeletonbyol": 3.0 + 2 * 14 / 28}
    assert found.search == pytest.approx(28 * (1 + 4) / 2)
    assert (found.least, found.most) == (28.0, 28 * 6.0)
    crowded = estimate(plan.spec, plan.space, times, Slots(2, 1.0, 0.5), crowded=1.5)
    assert crowded.search == pytest.approx(1.5 * found.search)


def test_a_budget_in_gpu_hours_buys_trials(plan):
    budget = plan.spec.budget.model_copy(update={"trials": None, "gpu_hours": 1.0})
    spec = dataclasses.replace(plan.spec, budget=budget)
    times = {name: [flat(10.0)] for name in plan.space.methods}
    found = estimate(spec, plan.space, times, Slots(1, 1.0, 1.0))
    assert found.search == pytest.approx(3600, rel=0.05)
    assert found.search <= 3600
    assert found.trials is not None
    assert epochs_of(make_ladder(spec.schedule), found.trials, 2) == found.epochs
    assert found.least is found.most is None  # the hours are the budget's


# --- the verb ---------------------------------------------------------------------------------------------------------


def answered(seconds=0.5, batch=32, clips=100, need=0.0, memory=3 << 20):
    """What a process answers of a configuration with two stages, whose second is twice as slow."""
    parts = {part: seconds * share for part, share in zip(PARTS, (0.05, 0.15, 0.3, 0.4, 0.05, 0.05), strict=True)}
    stages = [
        {"name": "a", "start": 0.0, "steps": 5, "seconds": seconds, "parts": parts},
        {"name": "b", "start": 0.5, "steps": 5, "seconds": 2 * seconds, "parts": {p: 2 * s for p, s in parts.items()}},
    ]
    return {
        "batch": batch,
        "steps_per_epoch": 4,
        "stages": stages,
        "spread_s": 0.25,
        "rung": {"features": 1.5, "probe": 0.004, "clips": clips, "probed": 100, "of": 100},
        "rung_below": {"features": 0.5, "probe": 0.002, "clips": clips, "probed": 100, "of": 100},
        "memory": {"peak": memory, "total": 0.0, "available": 0.0, "need": need},
    }


class Stand:
    """A process: answers by the method that it is asked about."""

    made: list[Stand]

    def __init__(self, answers):
        self.answers, self.asked, self.closed = answers, [], False

    def tell(self, what):
        self.asked.append(what)

    def hear(self, within_s):
        last = self.asked[-1]
        if last["do"] == "open":
            return {"device": "cpu"}
        answer = self.answers(last["config"])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        self.closed = True


def profiled(space_file, answers, **wishes):
    made: list[Stand] = []

    def make():
        made.append(Stand(answers))
        return made[-1]

    told: list[str] = []
    found = profile(space_file, Wishes(device="cpu", **wishes), told.append, make)
    assert all(stand.closed for stand in made)
    return found, told, made


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr(profiling, "this_machine", lambda: {"CPU": 2.0, "GPU": 0.0})


def test_every_method_has_a_process_of_its_own(space_file):
    found, told, made = profiled(space_file, lambda config: answered(), steps=7, seconds=3.0)
    assert told == ["skeletonclr (1 of 2)", "skeletonbyol (2 of 2)"]
    assert [(row.method, row.which) for row in found.rows] == [
        ("skeletonclr", FIRST),
        ("skeletonclr", DEAREST),
        ("skeletonbyol", FIRST),
        ("skeletonbyol", DEAREST),
    ]
    assert [[what["do"] for what in one.asked] for one in made] == [["open", "profile"]] * 4
    assert {(one.asked[1]["steps"], one.asked[1]["seconds"]) for one in made} == {(7, 3.0)}
    assert made[1].asked[1]["config"]["optim"]["batch"] == 64
    row = found.rows[0]
    assert row.step == pytest.approx(0.75)  # half of the run at 0.5 s, half at 1 s
    assert row.rate == pytest.approx(32 / 0.75)
    assert list(row.shares.values()) == pytest.approx([0.05, 0.15, 0.3, 0.4, 0.05, 0.05])


def test_what_is_printed(space_file):
    def answers(config):
        large = config["optim"]["batch"] == 64
        return answered(seconds=1.0 if large else 0.5, clips=50 if large else 100, batch=config["optim"]["batch"])

    found, _, _ = profiled(space_file, answers)
    text = lines(found)
    assert text[0] == "profiled: one process on cpu, 1 thread, alone"
    assert "`skeltune sample SPACE --seed 3`" in text[1]
    table = text.index("") + 1
    assert " ".join(text[table].split()) == (
        "method samples/s step memory load views forward backward optim moment epoch a rung: features probe"
    )
    assert text[table + 2].split()[:4] == ["dearest", "43", "1.5", "s"]
    assert "3 MiB" in text[table + 1]
    assert "5 %" in text[table + 1]
    assert "~1.5 s" in text[table + 2]
    assert text[table + 2].endswith("  4 ms")
    assert "~1.5 s" not in text[table + 1]
    whole = "\n".join(text)
    assert "packing: none on the CPU, 2 trials side by side on 1 CPU core each" in whole
    assert "budget: 8 trials ~ 8x2 + 4x2 + 2x2 = 28 epochs" in whole
    assert "(measured just now), 2 side by side" in whole
    assert "~ scaled up from some of the clips" in whole
    assert "(data-parallel) are left out" in whole
    hours = next(line for line in text if line.startswith("CPU-hours"))
    assert found.cost.search == pytest.approx(28 * sum(found.cost.pace.seconds.values()) / 2)
    assert f"about {found.cost.search / 3600:.2g}; {found.cost.least / 3600:.2g} to" in hours
    assert all(len(line) <= 140 for line in text)


def test_json_says_the_same(space_file):
    found, _, _ = profiled(space_file, lambda config: answered())
    told = json.loads(json.dumps(to_json(found)))
    assert [row["which"] for row in told["methods"]] == [FIRST, DEAREST] * 2
    assert told["methods"][0]["samples_per_s"] == pytest.approx(32 / 0.75)
    assert told["methods"][0]["draws"] == dict(found.rows[0].draws)
    assert told["search"]["epochs"] == 28
    assert told["search"]["slot_seconds"]["about"] == pytest.approx(found.cost.search)
    assert told["packing"] is None


def test_one_that_fails_is_a_row(space_file):
    def answers(config):
        lacks = MeasuringFailed("the process was ended by SIGKILL (out of memory?)", memory=True)
        return lacks if config["method"] == "skeletonbyol" else answered()

    found, _, _ = profiled(space_file, answers)
    assert len(found.measured) == 2
    text = lines(found)
    assert any(line.startswith("skeletonbyol  the process was ended by SIGKILL (out of memory?)") for line in text)
    assert "not measured, counted as the others' mean: skeletonbyol" in text
    assert found.cost.search == pytest.approx(28 * found.cost.pace.seconds["skeletonclr"])
    assert to_json(found)["methods"][2]["failed"].startswith("the process was ended")


def test_where_nothing_could_be_measured_the_work_failed(space_file):
    with pytest.raises(WorkFailed, match=r"skeletonclr: no room; .*skeletonbyol: no room"):
        profiled(space_file, lambda config: MeasuringFailed("no room"))


def test_some_methods_only(space_file):
    found, told, _ = profiled(space_file, lambda config: answered(), methods=("skeletonbyol", "skeletonbyol"))
    assert {row.method for row in found.rows} == {"skeletonbyol"}
    assert told == ["skeletonbyol (1 of 1)"]
    with pytest.raises(InputError, match="method 'skeletonbyl' is not in this space; did you mean 'skeletonbyol'"):
        profiled(space_file, lambda config: answered(), methods=("skeletonbyl",))


def test_a_search_that_this_machine_could_not_run_is_profiled_all_the_same(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE % "1")
    found, _, _ = profiled(path, lambda config: answered())
    assert found.slots == Slots(1, 1.0, 0.0)
    assert any("could not run the search as it is written: budget.per_trial.gpu is 1" in line for line in lines(found))


def on_a_gpu(monkeypatch, space_file, gpu, rates):
    """As if there were a GPU that holds seven of what takes the most memory."""
    monkeypatch.setattr(profiling, "pick_device", lambda want: torch.device("cuda"))
    monkeypatch.setattr(profiling, "this_machine", lambda: {"CPU": 16.0, "GPU": 2.0})
    orders = []

    def measure(order, make, say):
        orders.append(order)
        [method] = order.configs
        need = {"skeletonclr": 10.0, "skeletonbyol": 20.0}[method]
        m = profiling_measured(need, order, rates[method])
        if isinstance(m, Exception):
            raise m
        return profiling.Found(m, "A100", method, 1, 1)

    monkeypatch.setattr(profiling, "measure", measure)
    path = space_file.parent / f"{gpu}.yaml"
    path.write_text(SPACE % gpu)
    made = []
    found = profile(path, Wishes(), lambda line: None, lambda: made.append(Stand(lambda c: answered())) or made[-1])
    return found, orders


def profiling_measured(need, order, rates):
    from tuning.measuring.packing import Measured

    if isinstance(rates, Exception):
        return rates
    return Measured(100.0, 100.0, need, order.cores, order.cpu, tuple(zip((1, 2, 4), rates, strict=False)))


def test_on_a_gpu_each_method_has_a_packing_and_the_search_the_heaviest_ones(monkeypatch, space_file):
    rates = {"skeletonclr": (100, 200, 400), "skeletonbyol": (100, 160)}
    found, orders = on_a_gpu(monkeypatch, space_file, "auto", rates)
    assert [row.packing and row.packing.trials_per_gpu for row in found.rows] == [None, 4, None, 2]
    assert found.packing.trials_per_gpu == 2
    assert (found.slots.count, found.slots.gpu) == (4, 0.5)
    assert found.crowded == pytest.approx(2 * 100 / 160)
    assert {(order.cores, order.cpu) for order in orders} == {(8.0, 1.0)}
    assert orders[0].configs["skeletonclr"]["optim"]["batch"] == 64  # of the dearest
    text = "\n".join(lines(found))
    assert "packing skeletonclr: 4 trials a GPU (400 samples/s together, 100 alone)" in text
    assert "goes by the method that takes the most memory: 4 trials side by side" in text
    assert "GPU-hours of the search" in text
    alone, _ = on_a_gpu(monkeypatch, space_file, "one", rates)
    assert (alone.slots.count, alone.slots.gpu, alone.crowded) == (2, 1.0, 1.0)
    assert found.cost.search == pytest.approx(1.25 * alone.cost.search)
    assert "with gpu: auto it would put 2 on a GPU" in "\n".join(lines(alone))


def test_a_packing_that_could_not_be_measured_is_one_trial_a_gpu(monkeypatch, space_file):
    rates = {"skeletonclr": (100, 200, 400), "skeletonbyol": MeasuringFailed("out of memory")}
    found, _ = on_a_gpu(monkeypatch, space_file, "auto", rates)
    assert found.packing.trials_per_gpu == 1  # nobody knows what that one takes
    assert found.slots.gpu == 1.0
    assert "packing skeletonbyol: one trial a GPU: not measured (out of memory)" in lines(found)


def test_the_verb_end_to_end(space_file):
    """Two real processes; progress on standard error, the figures on standard output."""
    asked = [
        "profile",
        str(space_file),
        "--method",
        "skeletonclr",
        "--steps",
        "1",
        "--seconds",
        "0.2",
        "--device",
        "cpu",
    ]
    shown = CliRunner().invoke(app, [*asked, "--json"])
    assert shown.exit_code == 0, shown.output
    assert shown.stderr.splitlines() == ["skeletonclr (1 of 1)"]
    told = json.loads(shown.stdout)
    first, most = told["methods"]
    for row in (first, most):
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert row["samples_per_s"] > 0
        assert row["memory"]["peak"] > 1 << 20
        assert row["rung"]["features"] > 0
    assert most["batch"] == 64
    assert told["search"]["slot_seconds"]["least"] <= told["search"]["slot_seconds"]["about"]


def test_mistakes_are_one_line(space_file, capsys):
    from tuning.cli import _run

    assert _run(["profile", str(space_file), "--device", "cuda"]) == (0 if torch.cuda.is_available() else 2)
    assert _run(["profile", str(space_file), "--method", "moco"]) == 2
    assert _run(["profile", "no-such-space"]) == 2
    faults = capsys.readouterr().err.splitlines()
    assert len(faults) == 3
    assert "PyTorch sees no GPU here" in faults[0]
    assert "method 'moco' is not in this space" in faults[1]
