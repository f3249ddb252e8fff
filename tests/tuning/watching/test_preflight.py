"""How a node knows that it sees the run folder and the data."""

from __future__ import annotations

from types import SimpleNamespace

from methods.errors import InputError
from tuning.watching.preflight import leave_mark
from tuning.workplace import faults_here, sees


def place(folder, mark, fault=None):
    def dataset():
        if fault:
            raise InputError(fault)

    there = (lambda: sees(folder, mark)) if mark else (lambda: True)
    source = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(folder=folder, mark=mark, source=source, sees_its_folder=there)


def test_a_folder_of_the_same_name_is_not_the_same_folder(tmp_path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    mark = leave_mark(mine)
    leave_mark(other)
    assert sees(str(mine), mark)
    assert not sees(str(other), mark)
    assert not sees(str(tmp_path / "none"), mark)
    assert faults_here(place(str(mine), mark)) == []


def test_all_faults_of_a_node_are_told_at_once(tmp_path) -> None:
    found = faults_here(place(str(tmp_path), "abc", fault="/data/ntu: no such folder"))
    assert len(found) == 2
    assert "does not see the run folder" in found[0]
    assert "--store" in found[0]
    assert found[1] == "/data/ntu: no such folder"
    assert faults_here(place(str(tmp_path), "")) == []
