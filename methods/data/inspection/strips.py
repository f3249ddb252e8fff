"""Stick figures as inline SVG: a few poses of a clip side by side, all at one scale, in one view.

Positions in a drawing are whole tenths of a pixel, which is finer than a thousandth of a body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import Layout
from methods.data.preprocess.recipes import present
from methods.data.skeletons import SkeletonDataset

Array = NDArray[np.float64]

POSES = 6
COLOURS = 4  # CSS classes p0 to p3; further persons share them

_HEIGHT, _WIDEST = 900, 1500  # of one pose, in tenths of a pixel
_MARGIN, _LABEL = 60, 150
_REACH = 0.6  # parts of the summed bone length around the middle; an adult is 0.45 high, and what lies outside is noise
_LOOKED_AT = 64  # clips that say which way is up
_UPPER, _LOWER = ("head", "nose", "neck"), ("foot", "ankle", "toe", "knee", "hip")


class Up(NamedTuple):
    """The coordinate that is vertical, and 1 or -1: whether it grows upwards."""

    axis: int
    sign: int


@dataclass(frozen=True)
class Mark:
    """What a strip points at: a frame, and in it a joint of a person (None: none)."""

    frame: int
    person: int | None = None
    joint: int | None = None


def find_up(dataset: SkeletonDataset) -> Up:
    """Which coordinate runs from feet to head in a sample of the clips: y upwards where the names do not say.

    Pictures grow downwards in images, and some trackers put z upwards; a strip should stand on its feet all the same.
    """
    layout, channels = dataset.layout, dataset.num_channels
    upper, lower = (
        [joint for joint, name in enumerate(layout.joints) if any(word in name.lower() for word in words)]
        for words in (_UPPER, _LOWER)
    )
    total = np.zeros(channels)
    if upper and lower:
        for index in range(0, len(dataset), max(1, len(dataset) // _LOOKED_AT)):
            clip = dataset.clip(index)
            bodies = clip[present(clip)].astype(np.float64)
            if len(bodies) and np.isfinite(bodies).all():
                way = bodies[:, upper].mean(axis=(0, 1)) - bodies[:, lower].mean(axis=(0, 1))
                total += way / (np.linalg.norm(way) or 1.0)
    axis = int(np.abs(total).argmax()) if total.any() else min(1, channels - 1)
    return Up(axis, -1 if total[axis] < 0 else 1)


def poses_of(frames: int, mark: Mark | None = None, close: bool = False) -> list[int]:
    """At most POSES frame numbers: spread over the clip, or (``close``) the ones around the mark; the mark is in."""
    count = min(POSES, frames)
    if close and mark is not None:
        first = min(max(0, mark.frame - count // 2), frames - count)
        return list(range(first, first + count))
    spread = np.round(np.linspace(0, frames - 1, count)).astype(int).tolist()
    if mark is not None and mark.frame not in spread:
        spread[int(np.abs(np.array(spread) - mark.frame).argmin())] = mark.frame
    return sorted(spread)


def strip(clip: NDArray[np.float32], layout: Layout, up: Up, shown: Sequence[int], mark: Mark | None = None) -> str:
    """Draw frames ``shown`` of a clip (t, M, V, C) as one SVG element; ``mark`` is highlighted, its joint a dot."""
    frames = np.nan_to_num(clip[list(shown)].astype(np.float64), posinf=0.0, neginf=0.0)
    there = present(clip[list(shown)])
    flat, size = _flattened(frames, there, layout, up)
    low, high = _box(flat[there], size)
    extent = np.maximum(high - low, 0.1 * size)
    scale = min(_HEIGHT / extent[1], _WIDEST / extent[0])
    width, height = (round(float(side) * scale) + 2 * _MARGIN for side in extent)
    points = np.round((np.clip(flat, low, high) - low) * scale).astype(int) + _MARGIN  # (t, M, V, 2)
    points[..., 1] = height - points[..., 1]
    head = round(0.02 * size * scale)
    cells = []
    for at, frame in enumerate(shown):
        marked = mark is not None and mark.frame == frame
        edge = f'<path class="edge" d="M0 0 0 {height + _LABEL}"/>' if at else ""
        inside = [_label(frame, marked, width, height), edge]
        inside += [_figure(points[at, p], p, layout, head) for p in np.flatnonzero(there[at]).tolist()]
        if not there[at].any():
            inside.append(f'<text x="{width // 2}" y="{height // 2}">nobody</text>')
        if marked and mark is not None and mark.person is not None and mark.joint is not None:
            x, y = points[at, mark.person, mark.joint].tolist()
            inside.append(f'<circle class="dot" cx="{x}" cy="{y}" r="{max(22, 2 * head // 3)}"/>')
        cells.append(f'<g transform="translate({at * width} 0)">{"".join(inside)}</g>')
    across, down = width * len(shown), height + _LABEL
    title = f"frames {', '.join(map(str, shown))}"
    return (
        f'<svg class="strip" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" width="{across / 10:g}" '
        f'height="{down / 10:g}" role="img" aria-label="{escape(title)}">{"".join(cells)}</svg>'
    )


def _label(frame: int, marked: bool, width: int, height: int) -> str:
    back = f'<rect class="mark" width="{width}" height="{height + _LABEL}"/>' if marked else ""
    return f'{back}<text x="{width // 2}" y="{height + 110}">{frame}</text>'


def _flattened(frames: Array, there: NDArray[np.bool_], layout: Layout, up: Up) -> tuple[Array, float]:
    """(t, M, V, 2) with y up, seen from where the bodies are widest, and the median summed bone length."""
    vertical = frames[..., up.axis] * up.sign
    rest = [axis for axis in range(frames.shape[-1]) if axis != up.axis]
    side = np.zeros_like(vertical)
    if rest and there.any():
        bodies = frames[there][..., rest]
        centred = (bodies - np.median(bodies, axis=(0, 1))).reshape(-1, len(rest))
        # One outlier shall not choose the view; a robust norm is enough of a limit.
        far = np.linalg.norm(centred, axis=1)
        centred = centred[far <= 4 * np.median(far)] if np.median(far) > 0 else centred
        way = np.linalg.eigh(centred.T @ centred)[1][:, -1]
        leading = way[np.abs(way) > 0.3][0] if (np.abs(way) > 0.3).any() else 1.0
        side = frames[..., rest] @ (way * np.sign(leading))  # x keeps its direction: left stays left
    children, parents = (list(ends) for ends in zip(*layout.bones, strict=True))
    bones = np.linalg.norm(frames[:, :, children] - frames[:, :, parents], axis=-1).sum(axis=-1)
    size = float(np.median(bones[there])) if there.any() else 1.0
    return np.stack([side, vertical], axis=-1), size or 1.0


def _box(points: Array, size: float) -> tuple[Array, Array]:
    """Lower and upper corner of what is drawn, of all persons (n, V, 2): what lies far outside is put on the border."""
    if not len(points):
        return np.zeros(2), np.ones(2)
    middle = np.median(points, axis=1)  # of each person; several may stand apart
    low, high = middle.min(axis=0) - _REACH * size, middle.max(axis=0) + _REACH * size
    if (high - low).max() > 4 * _REACH * size:  # someone is far off: the median person and as much around it
        centre = np.median(middle, axis=0)
        low, high = np.maximum(low, centre - 2 * _REACH * size), np.minimum(high, centre + 2 * _REACH * size)
    flat = points.reshape(-1, 2)
    return np.clip(flat.min(axis=0), low, high), np.clip(flat.max(axis=0), low, high)


def _figure(points: NDArray[np.int64], person: int, layout: Layout, head: int) -> str:
    path = "".join("M" + " ".join(f"{x} {y}" for x, y in points[chain].tolist()) for chain in _chains(layout))
    out = f'<path class="p{person % COLOURS}" d="{path}"/>'
    heads = [joint for joint, name in enumerate(layout.joints) if name.lower() in ("head", "nose")]
    if heads:
        x, y = points[heads[0]].tolist()
        out += f'<circle class="p{person % COLOURS}" cx="{x}" cy="{y}" r="{head}"/>'
    return out


def _chains(layout: Layout) -> list[list[int]]:
    """Every bone once, in runs of joints that are drawn without lifting the pen."""
    below: dict[int, list[int]] = {}
    for child, parent in layout.bones:
        below.setdefault(parent, []).append(child)
    out, waiting = [], [(layout.root, child) for child in below.get(layout.root, [])]
    while waiting:
        start, at = waiting.pop()
        chain = [start, at]
        while at in below:
            first, *rest = below[at]
            waiting += [(at, other) for other in rest]
            at = first
            chain.append(at)
        out.append(chain)
    return out
