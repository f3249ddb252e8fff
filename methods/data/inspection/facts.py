"""A look at a dataset before anyone trains on it: counts, lengths, gaps, and clips that stand where they should not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from methods.data.inspection.anomalies import KINDS, Anomalies, Finding, find_anomalies
from methods.data.inspection.duplicates import Across, Duplicates, find_duplicates, label_conflicts, pairs_across
from methods.data.preprocess.recipes import present
from methods.data.skeletons import TEST, TRAIN, SkeletonDataset
from methods.data.splits import protocol_sides
from methods.errors import InputError

_SHOWN = 8
_SAID = ("not_finite", "empty_clip", "one_frame")  # kinds that have a line of their own, or are errors
_MOST_FAULTS = 20


class NearPair(NamedTuple):
    """Names of two clips that are near-identical, and how far apart (`copies`); NaN within a crowd."""

    first: str
    second: str
    distance: float


@dataclass(frozen=True)
class SplitFacts:
    """One side of one split."""

    clips: int
    classes: int
    lacking: tuple[str, ...]
    least: int
    most: int
    subjects: int
    cameras: int


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect_dataset` found; ``lines()`` says it in plain text.

    ``missing`` (joint name -> share of person-frames in which a person is there and this joint is at exactly
    (0, 0, 0)). ``duplicates``: groups of names of byte-identical clips; ``across``: split -> (train name, test name)
    pairs that are byte-identical. ``frozen``: clips of several frames that are all the same. ``near``: near-identical
    pairs; ``near_across``: split -> (train, test) pairs for the test clips that are near-identical, though not
    byte-identical, to a training clip; ``crowds``: sets of more copies than anyone wants to read in pairs;
    ``conflicts``: clips that are identical or near-identical and carry different labels. ``anomalies`` are findings in
    single clips, ``places`` says for each kind where they are. ``copies`` has the duplicates by index.
    """

    path: str
    fingerprint: str
    clips: int
    frames: int
    persons: int
    layout: str
    joints: int
    channels: int
    classes: int
    subjects: int
    cameras: int
    setups: int
    lengths: tuple[int, float, int]
    clips_a_class: tuple[int, int]
    without_second: float | None
    empty_frames: int
    empty_clips: tuple[str, ...]
    one_frame: tuple[str, ...]
    frozen: tuple[str, ...]
    missing: Mapping[str, float]
    extent: float
    duplicates: tuple[tuple[str, ...], ...]
    splits: Mapping[str, Mapping[str, SplitFacts]] = field(default_factory=dict)
    across: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    shared_subjects: Mapping[str, int] = field(default_factory=dict)
    near: tuple[NearPair, ...] = ()
    near_across: Mapping[str, tuple[NearPair, ...]] = field(default_factory=dict)
    crowds: tuple[tuple[str, ...], ...] = ()
    conflicts: tuple[tuple[str, str], ...] = ()
    anomalies: Anomalies = field(default_factory=Anomalies)
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    copies: Duplicates | None = None

    def lines(self) -> list[str]:
        """Return the findings as lines of plain text, the worrying ones marked with '!'."""
        low, middle, high = self.lengths
        out = [
            f"{self.path}  (fingerprint {self.fingerprint[:12]})",
            f"clips      {self.clips:,}, {self.frames:,} frames, length {low} / {middle:g} / {high} (min/median/max)",
            f"skeleton   layout {self.layout}: {self.joints} joints x {self.channels}, up to {self.persons} persons",
            f"classes    {self.classes}, {self.clips_a_class[0]} to {self.clips_a_class[1]} clips each",
            f"known      {self.subjects} subjects, {self.cameras} cameras, {self.setups} setups",
            f"extent     {self.extent:.3g} is the largest coordinate",
        ]
        if self.without_second is not None:
            out.append(f"persons    {self.without_second:.1%} of the clips have no second person")
        if self.anomalies.bones:
            spreads = [bone.spread for bone in self.anomalies.bones]
            worst = max(self.anomalies.bones, key=lambda bone: bone.spread)
            out.append(
                f"bones      vary by {float(np.median(spreads)):.1%} within a clip (median), {worst.parent} to "
                f"{worst.child} by {worst.spread:.1%}"
            )
        if self.anomalies.origins:
            out.append(f"origin     {', '.join(self.anomalies.origins)}: at exactly zero in most clips")
        for name, sides in self.splits.items():
            out += _split_lines(name, sides, self.shared_subjects.get(name, 0))
        out += self._warnings()
        return out

    def _warnings(self) -> list[str]:
        out = []
        missing = {joint: share for joint, share in self.missing.items() if joint not in self.anomalies.origins}
        if missing:
            worst = sorted(missing.items(), key=lambda item: -item[1])
            shown = ", ".join(f"{joint} {share:.2%}" for joint, share in worst[:_SHOWN])
            out.append(f"! missing joints (exactly zero): {shown}{_more(worst)}")
        if self.empty_frames:
            out.append(f"! {self.empty_frames:,} frames hold nobody")
        for text, names in (
            ("clips hold nobody at all", self.empty_clips),
            ("clips have one frame", self.one_frame),
            ("clips do not move (all frames equal)", self.frozen),
        ):
            if names:
                out.append(f"! {len(names)} {text}: {', '.join(names[:_SHOWN])}{_more(names)}")
        if self.duplicates:
            shown = "; ".join(" = ".join(group[:4]) + _more(group, 4) for group in self.duplicates[:_SHOWN])
            out.append(f"! {len(self.duplicates)} groups of byte-identical clips: {shown}{_more(self.duplicates)}")
        for name, pairs in self.across.items():
            shown = ", ".join(f"{train} = {test}" for train, test in pairs[:_SHOWN])
            out.append(
                f"! split {name}: {len(pairs)} test clips are byte-identical to a training clip: {shown}{_more(pairs)}"
            )
        return [*out, *self._near_warnings(), *self._anomaly_warnings()]

    def _near_warnings(self) -> list[str]:
        out = []
        if self.near:
            out.append(f"! {len(self.near)} pairs of near-identical clips: {_near(self.near)}")
        for crowd in self.crowds:
            out.append(f"! {len(crowd)} clips are all near-identical: {', '.join(crowd[:_SHOWN])}{_more(crowd)}")
        for name, near in self.near_across.items():
            out.append(f"! split {name}: {len(near)} test clips are near-identical to a training clip: {_near(near)}")
        if self.conflicts:
            shown = ", ".join(f"{one} / {two}" for one, two in self.conflicts[:_SHOWN])
            more = _more(self.conflicts)
            out.append(f"! {len(self.conflicts)} clips have another label than a copy of theirs: {shown}{more}")
        return out

    def _anomaly_warnings(self) -> list[str]:
        out = []
        for kind, found in self.anomalies.by_kind().items():
            clips = len({finding.clip for finding in found})
            if kind in _SAID or (kind == "frozen_person" and clips == len(self.frozen)):
                continue
            places = self.places[kind]
            out.append(f"! {clips} clips {KINDS[kind]}: {', '.join(places[:_SHOWN])}{_more(places)}")
        return out


