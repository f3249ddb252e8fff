"""What probes cost, at its smallest: every rung of every setting is there, and shares are what was timed. No time is
asserted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

SMALL = ["--methods", "skeletonclr", "--clips", "1", "--frames", "8", "--epochs", "2", "--subset", "0", "20"]


@pytest.fixture
def probe_cost(monkeypatch):
    from benchmarks import probe_cost
    from methods.nn.encoder import EncoderConfig

    tiny = {**probe_cost.SMALLER[EncoderConfig], "encoder.width": 2, "encoder.dim": 8, "encoder.depth": 3}
    monkeypatch.setattr(probe_cost, "SMALLER", {**probe_cost.SMALLER, EncoderConfig: tiny})
    return probe_cost


def test_a_trial_is_measured_and_written(probe_cost, tmp_path, capsys):
    out = tmp_path / "new" / "probe_cost.json"
    assert probe_cost.main([*SMALL, "--precision", "fp32", "bf16", "--json", str(out)]) == 0
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["benchmark"] == "probe_cost"
    assert told["command"].startswith("python -m benchmarks.probe_cost --methods skeletonclr")
    assert [r["probe"] for r in told["rows"]] == ["all clips", "all clips, bf16", "subset 20", "subset 20, bf16"]
    for r in told["rows"]:
        train, held = r["clips"]
        assert train + held < 150
        assert r["fitted_on"] == {"1": train if "all" in r["probe"] else 20, "2": train}
        assert r["share"] == pytest.approx(sum(r["rungs_s"].values()) / r["training_s"])
        assert all(0 <= top1 <= 1 for top1 in r["top1"].values())
        assert all(0 < value < math.inf for value in (r["epoch_s"], r["pass_s"], *r["passes"].values()))
    exact, _, few, _ = told["rows"]
    assert exact["top1"]["2"] == few["top1"]["2"], "at the top a subset changes nothing"
    printed = capsys.readouterr().out
    assert "ARITHMETIC, not measured" in printed
    assert printed.count("| skeletonclr |") == 8


def test_all_settings_probe_the_same_models(probe_cost, tmp_path):
    """Probing disturbs nothing: a trial that is not probed on the way ends at the same score."""
    clips, split = probe_cost.build(1, 8, tmp_path)
    one, two = probe_cost.parse(SMALL), probe_cost.parse([*SMALL, "--rungs", "2", "--subset", "0"])
    often = probe_cost.measure("skeletonclr", clips, split, one)[0]
    (once,) = probe_cost.measure("skeletonclr", clips, split, two)
    assert list(often["rungs_s"]) == ["1", "2"]
    assert list(once["rungs_s"]) == ["2"]
    assert once["top1"]["2"] == often["top1"]["2"]


def test_longer_ladders_are_counted(probe_cost):
    """81 epochs: rungs 9, 27, 81, so two below the top; 1 s each and 3 s at the top, of 2 s an epoch."""
    assert probe_cost.longer(81, 2.0, 1.0, 3.0) == pytest.approx((2 * 1.0 + 3.0) / 162)
    assert probe_cost.longer(1, 2.0, 1.0, 3.0) == pytest.approx(1.5)


def test_what_misses_the_target_says_so(probe_cost):
    split = type("Split", (), {"train": np.arange(9), "validation": np.arange(3)})
    timed = probe_cost.Timed(probe_cost.ProbeConfig(), {1: 1.0, 2: 1.0}, {1: 0.5, 2: 0.5}, {1: 9, 2: 9})
    dear, cheap = (probe_cost.row("x", timed, [seconds] * 2, 1.0, split, [1, 2]) for seconds in (1.0, 100.0))
    text = probe_cost.lines([dear, cheap])
    assert "**100.0%** (target 5%: missed)" in text[2]
    assert "**1.0%** |" in text[3]


@pytest.mark.parametrize("wrong", [["--clips", "0"], ["--epochs", "0"], ["--rungs", "0"], ["--rungs", "10"]])
def test_wrong_sizes(probe_cost, wrong):
    with pytest.raises(SystemExit) as ended:
        probe_cost.parse(wrong)
    assert ended.value.code == 2
    assert probe_cost.parse([]).rungs == [1, 3, 9]
    assert probe_cost.parse(["--epochs", "12"]).rungs == [1, 3, 9, 12]
