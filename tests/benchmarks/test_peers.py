"""The comparison with the official codes at its smallest: it runs, both sides compute the same, the file has its shape.

Nothing is timed. That a peer computes what the official code computes is test_peer_parity*.py's affair.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from benchmarks import generator, peers, timing
from benchmarks.peer import PEERS, augment, checks, peer_of, probe, setup, skeletonclr
from methods.data.synthetic import SyntheticConfig
from methods.registry import get_method, list_methods
from methods.training.probe import ProbeConfig

CPU = torch.device("cpu")
TINY = ["--batch", "4", "--frames", "12", "--width", "1", "--rounds", "1", "--seconds", "1", "--clips", "1"]
SMALL = [*TINY, "--device", "cpu"]


@pytest.fixture
def bench(tmp_path):
    return setup.Bench(1, tmp_path, CPU)


@pytest.fixture
def config():
    """SkeletonCLR, tiny, its queue too."""
    found, _ = setup.scaled_config("skeletonclr", batch=4, frames=12, width=1)
    return dataclasses.replace(found, params=dataclasses.replace(found.params, queue=16))


# --- the whole command ----------------------------------------------------------------------------------------------


def test_every_part_of_two_methods(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(probe, "EPOCHS", 10)
    monkeypatch.setattr(peers, "TRIAL_EPOCHS", 3)
    monkeypatch.setattr(peers, "PROBED_AT", (1, 2, 3))
    out = tmp_path / "new" / "peers.json"
    assert peers.main([*SMALL, "--methods", "skeletonclr", "crrl", "--json", str(out)]) == 0
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["command"].startswith("python -m benchmarks.peers --batch 4")
    assert set(told["machine"]) == {"cpu", "cores", "device", "threads", "system", "load"}
    assert told["missing"] == {}
    for row in told["rows"]:
        assert row["rounds"] >= 1
        for key in ("ratio", "ratio_cpu_time", "samples_per_second", "samples_per_cpu_second"):
            low, middle, high = (row[key][k] for k in ("min", "median", "max"))
            assert 0 < low <= middle <= high < math.inf
        if row["side"] == "peer":
            assert row["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert {r["part"] for r in told["rows"]} == {
        "data: skeletonclr", "data: crrl", "step: skeletonclr, train", "step: crrl, contrast", "step: crrl, fuse",
        "probe", "trial", "trial, peer's probes left out", "trial, all probes left out",
    }  # fmt: skip
    estimated = [r for r in told["rows"] if "ESTIMATED" in r["note"]]
    assert {(r["part"], r["side"]) for r in estimated} == {("probe", "peer"), ("trial", "peer")}
    assert next(r for r in estimated if r["part"] == "probe")["estimated_from_epochs"] >= 3
    named = {c["what"]: c for c in told["checks"]}
    assert set(named) == {"views", "loss of step 1", "loss of step 2", "key weights", "probe"}
    assert all(c["agree"] for c in named.values())
    printed = capsys.readouterr().out
    assert "| crrl | fuse |" in printed
    assert "crrl: both sides equal the official code's recorded numbers" in printed
    assert "of its training time" in printed
    assert told["machine"]["cpu"] in printed


def test_a_method_without_a_peer_is_a_row(monkeypatch, capsys):
    monkeypatch.setitem(PEERS, "cmal", ("not_written_yet", "CMAL"))
    monkeypatch.setattr(peers, "all_checks", lambda *_: [])
    assert peers.main([*SMALL, "--methods", "cmal", "skeletonbyol", "--parts", "data", "step"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| cmal | no peer |") == 2
    assert "| skeletonbyol | train |" in printed


def test_a_peer_that_lacks_something_else_is_an_error(monkeypatch):
    def broken(_):
        raise ModuleNotFoundError("No module named 'torchlight'", name="torchlight")

    monkeypatch.setattr(peers, "peer_of", broken)
    with pytest.raises(ModuleNotFoundError, match="torchlight"):
        peers.find_peer("cmal", peers.Found())


def test_a_difference_stops_the_benchmark(monkeypatch, tmp_path, capsys):
    bad = checks.agreement("views", torch.zeros(2), torch.ones(2))
    monkeypatch.setattr(peers, "all_checks", lambda *_: [bad])
    assert peers.main([*SMALL, "--json", str(tmp_path / "no.json")]) == 1
    assert "DO NOT AGREE: views" in capsys.readouterr().out
    assert not (tmp_path / "no.json").exists()


@pytest.mark.parametrize(
    "wrong", [["--batch", "3"], ["--frames", "4"], ["--rounds", "0"], ["--methods", "moco"], ["--parts", "sleep"]]
)
def test_wrong_arguments(wrong):
    with pytest.raises(SystemExit) as ended:
        peers.parse(wrong)
    assert ended.value.code == 2


# --- do both sides agree? -------------------------------------------------------------------------------------------


def test_both_sides_agree(bench, config):
    assert all(check["agree"] for check in checks.all_checks(bench, config))


def test_views_that_differ_are_seen(bench, config, monkeypatch):
    real = checks.crop
    monkeypatch.setattr(checks, "crop", lambda clip, rho, start=None: real(clip, rho, start)[:, ::-1])
    assert not checks.check_views(bench, config)["agree"]


@pytest.mark.parametrize("forgotten", ["follow", "remember"])
def test_steps_that_differ_are_seen(bench, config, monkeypatch, forgotten):
    owner = skeletonclr if forgotten == "follow" else skeletonclr.SkeletonCLR
    monkeypatch.setattr(owner, forgotten, lambda *_: None)
    found = {check["what"]: check["agree"] for check in checks.check_steps(bench, config)}
    assert found["loss of step 1"] == (forgotten == "remember")  # the key network moves before its pass
    assert not found["loss of step 2"]


def test_probes_that_differ_are_seen(bench, config, monkeypatch):
    monkeypatch.setattr(probe, "probe_epoch", lambda *_: [])
    assert not checks.check_probe(bench, config)["agree"]


# --- what both sides get --------------------------------------------------------------------------------------------


def test_every_method_has_a_peer_and_a_size():
    assert set(PEERS) == set(setup.SIZES) == set(list_methods())


@pytest.mark.parametrize("method", PEERS)
def test_sizes(method):
    paper = setup.paper_config(method)
    config, words = setup.scaled_config(method)
    queue = setup.value_of(config, "queue")
    if queue is not None:
        assert queue * paper.optim.batch == setup.value_of(paper, "queue") * config.optim.batch
    smaller = config.optim.batch < paper.optim.batch
    assert (f"batch {config.optim.batch} of {paper.optim.batch}" in words) == smaller
    assert setup.value_of(config, "encoder.precision") == "fp32"
    assert setup.value_of(config, "encoder.bodies") in ("all", None)
    assert setup.scaled_config(method, setup.PAPERS) == (paper, "as published")
    narrow, _ = setup.scaled_config(method, width=4)
    for name in setup.WIDTHS[type(paper.encoder)]:
        assert setup.value_of(narrow, name) * 4 == setup.value_of(config, name)


def test_recorded_options_are_named(monkeypatch, config):
    monkeypatch.setattr(setup, "has_bf16", lambda _: True)
    fast, words = setup.recorded_options(config, CPU)
    assert (fast.encoder.bodies, fast.encoder.precision, words) == ("real", "bf16", "bodies real, precision bf16")
    monkeypatch.setattr(setup, "has_bf16", lambda _: False)
    assert setup.recorded_options(config, CPU)[1] == "bodies real"
    recurrent = setup.paper_config("cmd")
    assert setup.recorded_options(recurrent, CPU) == (recurrent, "")


def test_one_clip_in_five_has_a_second_body(bench):
    second = (np.asarray(bench.clips(12).data) != 0).any((1, 2, 3))[:, 1]
    assert np.array_equal(second, bench.two_persons)
    assert second.mean() == pytest.approx(0.2)
    for count in (5, 10, 20):
        chosen = bench.some(count, bench.train)
        assert len(set(chosen.tolist())) == count
        assert set(chosen.tolist()) <= set(bench.train.tolist())
        assert second[chosen].sum() * 5 == count
    with pytest.raises(ValueError, match="larger --clips"):
        bench.some(10_000, bench.train)
    assert not set(bench.subjects[bench.train].tolist()) & set(bench.subjects[bench.held].tolist())


@pytest.mark.parametrize("method", ["skeletonclr", "aimclr", "cmcs", "crrl"])
def test_a_run_is_put_into_its_stage(bench, method):
    config, _ = setup.scaled_config(method, batch=4, frames=12, width=1)
    run = bench.run(config, bench.some(8, bench.train))
    stages = get_method(method).cls.stages(config.params)
    ends = [stage.start for stage in stages[1:]] + [1.0]
    for stage, end in zip(stages, ends, strict=True):
        assert stage.start <= setup.at_stage(run, stage.start) < end
        assert run.step / run.total_steps == run.epoch / config.epochs


@pytest.mark.parametrize("method", ["pstl", "crossclr", "scdnet"])
def test_data_is_all_views(bench, method, monkeypatch):
    config, _ = setup.scaled_config(method, batch=4, frames=12, width=1)
    made = []
    real = peers.IN_STEP.get(method)
    if real:  # the official code makes its views in the step, so that the feeder alone would be no comparison
        monkeypatch.setitem(peers.IN_STEP, method, lambda *given: made.append(real(*given)))
    sides = peers.data_sides(bench, config, peer_of(method), bench.some(8, bench.train), 4)
    for side in sides.values():
        side()
    assert len(made) == (2 * peers.PASSES if real else 0)
    assert all([len(view) for view in views[:3]] == [4, 4, 4] for views in made)


# --- the pieces -----------------------------------------------------------------------------------------------------


def test_crop_and_shear_of_a_peer():
    clip = np.arange(3 * 12 * 2 * 1, dtype=np.float32).reshape(3, 12, 2, 1)
    assert np.array_equal(augment.crop(clip, 6.0, 2), clip)  # a start of T/rho is the clip itself
    assert np.array_equal(augment.crop(clip, 6.0, 0)[:, :2], clip[:, 1::-1])
    assert np.allclose(augment.shear(clip, 0.5, [0.0] * 6), clip)
    moved = augment.shear(clip, 0.5, [1.0, 0, 0, 0, 0, 0])
    assert np.allclose(moved[0], clip[0] + clip[1])
    assert np.allclose(moved[1:], clip[1:])


def test_a_queue_that_batches_do_not_divide_is_refused(config):
    peer = peer_of("skeletonclr")(config, setup.NTU25)
    with pytest.raises(ValueError, match="multiple of the batch"):
        peer.remember(torch.zeros(3, 8))


def test_settings_that_no_official_code_has_are_refused(config):
    other = dataclasses.replace(config, params=dataclasses.replace(config.params, momentum_schedule="cosine"))
    with pytest.raises(NotImplementedError, match="momentum_schedule"):
        peer_of("skeletonclr")(other, setup.NTU25)


def test_multiplied_out():
    passes = probe.EPOCHS // probe.TEST_EVERY
    assert peers.multiplied([1.0, 2.0], [0.5, 0.0]) == [probe.EPOCHS + passes / 2, 2.0 * probe.EPOCHS]
    whole = peers.total(timing.Turns([1.0, 2.0], [0.5, 0.5]), timing.Turns([3.0], [1.0]))
    assert (whole.wall, whole.cpu) == ([6.0], [2.0])


def test_a_verdict_says_what_was_missed():
    row = timing.row("data: x", "ours", 1, timing.Turns([1.0], [1.0]), timing.Turns([2.0], [2.0]))
    assert peers.verdict(row | {"target": 4.0}) == "**2.00**, below 4"
    assert peers.verdict(row | {"target": 2.0}) == peers.verdict(row | {"target": None}) == "**2.00**"


def test_interleaving_turns_the_order_round():
    seen = []
    sides = {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}
    turns = timing.interleave(sides, rounds=3, seconds=60, device=CPU)
    assert "".join(seen) == "ab" + "ab" + "ba" + "ab"  # the first pair warms up and is not timed
    assert [len(t.wall) for t in turns.values()] == [3, 3]
    seen.clear()
    turns = timing.interleave(sides, rounds=3, seconds=0, device=CPU)
    assert [len(t.wall) for t in turns.values()] == [1, 1]


def test_a_probe_is_timed_three_times_though_time_is_up(bench, monkeypatch):
    monkeypatch.setattr(probe, "EPOCHS", 5)
    monkeypatch.setattr(peers, "validate", lambda *_: None)
    args, found = peers.parse(SMALL), peers.Found()
    assert isinstance(args, argparse.Namespace)
    peers.measure_probe(bench, args, found, seconds=0.0)
    assert {row["rounds"] for row in found.rows} == {3}
    assert {row["estimated_from_epochs"] for row in found.rows} == {3}


def test_what_is_scored_are_clips_of_other_subjects(bench, config):
    split = bench.split(bench.some(8, bench.train))
    run = bench.run(config, split.train)
    result = peers.validate(run.model, run.store, split, ProbeConfig())
    assert set(result.clips.tolist()) == set(bench.held.tolist())


def test_the_generators_benchmark_writes_its_rows(monkeypatch, tmp_path):
    tiny = SyntheticConfig(
        clips_per_cell=1, subjects=3, cameras=2, actions=("wave", "walk", "bow", "hug", "push", "kick")
    )
    monkeypatch.setattr(generator, "QUICKSTART", tiny)
    monkeypatch.setattr(generator, "supervised", lambda x, y, train, **_: (0.5, 0.75, y[~train].flip(0)))
    out = tmp_path / "generator.json"
    assert generator.main(["--frames", "8", "--only", "xsub", "--json", str(out)]) == 0
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["command"].startswith("python -m benchmarks.generator --frames 8")
    assert [(r["split"], r["model"], r["input"]) for r in told["rows"]] == [
        *(("xsub", "1-NN", name) for name in generator.INPUTS),
        ("xsub", "ST-GCN", "centre"),
    ]
    assert all(0 <= r["top1"] <= 1 for r in told["rows"])
