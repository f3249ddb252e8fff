"""The learning benchmark at its smallest: a run is a line, pairs are by seed, the test side is never read."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from methods.data.synthetic import SyntheticConfig, write_synthetic
from methods.registry import list_methods

ROOT = Path(__file__).parents[2]
TINY = SyntheticConfig(clips_per_cell=1, subjects=5, cameras=2, actions=("wave", "walk", "bow", "kick"), max_frames=40)


@pytest.fixture
def learning(monkeypatch, tmp_path):
    """The module, with a tiny set in place of the generated one."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import learning

    monkeypatch.setattr(learning, "BATCH", 8)
    monkeypatch.setattr(learning, "OPTIM", {**learning.OPTIM, "batch": 8})
    tiny = dataclasses.replace(learning.DATA["generated"], path=lambda: tmp_path / "tiny")
    write_synthetic(tmp_path / "tiny", TINY)
    monkeypatch.setattr(learning, "DATA", {"generated": tiny})
    learning.opened.cache_clear()
    yield learning
    learning.opened.cache_clear()


def test_two_epochs_of_one_method(learning, tmp_path, capsys):
    out = tmp_path / "runs.jsonl"
    asked = ["--data", "generated", "--methods", "skeletonclr", "--seeds", "1", "--steps", "4", "--out", str(out)]
    assert learning.main(asked) == 0
    (row,) = learning.read(out)
    assert row["steps"] == 4
    assert len(row["trace"]) == 2
    assert set(row["before"]) == set(row["after"]) == {"linear", "knn"}
    assert row["config"]["params"]["queue"] == 256
    assert "| skeletonclr |" in capsys.readouterr().out
    assert learning.main([*asked, "--resume"]) == 0
    assert len(learning.read(out)) == 1
    with pytest.raises(SystemExit):  # without --resume nothing is written into a file that is there
        learning.main(asked)


def test_held_out_subjects_change_with_the_seed_and_are_never_the_tests(learning):
    dataset, _ = learning.opened("generated")
    subjects = np.asarray(dataset.subjects)[:, 0]
    seen = []
    for seed in range(3):
        split = learning.held_out(dataset, seed)
        parts = [set(subjects[part].tolist()) for part in (split.train, split.validation, split.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        seen.append(parts[1])
    assert set.union(*seen) == parts[0] | parts[1]  # every training subject is judged on by some seed


def test_before_is_the_untrained_encoder_and_judging_changes_nothing(learning):
    dataset, clips = learning.opened("generated")
    split = learning.held_out(dataset, 0)
    config = learning.settings_of("crrl", learning.DATA["generated"], 2)
    run = learning.start(config, clips, split.train, seed=0)
    branch = run.model.branches["joint"]
    with learning.as_probed_at_the_end(run):
        assert branch.probed is branch.student
        first = learning.judge(run, split)
    assert branch.probed is branch.encoder
    assert learning.judge(run, split) != first  # another encoder's score
    with learning.as_probed_at_the_end(run):
        assert learning.judge(run, split) == first


def test_every_method_has_settings(learning):
    for method in list_methods():
        config = learning.settings_of(method, learning.DATA["generated"], 2)
        assert (config.frames, config.optim.batch, config.optim.name) == (learning.FRAMES, 8, "adam")
        assert getattr(config.params, "queue", 256) <= 256  # no more than the data, whatever is published


def test_set_has_the_last_word_and_makes_another_row(learning):
    args = learning.parse(["--methods", "cmal", "--set", "encoder.width=4", "encoder.init=normal", "--resume"])
    config = learning.settings_of("cmal", learning.DATA["generated"], 2, args.set)
    assert (config.encoder.width, config.encoder.init) == (4, "normal")
    plain = {"data": "generated", "method": "cmal", "seed": 0, "asked_steps": 4}
    assert learning.key_of(plain) != learning.key_of(plain | {"set": args.set})


def test_what_fails_is_a_row(learning, monkeypatch, tmp_path, capsys):
    def broken(*_):
        raise ValueError("no such thing")

    monkeypatch.setattr(learning, "measure", broken)
    out = tmp_path / "runs.jsonl"
    assert learning.main(["--methods", "cmal", "--data", "generated", "--seeds", "1", "--out", str(out)]) == 0
    assert learning.read(out)[0]["failed"] == "ValueError: no such thing"
    assert "ValueError: no such thing" in capsys.readouterr().out.splitlines()[-1]


def test_a_cut_line_is_left_out(learning, tmp_path):
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps({"data": "generated"}) + '\n{"data": "gen', encoding="utf-8")
    assert learning.read(file) == [{"data": "generated"}]


def test_lifts_are_paired_by_seed(learning):
    pairs = ((0.2, 0.2), (0.4, 0.5), (0.0, 0.2))
    rows = [{"before": {"linear": before}, "after": {"linear": after}} for before, after in pairs]
    assert learning._cells(rows, "linear") == ["20.0", "30.0", "**+10.0** ± 24.8", "2 of 3"]  # 4.303 * 10 / sqrt(3)
    assert math.isnan(learning.interval([1.0])[1])
