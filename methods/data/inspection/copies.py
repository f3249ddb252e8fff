"""Near-identical clips: the same recording saved again with other rounding, moved, rescaled or cut by a frame or two.

Two clips are *near-identical* when, after at most :data:`CUT` frames are cut off either end of either, both have the
same number of frames and the root mean square over frames and joints of the distance between them is at most
``tolerance``. Before, each is cut, moved so that the mean of its joints is the origin, and divided by its mean summed
bone length, so the criterion knows no unit and no place. Frames that hold nobody are left out first, and all cuts of a
clip together take a quarter of it at most. Not covered: another frame rate, frames lost in the middle, a mirrored or
turned copy, persons in another order.

Frames are compared at their own rate because clips resized to a few frames do not tell copies from repetitions: cut by
two frames, a clip of UTD-MHAD lies 0.008 from itself (median), and the nearest two repetitions lie 0.005 apart.
Aligned, a copy lies at its rounding error: saved as float16 or in millimetres 0.0004 or less, in centimetres 0.0015 to
0.0019 (the worst clips of UTD-MHAD and SBU), while the nearest genuine repetitions lie 0.0040 (UTD-MHAD) and
0.035 (SBU) apart. :data:`TOLERANCE` stands between: no repetition of either set is within twice of it, and no copy
beyond.

The search has no N x N table. Means over four stretches of a clip, weighted by their root lengths, are never further
apart than the clips (Jensen), nor are projections of them onto orthonormal directions. All cuts of all clips are sorted
by the first projection within their length; only neighbours within the tolerance along every projection are read again
and measured. Nothing is missed that way; how much is measured in vain depends on the directions, which are the
principal ones of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import Layout
from methods.data.preprocess.recipes import present
from methods.data.skeletons import SkeletonDataset
from methods.errors import InputError

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

TOLERANCE = 0.002  # of the summed bone length: 8 mm for an adult of 4 m of bones
CUT = 2  # frames off either end: "trimmed by a frame or two"
CROWD = 64  # copies of one clip; more are a set that hangs together, whose pairs nobody wants to read one by one

_STRETCHES = 4
_DIRECTIONS = 12
_SAMPLE = 512  # clips that the principal directions are taken from
_ROUNDING = 1e-5  # what float32 projections may be off, generously


def find_copies(
    dataset: SkeletonDataset, clips: Sequence[int], tolerance: float
) -> tuple[dict[tuple[int, int], float], list[set[int]]]:
    """Near-identical pairs (i, j) -> distance among ``clips``, which all hold somebody, and the crowds among them.

    A crowd is a set of more than :data:`CROWD` clips that hang together by such pairs. Its pairs are not listed, and
    not all of them are measured, which is what keeps thousands of copies of one clip from becoming millions of pairs.
    Raises InputError for NaN in the frames.
    """
    search = _Search(dataset, clips, tolerance)
    return search.pairs(), search.crowds()


# ---- one clip -------------------------------------------------------------------------------------------------------


def _occupied(clip: NDArray[np.float32]) -> NDArray[np.float32]:
    there = present(clip).any(axis=1)
    return clip if there.all() else clip[there]


def _cuts(frames: int) -> Ints:
    """(K, 2) frames to cut in front and behind, none first; a quarter of the clip at most."""
    return np.array([(p, q) for p in range(CUT + 1) for q in range(CUT + 1) if p + q <= frames // 4])


def _sizes(clip: NDArray[np.floating[Any]], layout: Layout) -> Array:
    """(t, M): summed bone length of each person; 0 for one who is not there."""
    children, parents = zip(*layout.bones, strict=True)
    bones = clip[:, :, children].astype(np.float64) - clip[:, :, parents]
    return np.asarray(np.sqrt(np.einsum("tmbc,tmbc->tmb", bones, bones)).sum(axis=-1))


def _normal(clip: NDArray[np.float32], layout: Layout, cut: Ints) -> Array:
    """One clip as a point: the distance of two such points of one length is what the module's criterion names."""
    body = _occupied(clip)
    body = body[int(cut[0]) : len(body) - int(cut[1])]
    there = present(body)
    size = _sizes(body, layout)[there].mean() or 1.0
    centre = body[there].mean(axis=(0, 1), dtype=np.float64)
    moved = np.where(there[:, :, None, None], body - centre, 0.0)
    return np.asarray(moved.ravel() / (size * math.sqrt(len(body) * layout.num_joints)))


