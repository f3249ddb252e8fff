"""The benchmarks at their smallest: they run, both sides compute the same, the file has its shape. Nothing is timed."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
SMALL = ["--batch", "4", "--frames", "12", "--width", "1", "--rounds", "1", "--seconds", "1", "--clips", "1"]


@pytest.fixture
def benchmarks(monkeypatch):
    """The package is no part of the distribution: it is run from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import reference, step, timing

    return step, reference, timing


def test_step_measures_and_both_sides_agree(benchmarks, monkeypatch, tmp_path, capsys):
    step, _, _ = benchmarks
    monkeypatch.setattr(step, "PROBE_EPOCHS", 10)
    out = tmp_path / "new" / "step.json"
    assert step.main([*SMALL, "--device", "cpu", "--json", str(out)]) == 0
    told = json.loads(out.read_text(encoding="utf-8"))
    assert set(told) == {
        "benchmark", "date", "command", "machine", "versions", "settings", "rows", "checks", "load_before",
    }  # fmt: skip
    assert told["command"].startswith("python -m benchmarks.step --batch 4")
    assert set(told["machine"]) == {"cpu", "cores", "device", "threads", "system", "load"}
    assert {r["part"] for r in told["rows"]} == {"loading + augmentation", "whole step", "linear probe"}
    for row in told["rows"]:
        assert row["rounds"] >= 1
        for key in ("ratio", "ratio_cpu_time", "samples_per_second", "samples_per_cpu_second"):
            low, middle, high = (row[key][k] for k in ("min", "median", "max"))
            assert 0 < low <= middle <= high < math.inf
        if row["side"] == "plain":
            assert row["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    probe = next(r for r in told["rows"] if r["part"] == "linear probe" and r["side"] == "plain")
    assert probe["extrapolated_from_epochs"] == probe["rounds"]
    assert "EXTRAPOLATED" in probe["note"]
    checks = {c["what"]: c for c in told["checks"]}
    assert set(checks) == {"views", "loss of step 1", "loss of step 2", "key weights", "probe"}
    for number in (1, 2):
        check = checks[f"loss of step {number}"]
        assert check["plain"] == pytest.approx(check["ours"], rel=1e-9)
    assert all(c["agree"] for c in checks.values())
    printed = capsys.readouterr().out
    assert "| whole step | ours |" in printed
    assert told["machine"]["cpu"] in printed


@pytest.fixture
def setup(benchmarks, tmp_path):
    """What both sides share, with a short queue."""
    step, _, _ = benchmarks
    clips, split = step.build_clips(1, 12, tmp_path)
    config = step.published(4, 12, 1)
    config = dataclasses.replace(config, params=dataclasses.replace(config.params, queue=16))
    return step.Setup(clips, split, config, torch.device("cpu"))


def test_views_that_differ_are_seen(benchmarks, setup, monkeypatch):
    step, reference, _ = benchmarks
    assert step.check_views(setup)["agree"]
    real = reference.crop
    monkeypatch.setattr(reference, "crop", lambda clip, rho, start=None: real(clip, rho, start)[:, ::-1])
    assert not step.check_views(setup)["agree"]


@pytest.mark.parametrize("forgotten", ["_move_key", "_remember"])
def test_steps_that_differ_are_seen(benchmarks, setup, monkeypatch, forgotten):
    step, reference, _ = benchmarks
    assert all(check["agree"] for check in step.check_steps(setup))
    monkeypatch.setattr(reference.PlainSkeletonCLR, forgotten, lambda *_: None)
    found = {check["what"]: check["agree"] for check in step.check_steps(setup)}
    assert found["loss of step 1"]
    assert not found["loss of step 2"]


def test_probes_that_differ_are_seen(benchmarks, setup, monkeypatch):
    step, reference, _ = benchmarks
    assert step.check_probe(setup)["agree"]
    monkeypatch.setattr(reference, "probe_epoch", lambda *_: [])
    assert not step.check_probe(setup)["agree"]


def test_a_difference_stops_the_benchmark(benchmarks, monkeypatch, tmp_path, capsys):
    step, _, _ = benchmarks
    bad = step.agreement("views", torch.zeros(2), torch.ones(2))
    monkeypatch.setattr(step, "check_views", lambda _: bad)
    monkeypatch.setattr(step, "check_steps", lambda _: [])
    monkeypatch.setattr(step, "check_probe", lambda _: step.agreement("probe", torch.zeros(2), torch.zeros(2)))
    assert step.main([*SMALL, "--device", "cpu", "--json", str(tmp_path / "no.json")]) == 1
    assert "DO NOT AGREE: views" in capsys.readouterr().out
    assert not (tmp_path / "no.json").exists()


def test_plain_crop_and_shear(benchmarks):
    _, reference, _ = benchmarks
    clip = np.arange(3 * 12 * 2 * 1, dtype=np.float32).reshape(3, 12, 2, 1)
    assert np.array_equal(reference.crop(clip, 6.0, 2), clip)  # a start of T/rho is the clip itself
    assert np.array_equal(reference.crop(clip, 6.0, 0)[:, :2], clip[:, 1::-1])
    assert np.allclose(reference.shear(clip, 0.5, [0.0] * 6), clip)
    moved = reference.shear(clip, 0.5, [1.0, 0, 0, 0, 0, 0])
    assert np.allclose(moved[0], clip[0] + clip[1])
    assert np.allclose(moved[1:], clip[1:])


def test_interleaving_turns_the_order_round(benchmarks):
    _, _, timing = benchmarks
    seen = []
    sides = {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}
    turns = timing.interleave(sides, rounds=3, seconds=60, device=torch.device("cpu"))
    assert "".join(seen) == "ab" + "ab" + "ba" + "ab"  # the first pair warms up and is not timed
    assert [len(t.wall) for t in turns.values()] == [3, 3]
    seen.clear()
    turns = timing.interleave(sides, rounds=3, seconds=0, device=torch.device("cpu"))
    assert [len(t.wall) for t in turns.values()] == [1, 1]


@pytest.mark.parametrize("wrong", [["--batch", "1"], ["--frames", "4"], ["--rounds", "0"]])
def test_wrong_sizes(benchmarks, wrong):
    step, _, _ = benchmarks
    with pytest.raises(SystemExit) as ended:
        step.parse(wrong)
    assert ended.value.code == 2


def test_the_generators_benchmark_writes_its_rows(benchmarks, monkeypatch, tmp_path):
    from benchmarks import generator
    from methods.data.synthetic import SyntheticConfig

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
