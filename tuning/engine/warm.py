"""Warm starts: what earlier trials give to a search, sorted into values and priors, with a line about each source.

Pure: sources are read elsewhere and come as entries. A score enters as a value only where this search would have
measured the same; anything else is a prior, a place worth proposing near, with a rank among its own and no number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.engine.fitting import LONGEST_NAME, Draws, Entry, Fitted, fitting, method_of
from tuning.engine.state import FAULTY, TOP, Report, TrialState
from tuning.space.space import METHOD, Space

MOST_NAMED = 6  # settings that a note lists one by one


@dataclass(frozen=True)
class Prior:
    """Draws worth proposing near. ``rank``: within its source and method, from 0 (worst) to 1 (best)."""

    draws: Draws
    rank: float
    source: str


@dataclass(frozen=True)
class Known:
    """A trial that need not be run again. ``scores``: epochs -> (top-1, probe's loss), as this search would measure.

    ``ended``: the journal's reason. A trial that diverged, collapsed or failed may have no score at all.
    """

    draws: Draws
    scores: Mapping[int, tuple[float, float | None]]
    rank: float
    source: str
    ended: str | None = None


@dataclass(frozen=True)
class WarmStart:
    """All that earlier work gives to a search. ``notes``: a line for each source, what was used and what was not."""

    priors: tuple[Prior, ...] = ()
    values: tuple[Known, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where entries come from. ``apart``: why its scores are no values here; empty where they may be."""

    name: str
    entries: tuple[Entry, ...]
    apart: str = ""
    what: str = "trials"


def ranks(qualities: Sequence[tuple[float, ...]]) -> list[float]:
    """From 1 for the best to 0 for the worst, the same for equals; a lone one, or all alike, has 1."""
    order = sorted(qualities)
    worse = [bisect_left(order, quality) for quality in qualities]
    most = max(worse, default=0)
    return [found / most if most else 1.0 for found in worse]


def enter(space: Space, source: Source) -> WarmStart:
    """What a source gives to a search of ``space``, with its one note."""
    rank = _ranked(space, source.entries)
    priors: list[Prior] = []
    values: list[Known] = []
    told = _Told()
    for index, entry in enumerate(source.entries):
        fitted = fitting(space, entry)
        if isinstance(fitted, str):
            told.left[fitted] += 1
            continue
        faulty = entry.ended in FAULTY
        alike = not (source.apart or fitted.filled or fitted.fixed or fitted.unknown) and entry.whole
        if alike and (entry.scores or faulty):
            values.append(Known(fitted.draws, entry.scores, rank.get(index, 0.0), source.name, entry.ended))
        elif faulty:
            told.left["that diverged, collapsed or failed"] += 1
            continue
        elif index not in rank:
            told.left["without a score"] += 1
            continue
        else:
            priors.append(Prior(fitted.draws, rank[index], source.name))
        told.take(fitted)
    return WarmStart(tuple(priors), tuple(values), (told.line(source, len(priors), len(values)),))


def together(parts: Iterable[WarmStart]) -> WarmStart:
    """Several sources as one warm start, in their order."""
    parts = tuple(parts)
    return WarmStart(
        tuple(prior for part in parts for prior in part.priors),
        tuple(known for part in parts for known in part.values),
        tuple(note for part in parts for note in part.notes),
    )


def _ranked(space: Space, entries: Sequence[Entry]) -> dict[int, float]:
    """Index -> rank among all of a source's scored entries of that method, those that do not fit here included."""
    groups: dict[str | None, list[int]] = {}
    for index, entry in enumerate(entries):
        if entry.quality is not None and entry.ended not in FAULTY:
            groups.setdefault(method_of(space, entry), []).append(index)
    found: dict[int, float] = {}
    for group in groups.values():
        found |= zip(group, ranks([entries[index].quality or () for index in group]), strict=True)
    return found


class _Told:
    """Counts for a source's note."""

    def __init__(self) -> None:
        self.left: Counter[str] = Counter()
        self.filled: Counter[tuple[str, str]] = Counter()
        self.fixed: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()

    def take(self, fitted: Fitted) -> None:
        """Count what had to be changed to use an entry."""
        self.filled.update(fitted.filled)
        self.fixed.update(fitted.fixed)
        self.unknown.update(fitted.unknown)

    def line(self, source: Source, priors: int, values: int) -> str:
        """One line: how many were used and as what, and everything that did not fit."""
        used = priors + values
        how = f" ({values} as values, {priors} as priors)" if values and priors else ""
        if used and not how:
            how = ", as values" if values else ", as priors"
        if priors and source.apart:
            how += f": {source.apart}"
        said = [f"warm_start {source.name}: {used} of {len(source.entries)} {source.what} used{how}"]
        if self.left:
            said.append("left out: " + ", ".join(f"{count} {why}" for why, count in self.left.items()))
        said += [f"{label} filled for {count}: {why}" for (label, why), count in self.filled.items()]
        if self.fixed:
            said.append("fixed otherwise here: " + _listed(self.fixed))
        if self.unknown:
            said.append("no parameter here: " + _listed(self.unknown))
        return "".join(c if c.isprintable() else "?" for c in "; ".join(said))  # names in a study may be anything


def _listed(counts: Counter[str]) -> str:
    named = [f"{name[:LONGEST_NAME]} for {count}" for name, count in counts.most_common(MOST_NAMED)]
    more = len(counts) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def best_priors(warm: WarmStart, per_method: int) -> list[dict[str, Any]]:
    """Draws to begin with: the best ``per_method`` of each method, the first of all methods first, none twice.

    Known trials are among them, before priors of the same rank: to win here they must run here.
    """
    known = [k for k in warm.values if k.scores and k.ended not in FAULTY]
    both: list[Known | Prior] = [*known, *warm.priors]
    ranked = sorted(both, key=lambda one: -one.rank)
    methods: dict[str, dict[Draws, None]] = {}
    for one in ranked:
        best = methods.setdefault(str(dict(one.draws)[METHOD]), {})
        if len(best) < per_method:
            best[one.draws] = None
    rounds = [[list(best)[turn] for best in methods.values() if turn < len(best)] for turn in range(per_method)]
    return [dict(draws) for each in rounds for draws in each]


def to_plain(warm: WarmStart) -> dict[str, Any]:
    """A warm start as JSON has it, for a fact of the journal: a search that goes on needs its sources no more."""
    return {
        "priors": [[dict(p.draws), p.rank, p.source] for p in warm.priors],
        "values": [
            [dict(k.draws), {str(e): list(s) for e, s in k.scores.items()}, k.rank, k.source, k.ended]
            for k in warm.values
        ],
        "notes": list(warm.notes),
    }


def from_plain(plain: Mapping[str, Any]) -> WarmStart:
    """The warm start that :func:`to_plain` wrote."""
    priors = [Prior(tuple(draws.items()), rank, source) for draws, rank, source in plain["priors"]]
    values = [
        Known(tuple(draws.items()), {int(e): (top1, loss) for e, (top1, loss) in scores.items()}, rank, source, ended)
        for draws, scores, rank, source, ended in plain["values"]
    ]
    return WarmStart(tuple(priors), tuple(values), tuple(plain["notes"]))


def known_trials(warm: WarmStart) -> list[TrialState]:
    """What is known of earlier trials, as trials with numbers below 0: the model learns from them, no rung decides."""
    found = []
    for index, known in enumerate(warm.values):
        reports = {epoch: Report(epoch, True, top1, loss, 0.0) for epoch, (top1, loss) in sorted(known.scores.items())}
        trial = TrialState(-1 - index, dict(known.draws), "known", reports, ended=known.ended or TOP)
        trial.epochs = max(reports, default=0)
        found.append(trial)
    return found
