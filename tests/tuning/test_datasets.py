"""How a node comes to its data: the path, a copy, or making it; and what it says when none of them works."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import socket
from pathlib import Path

import pytest
import tiny_session

from methods.data.synthetic import SyntheticConfig, write_synthetic
from methods.errors import InputError
from tuning import datasets
from tuning.datasets import source_of
from tuning.train import load_config

FILE = tiny_session.FILE.replace("VALIDATE", "{held_out_subjects: [1]}")
SMALL = SyntheticConfig(clips_per_cell=1, subjects=4, cameras=2, actions=("walk", "wave"), max_frames=40)


@pytest.fixture(autouse=True)
def _new_process():
    """What a process keeps open belongs to its own cache folder."""
    forget()
    yield
    forget()


def forget() -> None:
    for kept in (datasets._opened, datasets._split, datasets._clips, datasets._copied):
        kept.cache_clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "data"
    write_synthetic(path, SMALL)
    return path


@pytest.fixture
def spec(tmp_path):
    def write(name: object):
        (tmp_path / "c.yaml").write_text(FILE.replace("DATA", str(name)))
        return load_config(tmp_path / "c.yaml")[0]

    return write


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Become a node with an empty cache, in a process that has opened nothing yet; gives the source as it travels."""

    def become(source):
        monkeypatch.setenv("SKELTUNE_CACHE", str(tmp_path / "node"))
        forget()
        return pickle.loads(pickle.dumps(source))

    return become


def test_a_node_without_the_folder_names_itself_and_two_ways_out(data, spec, node, tmp_path):
    here = tmp_path / "here"
    shutil.copytree(data, here)
    source = source_of(spec(here))
    shutil.rmtree(here)
    for ask in (lambda s: s.dataset(), lambda s: s.clips(8, ())):
        with pytest.raises(InputError) as found:
            ask(node(source))
        for word in (str(here), socket.gethostname(), "shared file system", "--data-from"):
            assert word in str(found.value)


def test_a_node_with_other_data_names_itself(data, spec, node, tmp_path):
    here = tmp_path / "here"
    shutil.copytree(data, here)
    source = source_of(spec(here))
    shutil.rmtree(here)
    write_synthetic(here, dataclasses.replace(SMALL, seed=9))
    with pytest.raises(InputError, match=f"on {socket.gethostname()} this is other data"):
        node(source).dataset()


def test_a_node_copies_and_needs_no_path(data, spec, node, tmp_path, monkeypatch):
    here = tmp_path / "here"
    shutil.copytree(data, here)
    monkeypatch.chdir(data.parent)
    source = source_of(spec(here), copy_from="data")
    assert source.copy_from == str(data)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(here)
    found = node(source)
    assert found.dataset().path.is_relative_to(tmp_path / "node")
    assert found.clips(8, ("centre",)).data.shape[2] == 8
    assert (found.split().train == node(source).split().train).all()


def test_the_data_may_be_nowhere_but_there(data, spec, tmp_path, monkeypatch):
    """A driver on a head in a cloud: `data.set` names a folder of the machine where the file was written."""
    monkeypatch.setenv("SKELTUNE_CACHE", str(tmp_path / "head"))
    source = source_of(spec(data))
    nowhere = spec(data)
    nowhere = dataclasses.replace(nowhere, data=nowhere.data.model_copy(update={"set": "/no/such/folder"}))
    found = source_of(nowhere, copy_from=str(data))
    assert found.fingerprint == source.fingerprint
    assert Path(found.path).is_relative_to(tmp_path / "head")


def test_a_copy_of_other_data_is_told_at_the_start(data, spec, tmp_path):
    write_synthetic(tmp_path / "other", dataclasses.replace(SMALL, seed=9))
    with pytest.raises(InputError, match=r"holds other data than .*/data, which data.set names"):
        source_of(spec(data), copy_from=str(tmp_path / "other"))


def test_generated_data_is_made_where_it_is_missing(spec, node, monkeypatch, tmp_path):
    monkeypatch.setattr("methods.data.synthetic.QUICKSTART", SMALL)
    monkeypatch.setenv("SKELTUNE_CACHE", str(tmp_path / "driver"))
    source = source_of(spec("synthetic"))
    assert source.generated
    shutil.rmtree(tmp_path / "driver")
    assert node(source).dataset().path.is_relative_to(tmp_path / "node")
    assert node(source).clips(8, ("centre",)).num_classes == 2
