"""Searches in simulated time: a space and variants of it, many seeds, against curves that were learnt elsewhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from methods.errors import InputError
from tuning.config.schema import SamplerSpec, SearchSpec
from tuning.curve_sources import RECORDED, SAMPLER, Journals, Own, read_curves
from tuning.engine.choices import Choices, choices_of
from tuning.engine.curves import ReplayedCurves
from tuning.engine.journal import Events
from tuning.engine.ladder import make_ladder
from tuning.engine.objectives import PARAMETERS
from tuning.engine.sampler.model import Model
from tuning.engine.sampler.sampler import Draws, Sampler
from tuning.engine.segment import Segment
from tuning.engine.simulator import Curves, Point, Seen, simulate
from tuning.engine.state import Report, TrialState
from tuning.engine.virtual import Setting, make_engine
from tuning.variants import Variant, read_variants
from tuning.words import duration

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the epochs that the longest search spent: where regrets are read


@dataclass(frozen=True)
class Wishes:
    """What a user asks for. ``curves``: journals, or one ``module:object``; ``seeds``: one search each and variant."""

    curves: tuple[str, ...]
    propose: str = SAMPLER
    cost: str = RECORDED
    workers: int = 4
    seeds: tuple[int, ...] = (0,)
    sets: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    runs: Path = Path("runs")


@dataclass(frozen=True)
class Outcome:
    """One simulated search. ``seconds``: simulated, from the first epoch to the last. ``best``: at the top rung.

    ``incumbents``: (epochs spent, what the best trial by then scores when it is trained in full) at every change.
    ``estimated``: decisions on scores that no journal has, of ``decisions`` in all.
    """

    variant: str
    seed: int
    trials: int
    full: int
    epochs: int
    seconds: float
    best: float | None
    incumbents: tuple[tuple[int, float], ...]
    decisions: int
    estimated: int

    def score_at(self, epochs: float) -> float | None:
        """The full-run score of the best trial when so many epochs were spent; None before the first score."""
        known = [score for spent, score in self.incumbents if spent <= epochs]
        return known[-1] if known else None


class Search:
    """The engine as the simulator drives it, told of every epoch, so that budgets count them all in simulated time."""

    def __init__(self, choices: Choices, setting: Setting) -> None:
        self.now = 0.0
        self.engine = make_engine(Events(clock=lambda: self.now), choices, setting)
        self.rungs = frozenset(setting.ladder.rungs)
        self.scores: list[Seen] = []  # of trials that compete, at rungs
        self.epochs = 0

    def ask(self) -> Segment | None:
        return self.engine.ask()

    def heard(self, seen: Seen) -> None:
        """An epoch is over; its report follows."""
        self.now, self.epochs = seen.clock, seen.epochs
        if seen.epoch in self.rungs and self.engine.state.trials[seen.trial].of is None:
            self.scores.append(seen)

    def report(self, trial: int, epoch: int, point: Point) -> bool:
        rung = epoch in self.rungs
        value, loss = (point.value, point.loss) if rung else (None, None)
        return self.engine.report(trial, Report(epoch, rung, value, loss, point.seconds)).goes_on


class Replayed(Sampler):
    """Proposes the recorded trials, each once, in an order that the seed shuffles."""

    def __init__(self, model: Model, curves: ReplayedCurves, seed: int) -> None:
        self.curves, self.number = curves, 0
        self.order = [int(i) for i in np.random.default_rng(seed).permutation(len(curves.record.trials))]
        super().__init__(model, SamplerSpec(name="random"), seed)

    def asked(self, trial: TrialState) -> None:
        """A trial was written down: it is the one that was just proposed, or a repeat of another."""
        if trial.of is None:
            self.curves.assign(trial.trial, self.order[self.number])
            self.number += 1
        else:
            self.curves.assign(trial.trial, self.curves.which(trial.of))

    def propose(self) -> tuple[Draws, str]:
        """The next recorded trial."""
        return dict(self.curves.record.trials[self.order[self.number]].draws), RECORDED


def setting_of(spec: SearchSpec, seed: int) -> Setting:
    """What a space tells an engine."""
    gpu = spec.budget.per_trial.gpu
    gpus = float(gpu) if isinstance(gpu, int | float) else 0.0
    return Setting(make_ladder(spec.schedule), spec.sampler, spec.budget, seed, spec.objectives, gpus)


def run_search(source: Journals | Own, variant: Variant, seed: int, workers: int) -> Outcome:
    """Simulate one search to its end."""
    setting = setting_of(variant.spec, seed)
    curves: Curves = source.curves(setting.ladder.rungs)
    if isinstance(curves, ReplayedCurves):
        search = Search(source.choices, _replaying(setting, len(curves.record.trials)))
        search.engine.sampler = Replayed(search.engine.model, curves, seed)
    else:
        search = Search(source.choices, setting)
    top = setting.ladder.top
    simulate(search, curves, range(1, top + 1), workers, watch=search.heard)
    full = [seen.value for seen in search.scores if seen.epoch == top and seen.value is not None]
    estimated = 0
    if isinstance(curves, ReplayedCurves):
        estimated = sum(not curves.recorded(seen.trial, seen.epoch) for seen in search.scores)
    return Outcome(
        variant.name,
        seed,
        search.engine.state.count,
        len(full),
        search.epochs,
        search.now,
        max(full, default=None),
        _incumbents(search, curves, top),
        len(search.scores),
        estimated,
    )


def _replaying(setting: Setting, trials: int) -> Setting:
    """No more trials than there are, and no model of them."""
    limit = trials if setting.budget.trials is None else min(trials, setting.budget.trials)
    budget = setting.budget.model_copy(update={"trials": limit})
    return Setting(setting.ladder, SamplerSpec(name="random"), budget, setting.seed, setting.objectives, setting.gpus)


def _incumbents(search: Search, curves: Curves, top: int) -> tuple[tuple[int, float], ...]:
    """Whoever was best at the highest rung that anybody had reached, by the score of its full run."""
    found: list[tuple[int, float]] = []
    best, holder = (0, -1.0), -1
    for seen in search.scores:
        if seen.value is not None and (seen.epoch, seen.value) > best:
            best = seen.epoch, seen.value
            if seen.trial != holder:
                holder = seen.trial
                final = curves.point(holder, search.engine.state.trials[holder].draws, top).value
                found.append((seen.epochs, final if final is not None else 0.0))
    return tuple(found)


# --- all of them ------------------------------------------------------------------------------------------------------


def simulate_space(path: Path, wishes: Wishes, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """All variants and seeds; plain values for scripts. ``say`` is told of each search that ended.

    Raises ``InputError`` for everything that can be seen before the first search.
    """
    space, variants = read_variants(path, wishes.sets, wishes.variants)
    source = read_curves(wishes.curves, choices_of(space), wishes.propose, wishes.cost, wishes.runs)
    _check(source, variants)
    outcomes = []
    for variant in variants:
        for seed in wishes.seeds:
            begun = time.monotonic()
            outcome = run_search(source, variant, seed, wishes.workers)
            outcomes.append(outcome)
            say(f"{variant.name}: seed {seed}, {outcome.trials} trials in {duration(time.monotonic() - begun)}")
    return {
        "space": variants[0].spec.name,
        "workers": wishes.workers,
        "seeds": list(wishes.seeds),
        "propose": wishes.propose,
        "cost": wishes.cost,
        "curves": _curves_told(source),
        "notes": _notes(source, variants, wishes),
        **summary(outcomes, variants),
        "cannot_tell": _cannot_tell(source),
    }


def _check(source: Journals | Own, variants: Sequence[Variant]) -> None:
    """Everything that would stop a search, before the first one."""
    faults: list[str] = []
    for variant in variants:
        setting = setting_of(variant.spec, 0)
        if PARAMETERS in variant.spec.objectives:
            faults.append(f"{variant.option}: objectives: curves do not tell parameters; --set objectives=[top1]")
        if fault := source.fault(setting.ladder):
            faults.append(f"{variant.option}: {fault}")
        if not isinstance(source, Journals) or source.propose == SAMPLER:
            try:
                Search(source.choices, setting)
            except InputError as error:
                faults += (f"{variant.option}: {fault}" for fault in error.faults)
    if faults:
        raise InputError(*dict.fromkeys(faults))


def summary(outcomes: Sequence[Outcome], variants: Sequence[Variant]) -> dict[str, Any]:
    """Means and standard deviations over seeds. Regrets are against the best variant of the same seed at its end."""
    longest = max(outcome.epochs for outcome in outcomes)
    reference: dict[int, float] = {}
    for outcome in outcomes:
        reference[outcome.seed] = max(reference.get(outcome.seed, 0.0), outcome.score_at(longest) or 0.0)
    told = []
    for variant in variants:
        own = [outcome for outcome in outcomes if outcome.variant == variant.name]
        regrets = []
        for fraction in FRACTIONS:
            scores = [(reference[o.seed], o.score_at(fraction * longest)) for o in own]
            regrets.append(spread([None if score is None else best - score for best, score in scores]))
        told.append(
            {
                "name": variant.name,
                "changes": list(variant.changes),
                "trials": spread([o.trials for o in own]),
                "full": spread([o.full for o in own]),
                "epochs": spread([o.epochs for o in own]),
                "hours": spread([o.seconds / 3600 for o in own]),
                "best": spread([o.best for o in own]),
                "regret": regrets,
                "decisions": sum(o.decisions for o in own),
                "estimated": sum(o.estimated for o in own),
                "searches": [asdict(o) for o in own],
            }
        )
    return {"read_at": [round(fraction * longest, 1) for fraction in FRACTIONS], "variants": told}


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Mean and standard deviation (0 of one value); None where a value is missing."""
    known = [float(value) for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return {"mean": statistics.fmean(known), "sd": statistics.stdev(known) if len(known) > 1 else 0.0}


def _curves_told(source: Journals | Own) -> dict[str, Any]:
    if isinstance(source, Own):
        return {"own": source.name}
    return {
        "journals": list(source.names),
        "trials": {method: source.record.count(method) for method in source.choices.methods},
        "rungs": list(source.record.rungs),
        "left_out": [{"why": why, "trials": count} for why, count in source.record.left],
        "trust": [asdict(one) for one in source.trust],
    }


def _notes(source: Journals | Own, variants: Sequence[Variant], wishes: Wishes) -> list[str]:
    notes = source.told() if isinstance(source, Journals) else []
    if variants[0].spec.warm_start:
        notes.append("warm_start is left out: every search begins with nothing")
    for variant in variants:
        notes += (f"{variant.name}: {note}" for note in source.notes(make_ladder(variant.spec.schedule)))
        if wishes.propose == RECORDED and any(text.startswith("sampler") for text in variant.changes):
            notes.append(f"{variant.name}: --propose recorded asks no sampler, so `sampler` changes nothing")
    return notes


def _cannot_tell(source: Journals | Own) -> str:
    """What a reader must not conclude."""
    common = "failures, waiting for machines and the noise between seeds (a repeat scores the same)"
    if isinstance(source, Own):
        return f"{common}; how true the curves of {source.name} are"
    last = [one.error for one in source.trust if one.epochs == source.record.rungs[-1] and one.error is not None]
    limit = f"differences below the surrogate's error, {100 * max(last):.1f} points at the top rung" if last else ""
    limit = limit or "differences in full runs, of which too few were recorded to say how far they are right"
    if source.propose == RECORDED:
        return f"{common}; what a sampler would have proposed beside the recorded trials; of estimated scores, {limit}"
    return f"{common}; what lies where nothing was recorded; {limit}"


# --- for people -------------------------------------------------------------------------------------------------------


def lines(found: dict[str, Any]) -> list[str]:
    """The summary as text; scores in percent."""
    told = [*_head(found), *(f"note: {note}" for note in found["notes"])]
    if "trust" in found["curves"]:
        told += ["", *_trust_lines(found["curves"]["trust"])]
    told += ["", *_table(found)]
    if found["propose"] == RECORDED:
        asked, guessed = (sum(v[key] for v in found["variants"]) for key in ("decisions", "estimated"))
        told += [
            "",
            f"{guessed} of {asked} decisions asked for a score that was not recorded; the surrogate estimated it, "
            "as it did full runs that regrets are read from",
        ]
    return [*told, "", f"what this cannot tell: {found['cannot_tell']}"]


def _head(found: dict[str, Any]) -> list[str]:
    curves = found["curves"]
    if "own" in curves:
        first = f"curves: {curves['own']}"
    else:
        trials = ", ".join(f"{count} {method}" for method, count in curves["trials"].items())
        rungs = ", ".join(map(str, curves["rungs"]))
        journals = ", ".join(curves["journals"])
        first = f"curves: {sum(curves['trials'].values())} trials ({trials}) scored at {rungs} epochs; {journals}"
    seeds = found["seeds"]
    proposed = "the sampler" if found["propose"] == SAMPLER else "the recorded trials in shuffled order"
    second = (
        f"simulated: {found['space']}, {found['workers']} workers, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}, "
        f"proposals by {proposed}"
    )
    return [first, second]


def _trust_lines(trust: Sequence[dict[str, Any]]) -> list[str]:
    width = max(16, *(len(one["method"]) for one in trust))
    told = [
        "the surrogate on trials that it was not told of, points of top-1",
        f"{'method':<{width}}  rung    n  error  sd of scores  rank correlation",
    ]
    for one in trust:
        error, sd = (_number(one[key], 100, 1) for key in ("error", "spread"))
        correlation = _number(one["correlation"], 1, 2)
        told.append(
            f"{one['method']:<{width}} {one['epochs']:>5} {one['trials']:>4} {error:>6} {sd:>13} {correlation:>17}"
        )
    return told


def _number(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"


def _table(found: dict[str, Any]) -> list[str]:
    """Columns as wide as they need; ± is the standard deviation over seeds."""
    at = [f"{epochs:.0f}" for epochs in found["read_at"]]
    heads = ["variant", "trials", "full runs", "epochs", "hours", "best", *(f"regret at {epochs}" for epochs in at)]
    rows = [heads]
    for one in found["variants"]:
        rows.append(
            [
                one["name"],
                *(_cell(one[key], 1, digits) for key, digits in (("trials", 0), ("full", 1), ("epochs", 0))),
                _cell(one["hours"], 1, 2),
                _cell(one["best"], 100, 1),
                *(_cell(regret, 100, 1) for regret in one["regret"]),
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    told = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    changes = [f"{one['name']}: {', '.join(one['changes'])}" for one in found["variants"] if one["changes"]]
    return [
        *told,
        "best: at the top rung. regret: of the best trial when so many epochs are spent, trained in full, against the",
        "best variant's of that seed at its end. ±: standard deviation over seeds",
        *changes,
    ]


def _cell(value: dict[str, float] | None, factor: float, digits: int) -> str:
    if value is None:
        return "-"
    mean = f"{factor * value['mean']:.{digits}f}"
    return mean if value["sd"] == 0 else f"{mean} ± {factor * value['sd']:.{digits}f}"
