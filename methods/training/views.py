"""Clips on their way to a classifier: cropped in time, augmented, with as many bodies as an encoder was trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from methods.augment.crops import centre_crop, crop_resize
from methods.augment.policy import AugmentConfig, Policy
from methods.data.layouts import Layout
from methods.errors import InputError
from methods.filled import valid_lengths
from methods.training.clips import Clips, ClipStore

View = Callable[[Tensor, Generator | None], Tensor]


def make_view(layout: Layout, augment: AugmentConfig | None = None, middle: float = 1.0) -> View:
    """Clips (N, C, T, V, M) and a generator -> augmented clips; without a generator (or ``augment``) the plain ones.

    ``middle``: the share of their valid frames that plain clips keep, from the centre, stretched to T again.
    """
    policy = None if augment is None else Policy(augment, layout)

    def view(clips: Tensor, generator: Generator | None = None) -> Tensor:
        if policy is not None and generator is not None:
            return policy(clips, generator)
        if middle < 1:
            start, length = centre_crop(valid_lengths(clips), middle)
            return crop_resize(clips, start, length, clips.shape[2])
        return clips

    return view


class ChangedStore(ClipStore):
    """A store whose clips go through ``change`` when they are taken."""

    def __init__(self, store: ClipStore, change: Callable[[Tensor], Tensor]) -> None:
        self.clips, self.device = store.clips, store.device
        self._store, self._change = store, change

    def take(self, index: Tensor) -> Tensor:
        return self._change(self._store.take(index))


def fitting_store(store: ClipStore, layout: Layout, channels: int, persons: int) -> ClipStore:
    """The store as an encoder of clips (N, C, T, V, M) of ``layout`` takes it: fewer bodies get empty ones beside them.

    For a transfer to other data. ``channels``, ``persons``: C and M of pretraining. Raises ``InputError`` for other
    joints or coordinates; more bodies go through, as some encoders take any number.
    """
    check_fit(store.clips, layout, channels)
    have = store.clips.data.shape[4]
    if have >= persons:
        return store

    def wider(clips: Tensor) -> Tensor:
        empty = clips.new_zeros(*clips.shape[:4], persons - have)
        return torch.cat([clips, empty], 4)

    return ChangedStore(store, wider)


def check_fit(clips: Clips, layout: Layout, channels: int) -> None:
    """Raise ``InputError`` unless the clips have the joints (in order and tree) and coordinates of pretraining."""
    faults = []
    mine, theirs = layout, clips.layout
    if mine.joints != theirs.joints:
        faults.append(
            f"the checkpoint's joints ({mine.name}, {mine.num_joints} joints) are not the dataset's "
            f"({theirs.name}, {theirs.num_joints} joints{_first_other(mine, theirs)}); an encoder can be judged only "
            "on the joints that it was trained on"
        )
    elif mine.parents != theirs.parents:
        faults.append(
            f"the checkpoint's joints ({mine.name}) hang together in another tree than the dataset's ({theirs.name})"
        )
    if clips.data.shape[1] != channels:
        faults.append(f"the checkpoint takes {channels} coordinates a joint, the dataset has {clips.data.shape[1]}")
    if faults:
        raise InputError(*faults)


def _first_other(mine: Layout, theirs: Layout) -> str:
    for i, (a, b) in enumerate(zip(mine.joints, theirs.joints, strict=False)):
        if a != b:
            return f"; joint {i} is '{b}', not '{a}'"
    return ""