def _describe(clip: NDArray[np.float32], layout: Layout, cuts: Ints) -> Array:
    """(K, S*M*V*C): for each cut the means over S stretches of :func:`_normal`; distances are never larger there."""
    frames, persons, joints, channels = clip.shape
    there = present(clip)
    borders = (cuts[:, :1] + (np.arange(_STRETCHES + 1) * (frames - cuts.sum(axis=1))[:, None]) // _STRETCHES).T
    people = np.diff(_summed(there)[borders], axis=0)  # (S, K, M) frames with each person
    bones = np.diff(_summed(_sizes(clip, layout))[borders[[0, -1]]], axis=0).sum(axis=(0, 2))  # (K,)
    sums = np.diff(_summed(clip.reshape(frames, -1))[borders], axis=0)
    sums = sums.reshape(_STRETCHES, len(cuts), persons, joints, channels)
    bodies = people.sum(axis=(0, 2))  # (K,)
    centre = sums.sum(axis=(0, 2, 3)) / (bodies * joints)[:, None]
    sums -= people[..., None, None] * centre[None, :, None, None, :]
    size = bones / bodies
    weight = np.sqrt(np.maximum(np.diff(borders, axis=0), 1) * (borders[-1] - borders[0]) * joints)  # (S, K)
    sums /= (weight * np.where(size > 0, size, 1.0))[..., None, None, None]
    return np.asarray(sums.swapaxes(0, 1).reshape(len(cuts), -1))


def _summed(values: NDArray[np.generic]) -> Array:
    """(t, ...) to running sums (t + 1, ...), so that a difference of two rows is the sum between them."""
    out = np.zeros((len(values) + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, out=out[1:])
    return out


# ---- all clips ------------------------------------------------------------------------------------------------------


class _Sets:
    """Clips 0 to N - 1 in sets that are united; the smaller one changes its home, so all of it is N log N."""

    def __init__(self, count: int) -> None:
        self.home = np.arange(count)
        self.size = np.ones(count, dtype=np.int64)
        self.members: dict[int, list[int]] = {}

    def unite(self, one: int, two: int) -> None:
        small, large = sorted((int(self.home[one]), int(self.home[two])), key=lambda home: int(self.size[home]))
        if small != large:
            moved = self.members.pop(small, [small])
            self.members.setdefault(large, [large]).extend(moved)
            self.home[moved] = large
            self.size[large] += len(moved)

    def crowded(self, one: Ints, two: Ints) -> Mask:
        """Where two clips are in one set, and that is a crowd."""
        return np.asarray((self.home[one] == self.home[two]) & (self.size[self.home[one]] > CROWD))


class _Search:
    """Near-identical pairs and crowds among clips of different bytes that hold somebody."""

    def __init__(self, dataset: SkeletonDataset, clips: Sequence[int], tolerance: float) -> None:
        self.dataset, self.tolerance = dataset, tolerance
        self.near: dict[tuple[int, int], float] = {}
        self.sets = _Sets(len(dataset))
        if len(clips) < 2:
            return
        self._project(np.asarray(clips))
        firsts, cores = self._find_crowds()
        # The first of a crowd stands for its core, at a longer reach: 2 tolerances by the triangle inequality, times
        # sqrt(4/3) as a cut may take a quarter of the frames; the rest is for the scale, which a cut changes too.
        self.reach = np.full(len(self.clip), 0.5 * tolerance, dtype=np.float32)
        self.reach[np.isin(self.clip, firsts)] = 3.5 * tolerance
        for rows in self._buckets(np.asarray(~np.isin(self.clip, cores))):
            self._find_pairs(rows)

    def crowds(self) -> list[set[int]]:
        """The sets of more than CROWD clips."""
        return [set(members) for members in self.sets.members.values() if len(members) > CROWD]

    def pairs(self) -> dict[tuple[int, int], float]:
        """The pairs outside crowds."""
        ends = np.array(list(self.near)).reshape(-1, 2)
        inside = self.sets.crowded(ends[:, 0], ends[:, 1]) if len(ends) else np.zeros(0, dtype=bool)
        return {pair: apart for (pair, apart), within in zip(self.near.items(), inside, strict=True) if not within}

    def _project(self, clips: Ints) -> None:
        """One row for every cut of every clip: values (R, P) float32, clip, cut (R, 2) and length."""
        step = -(-len(clips) // _SAMPLE)
        sample = np.concatenate([self._described(int(clip))[0][:1] for clip in clips[::step]])
        basis = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][:_DIRECTIONS].T
        values, cuts, lengths = [], [], []
        for clip in clips.tolist():
            described, cut, frames = self._described(clip)
            values.append((described @ basis).astype(np.float32))
            cuts.append(cut.astype(np.int8))
            lengths.append((frames - cut.sum(axis=1)).astype(np.int32))
        self.clip = np.repeat(clips, [len(cut) for cut in cuts])
        self.values, self.cut, self.length = np.concatenate(values), np.concatenate(cuts), np.concatenate(lengths)

    def _described(self, clip: int) -> tuple[Array, Ints, int]:
        body = _occupied(self.dataset.clip(clip))
        cuts = _cuts(len(body))
        described = _describe(body, self.dataset.layout, cuts)
        if not np.isfinite(described).all():
            raise InputError(f"{self.dataset.path}: clip {clip} holds NaN; the file was changed after it was written")
        return described, cuts, len(body)

    def _point(self, row: int) -> Array:
        return _normal(self.dataset.clip(int(self.clip[row])), self.dataset.layout, self.cut[row])

    def _buckets(self, wanted: Mask) -> Iterator[Ints]:
        """Rows of one length, sorted by the first projection."""
        rows = np.flatnonzero(wanted)
        rows = rows[np.lexsort((self.values[rows, 0], self.length[rows]))]
        yield from np.split(rows, np.flatnonzero(np.diff(self.length[rows])) + 1)

    def _find_crowds(self) -> tuple[list[int], list[int]]:
        """Find uncut clips with more than CROWD copies of their own length, each with all its copies at once.

        Returns the first clip of each such crowd, and the ones within the tolerance of it (its core), which need not be
        compared with anything again. Without this, comparing neighbours would be quadratic in the size of a crowd.
        """
        firsts: list[int] = []
        cores: list[int] = []
        radius = self.tolerance + _ROUNDING
        for rows in self._buckets(np.asarray(~self.cut.any(axis=1))):
            values, taken = self.values[rows], np.zeros(len(rows), dtype=bool)
            ends = np.searchsorted(values[:, 0], values[:, 0] + radius, side="right")
            for at in np.flatnonzero(ends - np.arange(len(rows)) > CROWD).tolist():
                if taken[at] or len(_beside(values, taken, at, radius)) <= CROWD:
                    continue
                others = _beside(values, taken, at, 2 * self.tolerance + _ROUNDING)
                point = self._point(int(rows[at]))
                apart = np.array([np.linalg.norm(self._point(int(rows[other])) - point) for other in others])
                core = others[apart <= self.tolerance]
                if len(core) > CROWD:
                    taken[core] = taken[at] = True
                    firsts.append(int(self.clip[rows[at]]))
                    cores += self.clip[rows[core]].tolist()
                    for other in self.clip[rows[others[apart <= 2 * self.tolerance]]].tolist():
                        self.sets.unite(firsts[-1], other)
        return firsts, cores

    def _find_pairs(self, rows: Ints) -> None:
        """Compare every row of a bucket with the next, the next but one, ... until none is within reach."""
        values, clip, reach = self.values[rows].T.copy(), self.clip[rows], self.reach[rows]
        widest = 2 * float(reach.max()) + _ROUNDING
        left = np.arange(len(rows) - 1)
        for step in range(1, len(rows)):
            left = left[left < len(rows) - step]
            left = left[values[0, left + step] - values[0, left] <= widest]
            if not len(left):
                return
            one, two = left, left + step
            keep = clip[one] != clip[two]
            one, two = one[keep], two[keep]
            limit = reach[one] + reach[two] + _ROUNDING
            for value in values:
                keep = np.abs(value[two] - value[one]) <= limit
                one, two, limit = one[keep], two[keep], limit[keep]
            open_ = ~self.sets.crowded(clip[one], clip[two])
            for a, b in zip(rows[one[open_]].tolist(), rows[two[open_]].tolist(), strict=True):
                self._measure(a, b)

    def _measure(self, row: int, other: int) -> None:
        first, second = sorted((int(self.clip[row]), int(self.clip[other])))
        if self.sets.crowded(self.clip[row : row + 1], self.clip[other : other + 1])[0]:
            return
        distance = float(np.linalg.norm(self._point(row) - self._point(other)))
        if distance <= self.reach[row] + self.reach[other]:  # more than the tolerance only for the first of a crowd
            self.sets.unite(first, second)
            if distance <= self.tolerance:
                self.near[first, second] = min(distance, self.near.get((first, second), math.inf))


def _beside(values: NDArray[np.float32], taken: Mask, at: int, radius: float) -> Ints:
    """Rows of a bucket after ``at`` that are not taken and within ``radius`` of it along every projection."""
    end = int(np.searchsorted(values[:, 0], values[at, 0] + radius, side="right"))
    found = at + 1 + np.flatnonzero(~taken[at + 1 : end])
    for column in range(1, values.shape[1]):
        found = found[np.abs(values[found, column] - values[at, column]) <= radius]
    return np.asarray(found)
