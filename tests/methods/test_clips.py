"""The clips that training reads: whole, unchanged, and read-only if they come from a memory map."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_clips, make_config

from methods.training.clips import ClipStore
from methods.training.pretrain import pretrain, start

CPU = torch.device("cpu")


def test_take_gives_the_clips_in_the_order_asked() -> None:
    clips = make_clips(10)
    index = torch.tensor([7, 0, 7, 3])
    taken = ClipStore(clips, CPU).take(index)
    assert taken.dtype == torch.float32 and taken.shape == (4, 3, 16, 25, 2)
    np.testing.assert_array_equal(taken.numpy(), clips.data[index.numpy()])
    assert len(clips) == 10


def test_what_is_taken_is_a_copy() -> None:
    clips = make_clips(4)
    store = ClipStore(clips, CPU)
    before = clips.data.copy()
    store.take(torch.arange(4)).zero_()
    np.testing.assert_array_equal(clips.data, before)


def test_a_read_only_map_trains_without_a_warning(tmp_path: Path) -> None:
    clips = make_clips(16)
    np.save(tmp_path / "x.npy", clips.data)
    before = (tmp_path / "x.npy").read_bytes()
    mapped = dataclasses.replace(clips, data=np.load(tmp_path / "x.npy", mmap_mode="r"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = start(make_config(epochs=1), mapped, np.arange(16), seed=0)
        from_map = [e.loss for e in pretrain(run)]
    assert (tmp_path / "x.npy").read_bytes() == before
    plain = start(make_config(epochs=1), clips, np.arange(16), seed=0)
    assert from_map == [e.loss for e in pretrain(plain)]


def test_an_index_outside_is_an_error_not_a_wrap() -> None:
    with pytest.raises(IndexError):
        ClipStore(make_clips(4), CPU).take(torch.tensor([4]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_on_the_device_resident_or_gathered(share: float) -> None:
    clips = make_clips(10)
    store = ClipStore(clips, torch.device("cuda"), share)
    assert (store._resident is None) == (share == 0)
    for index in (torch.tensor([7, 0]), torch.tensor([7, 0], device="cuda")):
        taken = store.take(index)
        assert taken.is_cuda
        np.testing.assert_array_equal(taken.cpu().numpy(), clips.data[[7, 0]])
