"""What a reused worker keeps from one trial for the next: the split, the mapped clips, a GPU's copy of them."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_session import FILE, SMALL

from methods.data import make_split
from methods.data.synthetic import write_synthetic
from methods.errors import InputError
from tuning import datasets
from tuning.datasets import DataSource, source_of
from tuning.plan import plan_search, probe_config
from tuning.session import Session, Task, pick_device
from tuning.train import load_config


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("start") / "data"
    write_synthetic(path, SMALL)
    return path


@pytest.fixture
def source(data, tmp_path):
    def of(validate_on: str = "auto") -> tuple[DataSource, object, object]:
        (tmp_path / "c.yaml").write_text(FILE.replace("DATA", str(data)).replace("VALIDATE", validate_on))
        spec, config = load_config(tmp_path / "c.yaml")
        return source_of(spec), spec, config

    return of


@pytest.mark.parametrize(
    "validate_on", ["auto", "cv", "{held_out_subjects: [1, 2]}", "{held_out_cameras: [1]}", "{held_out_share: 0.2}"]
)
def test_a_kept_split_is_the_split(source, validate_on):
    found, _, _ = source(validate_on)
    plain = make_split(found.dataset(), found.protocol, found.validate_on, found.seed)
    for split in (found.split(), dataclasses.replace(found).split()):
        for name in ("train", "validation", "test", "folds"):
            assert np.array_equal(getattr(split, name), getattr(plain, name)), name
        assert (split.name, split.held_out, split.note) == (plain.name, plain.held_out, plain.note)
    assert found.split() is found.split()
    other = dataclasses.replace(found, validate_on={"held_out_share": 0.1}).split()
    assert not np.array_equal(other.validation, plain.validation)


def test_the_next_trial_opens_nothing_again(source, tmp_path, monkeypatch):
    found, spec, config = source()
    task = Task("a", config.to_dict(), 0, (2,), str(tmp_path / "a"))
    first = Session(task, found, probe_config(spec), "cpu")
    for name in ("make_split", "open_dataset", "clips_of"):
        monkeypatch.setattr(datasets, name, lambda *_, name=name: pytest.fail(f"{name} was called again"))
    again = Session(dataclasses.replace(task, key="b", seed=1, folder=str(tmp_path / "b")), found, probe_config(spec))
    assert again.split is first.split
    assert again.run.store.clips is first.run.store.clips
    assert again.step()["epoch"] == 1


def test_a_part_smaller_than_the_classes_is_refused_before_anything_starts(source, tmp_path):
    source()
    text = (tmp_path / "c.yaml").read_text().replace("probe: {", "probe: {subset: 2, ")
    (tmp_path / "few.yaml").write_text(text)
    with pytest.raises(InputError, match=r"probe.subset: 2 clips cannot hold one of each of the 3 classes"):
        plan_search(tmp_path / "few.yaml", tmp_path / "runs")
    (tmp_path / "few.yaml").write_text(text.replace("subset: 2", "subset: 3"))
    assert plan_search(tmp_path / "few.yaml", tmp_path / "runs").probe.subset == 3


class Resident:
    """A store as on a GPU: what it copies, and whether there was room."""

    made: list[tuple[int, int]]  # frames, and how many stores were alive then
    alive: weakref.WeakSet[Resident]
    room = True

    def __init__(self, clips, device) -> None:
        gc.collect()
        self.made.append((clips.data.shape[2], len(self.alive)))
        self.alive.add(self)
        self.clips, self.device = clips, device
        self.home = device if self.room else torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(datasets, "ClipStore", Resident)
    monkeypatch.setattr(Resident, "made", [], raising=False)
    monkeypatch.setattr(Resident, "alive", weakref.WeakSet(), raising=False)
    monkeypatch.setattr(datasets, "_resident", {})
    return SimpleNamespace(device=torch.device("cuda", 0), made=Resident.made)


def test_a_gpu_copies_clips_once_and_holds_one_array(source, gpu):
    found, _, config = source()
    steps = config.preprocess
    kept = [found.store(8, steps, gpu.device) for _ in range(3)]
    assert kept[0] is kept[1] is kept[2]
    del kept
    found.store(12, steps, gpu.device)
    found.store(8, steps, gpu.device)
    assert gpu.made == [(8, 0), (12, 0), (8, 0)], "the last array is let go before the next is copied"


def test_what_did_not_fit_is_tried_again(source, gpu, monkeypatch):
    found, _, config = source()
    monkeypatch.setattr(Resident, "room", False)
    for _ in range(2):
        found.store(8, config.preprocess, gpu.device)
    assert len(gpu.made) == 2
    monkeypatch.setattr(Resident, "room", True)
    assert found.store(8, config.preprocess, gpu.device) is found.store(8, config.preprocess, gpu.device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_trials_read_the_same_memory(source, tmp_path):
    found, spec, config = source()
    task = Task("a", config.to_dict(), 0, (2,), str(tmp_path / "a"))
    sessions = [
        Session(dataclasses.replace(task, folder=str(tmp_path / str(i))), found, probe_config(spec), "cuda")
        for i in range(2)
    ]
    assert sessions[0].run.store is sessions[1].run.store
    assert sessions[0].run.store.home.type == "cuda"


def test_a_closed_session_holds_nothing(source, tmp_path):
    """Recordings of steps refer to the run and the run to them: without a word they would outlive the trial."""
    found, spec, config = source()
    session = Session(Task("a", config.to_dict(), 0, (2,), str(tmp_path / "a")), found, probe_config(spec), "cpu")
    session.step()
    session.run.replayer = SimpleNamespace(run=session.run)
    model = weakref.ref(session.run.model)
    gc.collect()
    gc.disable()
    try:
        session.close()
        del session
        assert model() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("word", ["gpu9", "cuda:x", "meta", ""])
def test_what_is_no_device_is_said(word: str) -> None:
    with pytest.raises(InputError, match=f"'{word}' is no device that trials run on"):
        pick_device(word)
