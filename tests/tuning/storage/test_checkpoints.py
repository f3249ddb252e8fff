"""Checkpoints that travel by the store: named by what they are, the newest wins, one at a time is kept."""

from __future__ import annotations

import dataclasses
import errno
import os
import pickle
from pathlib import Path

import pytest

from methods.errors import WorkFailed
from tuning.session import CHECKPOINT, Task
from tuning.storage import checkpoints as room
from tuning.storage.checkpoints import Checkpoints, Drops

TASK = Task("t0003", {"method": "skeletonclr", "lr": 0.1, "streams": ["joint"]}, 7, (3, 9), "/nowhere")


@pytest.fixture
def node(monkeypatch, tmp_path):
    """Turn this process into a node with a cache of its own."""

    def become(name: str) -> None:
        monkeypatch.setenv("SKELTUNE_CACHE", str(tmp_path / name))

    become("one")
    return become


@pytest.fixture
def shared(tmp_path) -> Checkpoints:
    (tmp_path / "store").mkdir()
    return Checkpoints(str(tmp_path / "store"), "fingerprint")


def save(where: Checkpoints, task: Task, text: str) -> None:
    where.local(task).mkdir(parents=True, exist_ok=True)
    (where.local(task) / CHECKPOINT).write_text(text)


def has(where: Checkpoints, task: Task) -> str | None:
    path = where.local(task) / CHECKPOINT
    return path.read_text() if path.is_file() else None


def stored(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "store").rglob("*") if p.is_file())


def test_the_name_is_that_of_the_session():
    assert room.CHECKPOINT == CHECKPOINT


def test_a_trial_goes_on_on_another_node(node, shared, tmp_path):
    shared = pickle.loads(pickle.dumps(shared))  # as it travels
    shared.fetch(TASK)
    assert has(shared, TASK) is None
    for epoch in (3, 9):
        save(shared, TASK, f"epoch {epoch}")
        assert shared.push(TASK, epoch)
    assert stored(tmp_path) == ["000009-0.pt"]
    node("two")
    assert has(shared, TASK) is None
    shared.fetch(TASK)
    assert has(shared, TASK) == "epoch 9"
    save(shared, TASK, "epoch 12")
    shared.push(TASK, 12)
    node("one")
    shared.fetch(TASK)
    assert has(shared, TASK) == "epoch 12"


def test_what_this_node_has_is_not_replaced_by_something_older(node, shared, tmp_path):
    save(shared, TASK, "epoch 9")
    shared.push(TASK, 9)
    (store_file,) = (tmp_path / "store").rglob("*.pt")
    store_file.rename(store_file.with_name("000006-0.pt")).write_text("epoch 6")
    shared.fetch(TASK)
    assert has(shared, TASK) == "epoch 9"


def test_a_number_given_again_meets_no_weights_of_another_trial(node, shared):
    save(shared, TASK, "first")
    shared.push(TASK, 3)
    for change in ({"config": {**TASK.config, "lr": 0.2}}, {"seed": 8}, {"train_on": "whole"}, {"key": "t0004"}):
        other = dataclasses.replace(TASK, **change)
        shared.fetch(other)
        assert has(shared, other) is None, change
    other_data = dataclasses.replace(shared, data="another")
    other_data.fetch(TASK)
    assert has(other_data, TASK) is None
    same = dataclasses.replace(TASK, folder="/elsewhere", probe_at=(3,), config=dict(reversed(TASK.config.items())))
    assert shared.name(same) == shared.name(TASK)


def test_a_checkpoint_beyond_a_score_that_was_lost_is_not_taken(node, shared, tmp_path):
    """The journal's copy may be older than the checkpoint; the scores between exist nowhere else."""
    first, second = dataclasses.replace(shared, life=1), dataclasses.replace(shared, life=2)
    save(first, TASK, "epoch 9")
    first.push(TASK, 9)
    second.fetch(TASK, upto=9)
    assert has(second, TASK) == "epoch 9"
    second.fetch(TASK, upto=3)
    assert has(second, TASK) is None
    node("two")
    second.fetch(TASK, upto=3)
    assert has(second, TASK) is None
    save(second, TASK, "epoch 3")
    second.push(TASK, 3)
    assert stored(tmp_path) == ["000003-2.pt"]


