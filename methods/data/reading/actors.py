"""Which bodies of an NTU RGB+D recording become the two persons of a clip.

Kinect v2 lists up to six bodies a frame, each under an ID that a person keeps until he or she is lost; some of them
are chairs and curtains. Two ways are in use:

- :func:`as_listed`, that of CrosSCLR's code and its heirs (``ntu_read_skeleton.py``): the first two bodies of every
  frame as they stand, so that two persons may change places in the middle of a clip.
- :func:`by_id`, that of CTR-GCN's code (``get_raw_skes_data.py`` and ``get_raw_denoised_data.py``, whose thresholds
  PYSKL's ``ntu_preproc.py`` shares): tracks by ID, noise dropped, the rest shared out between two actors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from methods.data.reading.skeleton_text import Bodies

PERSONS = 2

SHORTEST = 12  # frames of a track that is no noise
WIDE = 0.8  # a frame is noise where the body is wider than this share of its height
MOST_WIDE = 0.69754  # share of such frames at which a track is noise

GAPS = "a body came back under its ID: its later frames moved up, as CTR-GCN does"
ALL_SHORT = "only bodies of 11 frames or fewer: kept"
TWICE = "a body listed twice in one frame: the first taken"

Frames = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Track:
    """One body: ``joints`` (n, V, C) in n frames on end from frame ``start``; ``motion`` is its variance in m^2."""

    start: int
    joints: Frames
    motion: float

    @property
    def end(self) -> int:
        """The last frame."""
        return self.start + len(self.joints) - 1


def as_listed(bodies: Bodies) -> Frames:
    """The first two bodies of each frame: (t, 2, V, C), zeros where there is none; t counts the empty frames too."""
    out = np.zeros((bodies.frames, PERSONS, *bodies.joints.shape[1:]), dtype=np.float32)
    place = np.arange(len(bodies.at)) - np.searchsorted(bodies.at, bodies.at)  # in the list of its frame
    taken = place < PERSONS
    out[bodies.at[taken], place[taken]] = bodies.joints[taken]
    return out


def by_id(bodies: Bodies) -> tuple[Frames, str]:
    """Follow bodies by their ID and choose two actors as CTR-GCN does: (t, 2, V, C), and what had to be mended.

    1. Frames without a body are dropped, at the ends and inside. A track is all frames of one ID, laid on end from its
       first: where an ID was lost for some frames and came back, the later ones move up (CTR-GCN's and PYSKL's code do
       so; a clip to which it happens says so).
    2. If there is more than one track: those of 11 frames or fewer are dropped. Were that all of them, all are kept
       (CTR-GCN's code ends with an error there).
    3. If there still is more than one: in the order in which they appeared, a track with at least 0.69754 of its
       frames wider (max x - min x) than 0.8 of their height (max y - min y) is dropped, but never the last one left;
       of any other that has such frames, motion is taken without them if that is less. Motion is the variance of x, y
       and z over frames and joints, summed (in float64; CTR-GCN's float32 may order near ties otherwise).
    4. Actor 1 begins as the track with most motion. Each further one, by falling motion, is put into actor 1 if it
       shares one frame at most with those from actor 1's first to its last, else into actor 2 by the same rule, else
       it is dropped. It overwrites a shared frame. Actor 2 counts from frame 0 on, whenever it begins.
    5. Frames in which both actors are absent are dropped. t may be 0.
    """
    tracks, mended = _tracks(bodies)
    if len(tracks) > 1:
        tracks, more = _without_noise(tracks)
        mended = [*mended, *more]
    out = _actors(tracks, frames=len(np.unique(bodies.at)), shape=bodies.joints.shape[1:])
    return out[out.any(axis=(1, 2, 3))], ", ".join(mended)


def _tracks(bodies: Bodies) -> tuple[list[Track], list[str]]:
    """Tracks in the order in which they appear; frames are counted without the empty ones."""
    new = np.diff(bodies.at, prepend=-1) > 0
    at = np.cumsum(new) - 1
    rows: dict[str, dict[int, int]] = {}  # ID, frame: row
    for row, (name, frame) in enumerate(zip(bodies.ids, at.tolist(), strict=True)):
        rows.setdefault(name, {}).setdefault(frame, row)
    mended = [TWICE] if sum(map(len, rows.values())) < len(at) else []
    if any(max(track) - min(track) >= len(track) for track in rows.values()):
        mended.append(GAPS)
    several = len(rows) > 1  # else its motion decides nothing
    tracks = []
    for track in rows.values():
        joints = bodies.joints[list(track.values())]
        tracks.append(Track(min(track), joints, _motion(joints) if several else 0.0))
    return tracks, mended


def _motion(joints: Frames) -> float:
    # An axis in one piece: several times as fast as reducing over the axes in front of it.
    axes = np.ascontiguousarray(joints.reshape(-1, joints.shape[-1]).T, dtype=np.float64)
    return float(axes.var(axis=1).sum())


def _without_noise(tracks: list[Track]) -> tuple[list[Track], list[str]]:
    """Steps 2 and 3 of :func:`by_id`."""
    kept = [track for track in tracks if len(track.joints) >= SHORTEST]
    mended = [] if kept else [ALL_SHORT]
    kept = kept or tracks
    left, out = len(kept), []
    for track in kept:
        wide = _is_wide(track.joints) if left > 1 else np.zeros(1, dtype=np.bool_)
        if wide.mean() >= MOST_WIDE:
            left -= 1
        elif wide.any():
            out.append(replace(track, motion=min(track.motion, _motion(track.joints[~wide]))))
        else:
            out.append(track)
    return out, mended


def _is_wide(joints: Frames) -> NDArray[np.bool_]:
    """(n,) whether a body is too wide for a person."""
    x, y = (np.ascontiguousarray(joints[..., axis].T) for axis in (0, 1))
    width, height = x.max(axis=0) - x.min(axis=0), y.max(axis=0) - y.min(axis=0)
    wide: NDArray[np.bool_] = ~(width.astype(np.float64) <= WIDE * height.astype(np.float64))
    return wide


def _actors(tracks: list[Track], frames: int, shape: tuple[int, ...]) -> Frames:
    """Step 4 of :func:`by_id`."""
    out = np.zeros((frames, PERSONS, *shape), dtype=np.float32)
    ordered = sorted(tracks, key=lambda track: -track.motion)
    if not ordered:
        return out
    spans = [(ordered[0].start, ordered[0].end), (0, 0)]
    for number, track in enumerate(ordered):
        for actor, (start, end) in enumerate(spans):
            if number == 0 or min(end, track.end) - max(start, track.start) <= 0:
                out[track.start : track.end + 1, actor] = track.joints
                spans[actor] = min(start, track.start), max(end, track.end)
                break
    return out
