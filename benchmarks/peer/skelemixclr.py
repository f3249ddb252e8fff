"""SkeleMixCLR and SkeleMixCLR+ as their public code trains them: blocks of the query view are swapped between clips.

A mixture is drawn for the whole batch, as in the code, or clip by clip (``mix_per_batch`` off, our clean setting; only
the distance to the partner is one for all then), and pasted on the device, slice by slice. One more encoder pass a
mixture; the pasted cells of its last map and the others are pooled apart and go through the head one after the other.
The feature map must have exactly T/4 frames, so T is a multiple of 4.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peer.moco import HeadedSTGCN, MoCo, against_queue, first_is_right
from methods.data.layouts import Layout
from methods.training.config import TrialConfig

STRIDE = 4  # frames of a clip for one of the feature map
SEGMENTS, JOINTS = 16, 25  # what the settings count in


@dataclass(frozen=True)
class Block:
    """Some joints, for ``length`` segments of time from ``start`` on."""

    joints: list[int]
    start: int
    length: int


@dataclass(frozen=True)
class Mixture:
    """Whose block each clip gets, and the blocks: one for all clips, or one for each."""

    partner: list[int]
    blocks: list[Block]

    def mask(self, segments: int, joints: int, like: Tensor) -> Tensor:
        """(1 or N, T/4, V) of 0 and 1: the cells that are pasted."""
        mask = torch.zeros(len(self.blocks), segments, joints, dtype=like.dtype, device=like.device)
        for own, block in zip(mask, self.blocks, strict=True):
            own[block.start : block.start + block.length, block.joints] = 1
        return mask

    def paste(self, view: Tensor, fill: str = "swap") -> Tensor:
        """``view`` (N, C, T, V, M) with the blocks in: of the partners, of zeros, or of N(0, 1)."""
        mixed = view.clone()
        source = view[self.partner] if fill == "swap" else torch.zeros_like(view)
        if fill == "gaussian":
            source = torch.randn_like(view)
        if len(self.blocks) == 1:
            (block,) = self.blocks
            frames = slice(STRIDE * block.start, STRIDE * (block.start + block.length))
            mixed[:, :, frames, block.joints] = source[:, :, frames, block.joints]
            return mixed
        for clip, other, block in zip(mixed, source, self.blocks, strict=True):
            frames = slice(STRIDE * block.start, STRIDE * (block.start + block.length))
            clip[:, frames, block.joints] = other[:, frames, block.joints]
        return mixed


def _between(least: int, more: int, of: int, to: int) -> int:
    """A number in least..least + more, scaled from a count ``of`` to one ``to``, of which one at least is left out."""
    low, high = (max(1, min(to, int(count * to / of + 0.5))) for count in (least, least + more))
    top = max(1, to - 1)
    low = min(low, top)
    return random.randint(low, max(low, min(high, top)))


class MaskPoolingSTGCN(HeadedSTGCN):
    """The encoder, which can also pool some cells of its last map and the others apart."""

    def inside_and_outside(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Projections (N, D) of the cells of ``mask`` (1 or N, T/4, V) and of the others."""
        maps = self.maps(x)
        maps = maps.view(len(x), -1, *maps.shape[1:])  # (N, M, dim, T/4, V)
        inside, outside = (self._mean(maps, cells) for cells in (mask, 1 - mask))
        return self.project(inside), self.project(outside)

    @staticmethod
    def _mean(maps: Tensor, cells: Tensor) -> Tensor:
        cells = cells[:, None, None]
        pooled = (maps * cells).sum(dim=(3, 4)) / cells.sum(dim=(3, 4))
        return pooled.mean(dim=1)


class SkeleMixCLR(MoCo):
    """SkeletonCLR's networks and queue with a batch norm in the head; every mixture brings two more queries."""

    method = "skelemixclr"
    encoder_class = MaskPoolingSTGCN
    encoder_q: MaskPoolingSTGCN

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__(config, layout, persons)
        if config.frames % STRIDE:
            raise NotImplementedError(f"the official code takes a multiple of {STRIDE} frames, not {config.frames}")

    def draw(self, clips: int, frames: int) -> list[Mixture]:
        """The mixtures of a step over batches of ``clips`` clips of ``frames`` frames."""
        p = self.config.params
        mixtures = []
        for _ in range(p.repeats):
            blocks = [self._block(frames // STRIDE) for _ in range(1 if p.mix_per_batch else clips)]
            shift = random.randint(min(1, clips - 1), max(1, clips - 2)) if clips > 1 else 0
            mixtures.append(Mixture([(i + shift) % clips for i in range(clips)], blocks))
        return mixtures

    def _block(self, segments: int) -> Block:
        p, joints = self.config.params, self.layout.num_joints
        if p.joints == "parts":
            parts = list(self.layout.parts.values())
            count = _between(p.parts_least, p.parts_more, len(parts), len(parts))
            chosen = sorted(joint for part in random.sample(parts, count) for joint in part)
        else:
            chosen = sorted(random.sample(range(joints), _between(p.joints_least, p.joints_more, JOINTS, joints)))
        length = _between(p.segments_least, p.segments_more, SEGMENTS, segments)
        return Block(chosen, random.randint(0, segments - length), length)

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        instance, regional = self.losses(batch[0], batch[1])
        weight: float = self.config.params.regional_weight
        return instance + weight * regional

    def losses(self, view_q: Tensor, view_k: Tensor) -> tuple[Tensor, Tensor]:
        """InfoNCE of the query, and what all mixtures add."""
        p = self.config.params
        view_q, view_k = self.of_stream(view_q), self.of_stream(view_k)
        mixtures = self.draw(len(view_q), view_q.shape[2])
        q = F.normalize(self.encoder_q(view_q), dim=1)
        sides = []
        for mixture in mixtures:
            mask = mixture.mask(view_q.shape[2] // STRIDE, view_q.shape[3], view_q)
            inside, outside = self.encoder_q.inside_and_outside(mixture.paste(view_q, p.fill), mask)
            sides.append((F.normalize(inside, dim=1), F.normalize(outside, dim=1)))
        k = self.key(view_k)
        instance = first_is_right(torch.cat(against_queue(q, k, self.queue), dim=1) / p.temperature)
        regional = torch.zeros_like(instance)
        for mixture, (pasted, context) in zip(mixtures, sides, strict=True):
            of_partner = first_is_right(self.logits(pasted, k[mixture.partner], context))
            of_itself = first_is_right(self.logits(context, k, pasted))
            regional = regional + 0.5 * of_partner + 0.5 * of_itself
        self.remember(k)
        return instance, regional if p.reduce == "sum" else regional / len(mixtures)

    def logits(self, side: Tensor, k: Tensor, other: Tensor) -> Tensor:
        """(N, 1+K) of one side of a mixture, or (N, 2+K) with its other side as one more negative; all unit (N, D)."""
        parts = [*against_queue(side, k, self.queue)]
        if self.config.params.extra_negative:
            parts.append(torch.einsum("nc,nc->n", side, other.detach()).unsqueeze(-1))
        temperature: float = self.config.params.temperature
        return torch.cat(parts, dim=1) / temperature
