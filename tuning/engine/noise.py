"""How near two scores at a rung must be for their order to say nothing: probe noise, measured in the search itself.

Two sources, added in quadrature. The validation set is finite: both models meet the same clips, so their difference is
taken clip by clip, and whole subjects are resampled, because one person's clips succeed and fail together. Training
has a seed: some configurations are run again with a new one, and compared with themselves on the same clips. What a
seed does to single clips is in both parts, so the sum is a little too wide, by a factor of at most sqrt(2).
"""

from __future__ import annotations

import base64
import itertools
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuning.engine.rungs import Table
from tuning.engine.state import JournalState, TrialState

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]

DRAWS = 200
NEIGHBOURS = 5  # pairs around a cut
LEAST_REPEATS = 3  # fewer differences give no standard deviation worth the name
FACT = "probed"  # under which the journal keeps who is probed


def encode_correct(mask: Mask) -> str:
    """The per-clip correctness (n,) as text, six clips a character."""
    return base64.b64encode(np.packbits(np.asarray(mask, dtype=np.bool_)).tobytes()).decode("ascii")


def decode_correct(text: str, n: int) -> Mask:
    """The mask (n,) of :func:`encode_correct`. Raises ``ValueError`` when ``text`` is not of ``n`` clips."""
    packed = base64.b64decode(text, validate=True)
    if len(packed) != -(-n // 8):
        raise ValueError(f"{len(packed)} bytes are not the correctness of {n} clips")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=n).astype(np.bool_)


def clips_mark(clips: Ints) -> int:
    """A checksum of a set of clip indices, whatever their order: results are compared only when it is the same."""
    return zlib.crc32(np.sort(clips).astype("<i8").tobytes())


@dataclass(frozen=True, eq=False)
class Probed:
    """Which clips a search probes (``mark``, of :func:`clips_mark`) and the subject of each, by clip index (n,)."""

    mark: int
    subjects: Ints

    def plain(self) -> dict[str, Any]:
        """As the journal keeps it, under :data:`FACT`."""
        return {"mark": self.mark, "subjects": self.subjects.tolist()}

    @classmethod
    def of(cls, state: JournalState) -> Probed | None:
        """What the journal says; None where it says nothing."""
        fact: Mapping[str, Any] | None = state.facts.get(FACT)
        return None if fact is None else cls(int(fact["mark"]), np.asarray(fact["subjects"], dtype=np.int64))

    @property
    def groups(self) -> int:
        """How many subjects there are."""
        return len(np.unique(self.subjects))

    @property
    def told(self) -> str:
        """Of how many independent pieces the validation set is, for people."""
        if self.groups < 2 or self.groups == len(self.subjects):
            return f"{len(self.subjects)} clips, each for itself"
        return f"{self.groups} subjects"


# --- the finite validation set ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Resampling:
    """``number``: each clip's group (n,). ``counts``: how often a group is in a draw (draws, groups), None by clip."""

    number: Ints
    groups: int
    counts: NDArray[np.float32] | None
    clips: NDArray[np.float32]  # in each draw (draws,)


@lru_cache(maxsize=4)
def _resampling(subjects: bytes, draws: int, seed: int) -> _Resampling:
    found, number = np.unique(np.frombuffer(subjects, np.int64), return_inverse=True)
    groups = len(found)
    if groups < 2 or groups == len(number):
        return _Resampling(number, groups, None, np.empty(0, np.float32))
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float32)
    return _Resampling(number, groups, counts, counts @ np.bincount(number).astype(np.float32))


def _errors(differences: NDArray[np.int8], subjects: Ints, draws: int, seed: int) -> NDArray[np.float64]:
    """Standard errors (pairs,) of the means of ``differences`` (pairs, n)."""
    pairs, n = differences.shape
    if n < 2:
        return np.zeros(pairs)
    made = _resampling(np.ascontiguousarray(subjects, dtype=np.int64).tobytes(), draws, seed)
    if made.counts is None:  # what the bootstrap by clip comes to with ever more draws
        return np.asarray(differences.std(axis=1, ddof=1) / math.sqrt(n))
    sums = np.stack([np.bincount(made.number, weights=row, minlength=made.groups) for row in differences], axis=1)
    means = (made.counts @ sums) / made.clips[:, None]
    few = math.sqrt(made.groups / (made.groups - 1))  # resampled groups lie nearer together than new ones would
    return np.asarray(means.std(axis=0, ddof=1) * few)


def paired_se(a: Mask, b: Mask, subjects: Ints, draws: int = DRAWS, seed: int = 0) -> float:
    """Standard error of the difference of two accuracies on the same clips (n,), in the unit of an accuracy.

    Subjects are drawn with replacement, each with all its clips, and the difference is taken anew: the ratio of the
    sum of per-clip differences to the clips drawn. Fewer than two subjects, or none with two clips, leave the bootstrap
    by clip, whose value is known without drawing; for one subject it says nothing about other people.
    """
    return float(_errors(_difference(a, b)[None], subjects, draws, seed)[0])


def paired_width(masks: Sequence[Mask], k: int, subjects: Ints, draws: int = DRAWS, seed: int = 0) -> float:
    """Median :func:`paired_se` of neighbours around a cut: the 5 pairs nearest to it, or as many as there are.

    ``masks``: per-clip correctness in the order of merit; the best ``k`` go on. 0.0 for fewer than two masks.
    """
    firsts = sorted(range(len(masks) - 1), key=lambda i: (abs(i - (k - 1)), i))[:NEIGHBOURS]
    if not firsts:
        return 0.0
    differences = np.stack([_difference(masks[i], masks[i + 1]) for i in firsts])
    return float(np.median(_errors(differences, subjects, draws, seed)))