def test_a_node_that_dies_costs_nothing_under_the_same_driver(node, shared):
    """Its task still says what was known when it was made; the driver has had every score since."""
    life = dataclasses.replace(shared, life=2)
    save(life, TASK, "epoch 9")
    life.push(TASK, 9)
    life.fetch(TASK, upto=3)
    assert has(life, TASK) == "epoch 9"
    node("two")
    life.fetch(TASK, upto=3)
    assert has(life, TASK) == "epoch 9"


def test_a_driver_that_was_taken_over_replaces_nothing(node, shared, tmp_path):
    old, new = dataclasses.replace(shared, life=1), dataclasses.replace(shared, life=2)
    save(new, TASK, "new 3")
    new.push(TASK, 3)
    save(old, TASK, "old 9")
    old.push(TASK, 9)
    assert stored(tmp_path) == ["000003-2.pt", "000009-1.pt"]
    node("two")
    new.fetch(TASK, upto=3)
    assert has(new, TASK) == "new 3"


def test_a_save_that_was_never_noted_does_not_count(node, shared, tmp_path):
    """Killed between the save and its push: nobody knows its epoch."""
    save(shared, TASK, "epoch 3")
    shared.push(TASK, 3)
    path = shared.local(TASK) / CHECKPOINT
    path.write_text("epoch 12")
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    shared.fetch(TASK, upto=9)
    assert has(shared, TASK) == "epoch 3"


def test_a_checkpoint_replaced_while_it_is_fetched(node, shared, tmp_path, monkeypatch):
    save(shared, TASK, "epoch 3")
    shared.push(TASK, 3)
    node("two")
    store = room._opened(shared.store_url)
    real, calls = store.get, []

    def get(name, local):
        calls.append(name)
        if len(calls) == 1:  # its other node pushes at this moment
            store.put_bytes(b"epoch 9", name.replace("000003", "000009"))
            store.remove(name)
        return real(name, local)

    monkeypatch.setattr(store, "get", get, raising=False)
    shared.fetch(TASK)
    assert has(shared, TASK) == "epoch 9"


def test_a_store_that_is_away_stops_no_training_and_one_that_refuses_does(node, shared, monkeypatch):
    save(shared, TASK, "epoch 3")
    store = room._opened(shared.store_url)

    def fails(code):
        def put(local, name):
            raise OSError(code, os.strerror(code))

        return put

    monkeypatch.setattr(store, "put", fails(errno.ESTALE), raising=False)
    assert shared.push(TASK, 3, for_s=0) is False
    monkeypatch.setattr(store, "put", fails(errno.ENOSPC), raising=False)
    with pytest.raises(WorkFailed, match=r"checkpoint of t0003 to .*: No space left"):
        shared.push(TASK, 3)


def test_drops_and_sweeps(node, shared, tmp_path):
    tasks = [dataclasses.replace(TASK, key=f"t{n:04d}") for n in range(4)]
    for task in tasks:
        save(shared, task, task.key)
        shared.push(task, 3)
    drops = Drops(shared)
    drops.drop(tasks[0])
    drops.close()
    assert len(stored(tmp_path)) == 3
    assert shared.sweep({shared.name(tasks[1])}.__contains__) == 2
    assert len(stored(tmp_path)) == 1
    shared.forget(tasks[1])
    shared.fetch(tasks[1])
    assert has(shared, tasks[1]) == "t0001"


def test_without_a_store_everything_stays_in_the_run_folder(tmp_path):
    plain = Checkpoints(None)
    task = dataclasses.replace(TASK, folder=str(tmp_path / "t"))
    save(plain, task, "epoch 3")
    plain.fetch(task, upto=0)
    assert plain.push(task, 3)
    plain.forget(task)
    assert (tmp_path / "t" / CHECKPOINT).read_text() == "epoch 3"
    plain.drop(task)
    assert list((tmp_path / "t").iterdir()) == []
    assert plain.sweep(()) == 0
