"""What a trial says of single clips: which were classified rightly, which clips they are, and whose."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_session import FILE, SMALL

from methods.data.synthetic import write_synthetic
from methods.training.branches import Branches
from methods.training.probe import ProbeConfig, ProbeResult
from tuning.datasets import source_of
from tuning.engine.noise import clips_mark, decode_correct
from tuning.recorder import report_of
from tuning.session import Session, Task, kept_parameters, per_clip, probe_subjects, probed, probed_clips
from tuning.train import load_config, probe_config


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "data"
    write_synthetic(path, SMALL)
    return path


def begin(data: Path, folder: Path, validate_on: str, score: str = "validation") -> tuple[Session, object]:
    folder.mkdir(exist_ok=True)
    (folder / "c.yaml").write_text(FILE.replace("DATA", str(data)).replace("VALIDATE", validate_on))
    spec, config = load_config(folder / "c.yaml")
    source = source_of(spec)
    task = Task("t", config.to_dict(), 0, (2,), str(folder / "t"), score=score)
    return Session(task, source, probe_config(spec), "cpu"), source


@pytest.mark.parametrize("validate_on", ["{held_out_subjects: [1, 2]}", "cv", "{held_out_cameras: [1]}"])
def test_a_rung_tells_every_clip(data, tmp_path, validate_on):
    """The bits are those of the probe, and the subjects are those of the same clips in the same order."""
    session, source = begin(data, tmp_path, validate_on)
    before, result = session.step(), session.step()
    assert "correct" not in before
    assert "probed" not in before
    assert json.loads(json.dumps(result)) == result
    found = session.score()
    assert decode_correct(result["correct"], result["clips"]).tolist() == found.correct.tolist()
    assert np.mean(decode_correct(result["correct"], result["clips"])) == pytest.approx(result["top1"])
    people = probed(source)
    assert people.mark == result["probed"]
    persons = source.dataset().subjects[found.clips][:, 0]
    assert people.groups == len(np.unique(persons)) > 1
    for person in np.unique(persons):
        assert len(np.unique(people.subjects[persons == person])) == 1


@pytest.mark.parametrize("validate_on", ["{held_out_subjects: [1, 2]}", "cv"])
def test_below_the_top_a_rung_fits_on_few_and_says_so(data, tmp_path, validate_on):
    """Two trials of other seeds fit on the same clips; the last rung fits on all; the journal keeps the number."""
    probe = ProbeConfig(l2=0.01, subset=6)
    found = []
    for seed in (0, 1):
        session, source = begin(data, tmp_path / str(seed), validate_on)
        task = dataclasses.replace(session.task, seed=seed, probe_at=(1, 2), folder=str(tmp_path / f"few{seed}"))
        few = Session(task, source, probe, "cpu")
        found.append([few.step(), few.step()])
    (first, last), (other, _) = found
    assert (first["fitted_on"], other["fitted_on"]) == (6, 6)
    assert last["fitted_on"] > 6
    assert first["clips"] == last["clips"]
    assert first["probed"] == other["probed"] == last["probed"]
    assert report_of(first).logs["fitted_on"] == 6
    whole = Session(dataclasses.replace(few.task, folder=str(tmp_path / "all")), source, ProbeConfig(l2=0.01), "cpu")
    below, top = whole.step(), whole.step()
    assert below["loss"] != other["loss"]
    assert top["loss"] == found[1][1]["loss"], "at the top nothing is left out"


def test_a_test_score_is_fitted_on_all(data, tmp_path):
    session, source = begin(data, tmp_path, "{held_out_subjects: [1]}", score="test")
    few = Session(
        dataclasses.replace(session.task, probe_at=(1, 2), folder=str(tmp_path / "few")),
        source,
        ProbeConfig(subset=6),
        "cpu",
    )
    assert few.step()["fitted_on"] == len(session.split.train) + len(session.split.validation)


@pytest.mark.parametrize("score", ["validation", "test"])
def test_a_rung_tells_how_many_parameters_are_kept(data, tmp_path, score):
    """Those of the encoder alone: neither the heads of pretraining nor the momentum copy."""
    session, _ = begin(data, tmp_path, "{held_out_subjects: [1]}", score=score)
    before, result = session.step(), session.step()
    assert "parameters" not in before
    branch = session.run.model.branches["joint"]
    kept = sum(p.numel() for p in branch.encoder.parameters())
    assert result["parameters"] == kept
    assert isinstance(result["parameters"], int)
    assert 0 < 2 * kept < sum(p.numel() for p in branch.parameters())
    assert all(p is q for p, q in zip(branch.probed.parameters(), branch.encoder.parameters(), strict=True))


def test_every_stream_counts(data, tmp_path):
    one, _ = begin(data, tmp_path, "{held_out_subjects: [1]}")
    two = make_branches(one.run, ("joint", "bone"))
    assert kept_parameters(two) == 2 * kept_parameters(one.run.model)


def make_branches(run, use):
    streams = dataclasses.replace(run.config.streams, use=use)
    return Branches(dataclasses.replace(run.config, streams=streams), run.model.layout, 0)


def test_of_the_test_split_only_means_are_told(data, tmp_path):
    session, _ = begin(data, tmp_path, "{held_out_subjects: [1]}", score="test")
    session.step()
    result = session.step()
    assert result["clips"] == len(session.split.test)
    assert "correct" not in result
    assert "probed" not in result


def test_bits_stand_in_the_order_of_the_clips():
    found = ProbeResult(0.5, 1.0, {}, (), np.array([True, False, False, True]), np.array([7, 2, 9, 4]))
    told = per_clip(found)
    assert decode_correct(told["correct"], 4).tolist() == [False, True, True, False]
    assert told["probed"] == clips_mark(np.array([2, 4, 7, 9]))


@pytest.mark.parametrize(
    ("persons", "groups"),
    [
        ([[4], [2], [4], [2]], [1, 0, 1, 0]),
        ([[1, 2], [2, 1], [3, -1], [-1, 2]], [0, 0, 2, 1]),  # pairs by their lower id, the other one or not
        ([[-1], [-1], [-1], [-1]], [0, 1, 2, 3]),  # nobody is known: each for itself
        ([[5, -1], [-1, -1], [5, 6], [-1, -1]], [0, 1, 0, 2]),
    ],
)
def test_subjects_of_clips(persons, groups):
    dataset = SimpleNamespace(subjects=np.array([[99] * len(persons[0]), *persons], dtype=np.int64))
    assert probe_subjects(dataset, np.array([1, 2, 3, 4])).tolist() == groups


def test_a_clip_in_no_fold_is_not_probed():
    """Persons of two folds in one clip: pretrained on, never scored."""
    split = SimpleNamespace(train=np.array([2, 5, 6, 8]), validation=np.array([], int), folds=np.array([0, -1, 1, 0]))
    assert probed_clips(split).tolist() == [2, 6, 8]