def _difference(a: Mask, b: Mask) -> NDArray[np.int8]:
    return a.astype(np.int8) - b.astype(np.int8)


# --- seeds ------------------------------------------------------------------------------------------------------------


def seed_sd(pairs: Sequence[tuple[float, float]]) -> float | None:
    """A score's standard deviation over seeds, from (first, repeat) scores; None below 3 repeats.

    Each difference has the variance of two runs, hence half of the mean square.
    """
    if len(pairs) < LEAST_REPEATS:
        return None
    return math.sqrt(sum((a - b) ** 2 for a, b in pairs) / len(pairs) / 2)


def repeat_pairs(state: JournalState) -> list[tuple[float, float]]:
    """(first, repeat) scores of every trial that was repeated, at the first rung that both were scored at."""
    return list(_pairs(state, state.trials.values()))


def _pairs(state: JournalState, trials: Iterable[TrialState]) -> Iterator[tuple[float, float]]:
    for trial in trials:
        first = None if trial.of is None else state.trials.get(trial.of)
        if first is None:
            continue
        for epoch in sorted(trial.reports):
            before, again = first.at(epoch), trial.at(epoch)
            if before is not None and again is not None and before.top1 is not None and again.top1 is not None:
                yield before.top1, again.top1
                break


# --- together ---------------------------------------------------------------------------------------------------------


class NoiseMeter:
    """Probe noise at the rungs of a search; a pure function of its journal's state.

    ``eta``: 1/eta of a rung goes on. ``probed``: default is what the journal holds when the meter is made.
    """

    def __init__(self, state: JournalState, eta: int, probed: Probed | None = None) -> None:
        self.state, self.eta = state, eta
        self.probed = probed if probed is not None else Probed.of(state)
        self._repeats: list[TrialState] = []
        self._looked = 0  # trials among which repeats were looked for

    def tie_width(self, table: Table, rung: int) -> float:
        """How near two scores in ``table``, at ``rung`` epochs, must be to be a tie; 0.0 where nothing is known.

        It is one standard error of their difference. Not two: a cut is no test, somebody has to go on, and this only
        says up to where the probe's loss is the better judge. Beyond one error the better score is right in five cases
        of six. Seeds are measured at the first rung, and their noise is taken to be the same at all.
        """
        new = itertools.islice(self.state.trials.values(), self._looked, None)
        self._repeats += [trial for trial in new if trial.of is not None]
        self._looked = len(self.state.trials)
        seeds = seed_sd(list(_pairs(self.state, self._repeats)))
        return math.hypot(self.neighbours(table, rung) or 0.0, math.sqrt(2) * (seeds or 0.0))

    def neighbours(self, table: Table, rung: int) -> float | None:
        """:func:`paired_width` at the cut of ``table``; None where fewer than two results can be compared."""
        if self.probed is None:
            return None
        cut = max(1, table.quota(self.eta))
        above = self._masks(table, rung, range(min(cut, len(table)) - 1, -1, -1), NEIGHBOURS // 2 + 1)
        below = self._masks(table, rung, range(cut, len(table)), NEIGHBOURS + 1 - len(above))
        if len(above) + len(below) < 2:
            return None
        return paired_width([*reversed(above), *below], len(above), self.probed.subjects)

    def _masks(self, table: Table, rung: int, places: range, most: int) -> list[Mask]:
        """The first ``most`` results on the probed clips, of the trials at those places of the table."""
        found: list[Mask] = []
        for place in places:
            if len(found) == most:
                break
            mask = self._mask(table.entries[place].trial, rung)
            if mask is not None:
                found.append(mask)
        return found

    def _mask(self, trial: int, rung: int) -> Mask | None:
        report = self.state.trials[trial].at(rung)
        if self.probed is None or report is None or report.logs.get("probed") != self.probed.mark:
            return None
        text = report.logs.get("correct")
        return decode_correct(text, len(self.probed.subjects)) if isinstance(text, str) else None


def noise_lines(state: JournalState, rungs: Sequence[int], eta: int) -> list[str]:
    """What was measured, a line a rung, in points of accuracy; nothing for a rung without results to compare.

    All trials of a rung stand in one table here, whatever their method and bracket. Seeds stand in the first line.
    """
    meter = NoiseMeter(state, eta)
    pairs = repeat_pairs(state)
    seeds = seed_sd(pairs)
    lines = []
    for rung in rungs:
        between = meter.neighbours(_all_at(state, rung), rung)
        parts = []
        if between is not None and meter.probed is not None:
            parts.append(f"{100 * between:.1f} points between neighbours ({meter.probed.told})")
        if seeds is not None and rung == rungs[0]:
            parts.append(f"seeds {100 * seeds:.1f} ({len(pairs)} repeats)")
        if parts:
            lines.append(f"probe noise at epoch {rung}: {', '.join(parts)}")
    return lines


def _all_at(state: JournalState, rung: int) -> Table:
    table = Table()
    for trial in state.trials.values():
        report = trial.at(rung)
        if trial.of is None and report is not None:
            table.add(trial.trial, report.top1, report.loss)
    return table
