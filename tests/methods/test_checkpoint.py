"""Checkpoints: plain data, all or nothing, and no surprise with a damaged or foreign file."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import copy_state, make_clips, make_config, same

from methods.errors import InputError
from methods.registry import list_methods
from methods.training import checkpoint
from methods.training.config import StreamsConfig
from methods.training.features import extract
from methods.training.pretrain import Run, pretrain, start

CLIPS = make_clips(16)
CONFIG = make_config("skeletonclr", epochs=2, streams=StreamsConfig(("joint", "bone")))


def trained(config=CONFIG, clips=CLIPS, epochs: int = 1) -> Run:
    run = start(config, clips, np.arange(16), seed=3)
    list(pretrain(run, until=epochs))
    return run


@pytest.fixture(scope="module")
def run() -> Run:
    return trained()


@pytest.fixture
def path(run: Run, tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "x.pt", run, note="so far", scores=[0.5, 0.25])
    return tmp_path / "x.pt"


def test_file_is_plain_data(path: Path, run: Run) -> None:
    state = torch.load(path, weights_only=True)
    assert state["config"] == CONFIG.to_dict()
    assert (state["epoch"], state["step"], state["seed"]) == (1, 2, 3)
    assert state["fingerprint"] == "tiny" and state["extra"] == {"note": "so far", "scores": [0.5, 0.25]}
    assert same(state["model"], copy_state(run.model))


@pytest.mark.parametrize("name", list_methods())
def test_model_is_rebuilt_for_probing(name: str, tmp_path: Path) -> None:
    run = trained(make_config(name, epochs=1))
    checkpoint.save(tmp_path / "deep" / "folder" / "x.pt", run)
    config, model = checkpoint.load_model(checkpoint.read(tmp_path / "deep" / "folder" / "x.pt"))
    assert config == run.config and same(copy_state(model), copy_state(run.model))
    index = torch.arange(8)
    mine, theirs = extract(model, run.store, index, index), extract(run.model, run.store, index, index)
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_failure_leaves_the_old_file_and_no_litter(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def half(state: object, file: object) -> None:
        file.write(b"half a file")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, run)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["x.pt"]


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_interruption_leaves_the_old_file_and_no_litter(
    path: Path, run: Run, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, where, stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, run)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["x.pt"]


def test_file_is_whole_on_disk_before_it_has_its_name(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (done.append("fsync"), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    checkpoint.save(path, run)
    assert done == ["fsync", "replace"]
    checkpoint.read(path)


def test_file_has_the_usual_permissions(path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_file(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"x\.pt: not a readable checkpoint"):
        checkpoint.read(path)


class Trap:
    """What a hostile file would hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("trapped",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_hostile_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"config": Trap(), "model": {}}, tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("x.pt", "y.pt"):
        with pytest.raises(InputError, match="not a readable checkpoint"):
            checkpoint.read(tmp_path / name)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    "foreign", [{"state_dict": {}}, [1, 2], torch.ones(3), {"config": {}, "model": {}, "format": 99}]
)
def test_foreign_file(tmp_path: Path, foreign: object) -> None:
    torch.save(foreign, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"not a skeltune checkpoint|format 99, this version reads 1"):
        checkpoint.read(tmp_path / "x.pt")


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(InputError, match="no such checkpoint"):
            checkpoint.read(path)


def test_other_configuration(path: Path) -> None:
    for change in ({"epochs": 3}, {"params": dataclasses.replace(CONFIG.params, temperature=0.2)}):
        other = start(dataclasses.replace(CONFIG, **change), CLIPS, np.arange(16), seed=3)
        before = copy_state(other.model)
        with pytest.raises(InputError, match="another configuration"):
            checkpoint.restore(checkpoint.read(path), other)
        assert same(copy_state(other.model), before) and other.step == 0


def test_other_data(path: Path) -> None:
    other = start(CONFIG, dataclasses.replace(CLIPS, fingerprint="other"), np.arange(16), seed=3)
    with pytest.raises(InputError, match="other data"):
        checkpoint.restore(checkpoint.read(path), other)


def test_other_training_clips_of_the_same_data(path: Path) -> None:
    """A rung of 16 clips went 2 steps an epoch; with 8 clips the whole run has 2 steps, all of them done."""
    other = start(CONFIG, CLIPS, np.arange(8), seed=3)
    with pytest.raises(InputError):
        checkpoint.restore(checkpoint.read(path), other)


def test_weights_that_do_not_fit(path: Path) -> None:
    state = checkpoint.read(path)
    state["config"]["encoder"]["dim"] = 24
    with pytest.raises(InputError, match="do not fit its configuration"):
        checkpoint.load_model(state)


@pytest.mark.parametrize("key", ["layout", "seed"])
def test_a_part_that_is_missing_is_said(path: Path, key: str) -> None:
    state = checkpoint.read(path)
    del state[key]
    torch.save(state, path)
    with pytest.raises(InputError):
        checkpoint.load_model(checkpoint.read(path))