def _near(pairs: Sequence[NearPair]) -> str:
    shown = (
        f"{one} ~ {two} ({'in a crowd' if np.isnan(distance) else f'{distance:.4f}'})"
        for one, two, distance in pairs[:_SHOWN]
    )
    return ", ".join(shown) + _more(pairs)


def _more(items: Sequence[object], shown: int = _SHOWN) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""


def _split_lines(name: str, sides: Mapping[str, SplitFacts], shared: int) -> list[str]:
    out = []
    for side, facts in sides.items():
        out.append(
            f"split      {name} {side}: {facts.clips:,} clips, {facts.classes} classes ({facts.least} to {facts.most} "
            f"clips each), {facts.subjects} subjects, {facts.cameras} cameras"
        )
        if facts.lacking:
            out.append(
                f"! split {name}: {side} has no clip of {', '.join(facts.lacking[:_SHOWN])}{_more(facts.lacking)}"
            )
    out.append(f"split      {name}: train and test share {shared} subjects")
    return out


def inspect_dataset(dataset: SkeletonDataset, protocol: str | Mapping[str, Sequence[int]] | None = None) -> Inspection:
    """Read a dataset clip by clip, three times, and report on it; ``protocol`` limits the splits to that one.

    Memory holds one clip and a few hundred numbers for each. Raises InputError for an unknown protocol, and for NaN in
    the frames, naming the clips.
    """
    sides = _all_sides(dataset, protocol)
    found = _Reading(dataset)
    copies = find_duplicates(dataset)
    anomalies = find_anomalies(dataset)
    across = {name: pairs_across(copies, train, test) for name, (train, test) in sides.items()}
    identical = {name: _names(dataset, [pair for pair in pairs if pair.identical]) for name, pairs in across.items()}
    near = {
        name: _near_names(dataset, [pair for pair in pairs if not pair.identical]) for name, pairs in across.items()
    }
    per_class = np.bincount(dataset.labels, minlength=dataset.num_classes)
    lengths = np.asarray(dataset.lengths)
    return Inspection(
        path=str(dataset.path),
        fingerprint=dataset.fingerprint,
        clips=len(dataset),
        frames=len(dataset.frames),
        persons=dataset.num_persons,
        layout=dataset.layout.name,
        joints=dataset.layout.num_joints,
        channels=dataset.num_channels,
        classes=dataset.num_classes,
        subjects=_known(dataset.subjects),
        cameras=_known(dataset.cameras),
        setups=_known(dataset.setups),
        lengths=(int(lengths.min()), float(np.median(lengths)), int(lengths.max())),
        clips_a_class=(int(per_class.min()), int(per_class.max())),
        without_second=found.alone / len(dataset) if dataset.num_persons > 1 else None,
        empty_frames=found.empty_frames,
        empty_clips=tuple(found.empty),
        one_frame=tuple(_label(dataset, int(i)) for i in np.flatnonzero(lengths == 1)),
        frozen=tuple(found.frozen),
        missing=found.missing_shares(),
        extent=found.extent,
        duplicates=tuple(_labels(dataset, group) for group in copies.identical),
        splits={
            name: {"train": _facts(dataset, train), "test": _facts(dataset, test)}
            for name, (train, test) in sides.items()
        },
        across={name: pairs for name, pairs in identical.items() if pairs},
        shared_subjects={name: _shared_subjects(dataset, train, test) for name, (train, test) in sides.items()},
        near=tuple(NearPair(_label(dataset, a), _label(dataset, b), apart) for a, b, apart in copies.near),
        near_across={name: pairs for name, pairs in near.items() if pairs},
        crowds=tuple(_labels(dataset, crowd) for crowd in copies.crowds),
        conflicts=tuple((_label(dataset, a), _label(dataset, b)) for a, b in label_conflicts(copies, dataset.labels)),
        anomalies=anomalies,
        places={
            kind: tuple(_place(dataset, finding) for finding in found) for kind, found in anomalies.by_kind().items()
        },
        copies=copies,
    )


def _label(dataset: SkeletonDataset, index: int) -> str:
    return str(dataset.names[index]) or f"#{index}"


def _labels(dataset: SkeletonDataset, clips: Sequence[int]) -> tuple[str, ...]:
    return tuple(_label(dataset, index) for index in clips)


def _names(dataset: SkeletonDataset, pairs: Sequence[Across]) -> tuple[tuple[str, str], ...]:
    return tuple((_label(dataset, pair.train), _label(dataset, pair.test)) for pair in pairs)


def _near_names(dataset: SkeletonDataset, pairs: Sequence[Across]) -> tuple[NearPair, ...]:
    return tuple(NearPair(_label(dataset, p.train), _label(dataset, p.test), p.distance) for p in pairs)


def _place(dataset: SkeletonDataset, finding: Finding) -> str:
    """The clip's name, and in brackets the frame, joint and person as far as the finding has them."""
    parts = [] if finding.frame is None else [f"frame {finding.frame}"]
    parts += [] if finding.joint is None else [dataset.layout.joints[finding.joint]]
    parts += [] if finding.person is None or dataset.num_persons == 1 else [f"person {finding.person}"]
    return _label(dataset, finding.clip) + (f" ({', '.join(parts)})" if parts else "")


def _known(values: NDArray[np.int64]) -> int:
    found = np.unique(values)
    return int((found >= 0).sum())


def _shared_subjects(dataset: SkeletonDataset, train: NDArray[np.bool_], test: NDArray[np.bool_]) -> int:
    return _known(np.intersect1d(dataset.subjects[train], dataset.subjects[test]))


def _all_sides(
    dataset: SkeletonDataset, protocol: str | Mapping[str, Sequence[int]] | None
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    if protocol is not None:
        name, train, test, _ = protocol_sides(dataset, protocol)
        return {name: (train, test)}
    return {name: (np.asarray(table == TRAIN), np.asarray(table == TEST)) for name, table in dataset.splits.items()}


def _facts(dataset: SkeletonDataset, mask: NDArray[np.bool_]) -> SplitFacts:
    per_class = np.bincount(dataset.labels[mask], minlength=dataset.num_classes)
    there = per_class[per_class > 0]
    return SplitFacts(
        clips=int(mask.sum()),
        classes=len(there),
        lacking=tuple(dataset.class_names[label] for label in np.flatnonzero(per_class == 0)),
        least=int(there.min()) if len(there) else 0,
        most=int(there.max()) if len(there) else 0,
        subjects=_known(dataset.subjects[mask]),
        cameras=_known(dataset.cameras[mask]),
    )


class _Reading:
    """One pass over the frames."""

    def __init__(self, dataset: SkeletonDataset) -> None:
        self.dataset = dataset
        self.alone = self.empty_frames = self.bodies = 0
        self.extent = 0.0
        self.empty: list[str] = []
        self.frozen: list[str] = []
        self.missing = np.zeros(dataset.layout.num_joints, dtype=np.int64)
        bad = []
        for index in range(len(dataset)):
            clip = dataset.clip(index)
            if np.isfinite(clip).all():
                self._read(index, clip)
            else:
                bad.append(f"{dataset.path}: clip {index} holds NaN; the file was changed after it was written")
        if bad:
            more = [f"{dataset.path}: and {len(bad) - _MOST_FAULTS} more clips"] if len(bad) > _MOST_FAULTS else []
            raise InputError(*bad[:_MOST_FAULTS], *more)

    def _read(self, index: int, clip: NDArray[np.float32]) -> None:
        there = present(clip)
        self.bodies += int(there.sum())
        self.missing += (clip[there] == 0).all(axis=-1).sum(axis=0)
        self.empty_frames += int((~there.any(axis=1)).sum())
        self.alone += int(not there[:, 1:].any())
        self.extent = max(self.extent, float(np.abs(clip).max()))
        if not there.any():
            self.empty.append(_label(self.dataset, index))
        elif len(clip) > 1 and (clip == clip[0]).all():
            self.frozen.append(_label(self.dataset, index))

    def missing_shares(self) -> dict[str, float]:
        joints = self.dataset.layout.joints
        return {joints[i]: float(self.missing[i] / self.bodies) for i in np.flatnonzero(self.missing)}
