"""From a pretrained model, a split and a protocol to scores: each stream and all fused, over one or several draws.

``on="test"`` trains on the whole training side and scores the test side; ``on="validation"`` keeps to the training
subjects: held-out ones, or folds. Nothing but the scored clips' predictions is ever taken from the scored side, with
the one exception that ``report="best"`` asks for: the papers' choice of the epoch by the scored clips themselves.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from methods.data.splits import Split
from methods.errors import InputError
from methods.training.branches import Branches
from methods.training.clips import ClipStore
from methods.training.evaluate import inner_folds
from methods.training.fusion import Fusion, fit_fusion, fuse_streams, fusion_of, given_by_stream, search_fusion
from methods.training.predictors import FUSED, Prediction, Predictor, Progress, Shared, Side, Tell, sides_of
from methods.training.pretrain import TrialEnded
from methods.training.protocols import FinetuneProtocol, LinearProtocol, ProbeProtocol, Protocol

SIDES = ("test", "validation")
REPORTS = ("last", "best")
TOGETHER = "trained together"  # the fusion rule of heads that share one loss


@dataclass(frozen=True)
class Score:
    """``stream`` or ``fused``: top-1 in [0, 1] and loss (nats) of each draw; ``epochs`` that counted, of all folds."""

    stream: str
    top1: tuple[float, ...]
    loss: tuple[float, ...]
    epochs: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """Mean top-1 over the draws."""
        return statistics.fmean(self.top1)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the draws; None of one alone."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None


@dataclass(frozen=True)
class Judgement:
    """What a protocol found, and all that its numbers depend on.

    ``scores``: one a stream, then the fused one where there are several streams; empty where every draw failed.
    ``labelled`` and ``clips``: how many clips were trained on (in the first fold) and scored. ``fusion``: the rule;
    ``weights``: each draw's. ``failed``: what became of the draws without a score.
    """

    protocol: Protocol
    on: str
    report: str
    split: str
    scores: tuple[Score, ...]
    draws: int
    labelled: int
    clips: int
    fusion: str
    weights: tuple[tuple[float, ...], ...]
    failed: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def epoch_rule(self) -> str:
        """Which epoch counts, in words; a choice by the scored clips says so."""
        p = self.protocol
        if not isinstance(p, LinearProtocol | FinetuneProtocol):
            return "no epochs"
        if self.report == "last":
            return f"last epoch ({p.training.epochs})"
        return f"best epoch on {self.on}{', as published' if self.on == 'test' else ''}; not comparable"


def judge(
    model: Branches,
    store: ClipStore,
    split: Split,
    protocol: Protocol,
    *,
    on: str = "test",
    report: str = "last",
    fusion: Fusion | None = None,
    draws: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    tell: Tell | None = None,
    shared: Shared | None = None,
) -> Judgement:
    """Score ``model`` by ``protocol``; the model is left untouched.

    ``fusion``: None for the protocol's own, else the configuration's. ``draws``: None for the protocol's number; a
    probe, which knows no chance, has one. ``batch``: clips a pass. ``tell`` hears of every epoch that is trained.
    ``shared``: an empty dict for the calls on one model, store and split, so that protocols share their features.
    Raises ``InputError`` for what cannot be asked of this split or protocol; a training that diverges is a failed draw.
    """
    _check(split, on, report, draws)
    predictor = Predictor(
        model, store, split, protocol, on=on, report=report, seed=seed, batch=batch, tell=tell, shared=shared
    )
    rule, notes = _fusion(predictor, fusion)
    count = _draws(protocol, draws)
    found: list[_Drawn] = []
    failed: list[str] = []
    for draw in range(count):
        try:
            found.append(_one_draw(predictor, rule, draw, count))
        except TrialEnded as end:
            failed.append(f"draw {draw + 1} of {count} {end.detail}")
    return Judgement(
        protocol=protocol,
        on=on,
        report=report,
        split=split.name,
        scores=_scores(found),
        draws=count,
        labelled=len(predictor.labelled(predictor.sides[0][0], 0)),
        clips=sum(len(held) for _, held in predictor.sides),
        fusion=rule.rule,
        weights=tuple(drawn.weights for drawn in found),
        failed=tuple(failed),
        notes=tuple(notes),
    )


def _check(split: Split, on: str, report: str, draws: int | None) -> None:
    faults = []
    if on not in SIDES:
        faults.append(f"--on must be test or validation, got '{on}'")
    if report not in REPORTS:
        faults.append(f"--report must be last or best, got '{report}'")
    if draws is not None and draws < 1:
        faults.append(f"--draws must be at least 1, got {draws}")
    if on == "test" and not len(split.test):
        faults.append(f"split '{split.name}' has no test clip")
    if on == "validation" and split.folds is None and not len(split.validation):
        faults.append(f"split '{split.name}' has no validation clip")
    if faults:
        raise InputError(*faults)


def _draws(protocol: Protocol, asked: int | None) -> int:
    if isinstance(protocol, ProbeProtocol) and (protocol.probe.kind == "knn" or protocol.probe.solver == "lbfgs"):
        return 1  # a second draw would give the same number again
    return asked or (protocol.draws if isinstance(protocol, FinetuneProtocol) else 1)


# --- fusion ---------------------------------------------------------------------------------------------------------


def _fusion(predictor: Predictor, asked: Fusion | None) -> tuple[Fusion, list[str]]:
    """The rule that holds, and what there is to say about it. Raises ``InputError`` for one that cannot be had."""
    p, streams = predictor.protocol, predictor.streams
    if len(streams) == 1:
        return Fusion("equal", (1.0,)), []
    if isinstance(p, LinearProtocol) and p.heads != "apart":
        note = f"{p.name} trains its streams' heads together, so that --fuse does not apply to it"
        return Fusion(TOGETHER), [note] if asked else []
    fusion = asked or _own_fusion(predictor)
    if fusion.weights is not None:
        return fusion, []
    if isinstance(p, FinetuneProtocol) and p.labels < 1:
        why = f"{p.name}: labels that weigh streams would be more labels than the protocol has"
        if asked:
            raise InputError(f"{why}; give --fuse equal or weights")
        return fusion_of("equal", len(streams)), [f"{why}, so they count equally"]
    if predictor.on == "validation" and fusion.rule == "searched":
        raise InputError("--fuse searched looks at validation, which is what --on validation scores; use fitted")
    if predictor.on == "validation" and len(predictor.sides) == 1 and predictor.through_encoder:
        raise InputError(f"{p.name} on validation has no clips left to weigh streams by; give --fuse equal or weights")
    return fusion, []


def _own_fusion(predictor: Predictor) -> Fusion:
    """The protocol's published weights, else what the checkpoint's configuration says."""
    p, streams = predictor.protocol, predictor.streams
    if isinstance(p, LinearProtocol) and p.fuse:
        return given_by_stream(dict(p.fuse), streams)
    return fusion_of(predictor.model.config.streams.fuse, len(streams))


def _fusion_sides(predictor: Predictor, rule: str) -> list[Side]:
    """Training clips in two, to weigh streams by predictions of clips that no head saw.

    Fitted weights of heads that cost little: out of fold over the training subjects. All others: the validation
    subjects, or where there are folds, those; only the first of them if each costs the training of an encoder.
    """
    train, _ = predictor.sides[0]
    if rule == "fitted" and not predictor.through_encoder:
        folds = inner_folds(predictor.store.clips.subjects[train])
        found = [(train[folds != fold], train[folds == fold]) for fold in np.unique(folds)]
        return found if len(found) > 1 else []
    found = sides_of(predictor.split, "validation")
    return found[:1] if predictor.through_encoder else found


def _weights(rule: str, logs: Sequence[Tensor], labels: Tensor) -> tuple[float, ...]:
    return (search_fusion if rule == "searched" else fit_fusion)(list(logs), labels)


# --- one draw -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Drawn:
    """One draw's scores: stream (or fused) -> top-1, loss, epochs; and its fusion's weights."""

    scores: Mapping[str, tuple[float, float, tuple[int, ...]]]
    weights: tuple[float, ...]


def _one_draw(predictor: Predictor, fusion: Fusion, draw: int, draws: int) -> _Drawn:
    sides = [(predictor.labelled(train, draw), held) for train, held in predictor.sides]
    told = Progress(predictor.protocol.name, draw + 1, draws, "", 0)
    parts = []
    for i, side in enumerate(sides):
        what = f"fold {i + 1} of {len(sides)}" if len(sides) > 1 else ""
        here = Progress(told.protocol, told.draw, told.draws, what, 0)
        parts.append(predictor.predict(side, here, predictor.report))
    labels = [predictor.labels_of(held) for _, held in sides]
    every = torch.cat(labels)
    scores = {}
    for stream in predictor.streams:
        log = torch.cat([part.streams[stream] for part in parts])
        scores[stream] = (*_right(log, every), _epochs(parts, stream))
    weights: tuple[float, ...] = (1.0,)
    if len(predictor.streams) > 1:
        fused, weights = _fused(predictor, fusion, parts, labels, told)
        scores[FUSED] = (*_right(fused, every), _epochs(parts, FUSED))
    return _Drawn(scores, weights)


def _right(log: Tensor, labels: Tensor) -> tuple[float, float]:
    return float((log.argmax(1) == labels).double().mean()), float(F.nll_loss(log, labels))


def _epochs(parts: Sequence[Prediction], name: str) -> tuple[int, ...]:
    return tuple(part.epochs[name] for part in parts if name in part.epochs)


def _fused(
    predictor: Predictor, fusion: Fusion, parts: Sequence[Prediction], labels: Sequence[Tensor], told: Progress
) -> tuple[Tensor, tuple[float, ...]]:
    """All scored clips' fused log-probabilities (n, classes), and the weights (their mean over folds)."""
    logs = [[part.streams[stream] for stream in predictor.streams] for part in parts]
    if fusion.rule == TOGETHER:
        return torch.cat([part.fused for part in parts if part.fused is not None]), ()
    if fusion.weights is not None:
        return torch.cat([fuse_streams(each, fusion.weights) for each in logs]), fusion.weights
    if len(parts) > 1:  # a fold's weights come from the other folds' predictions, which are out of fold already
        found = [_weights(fusion.rule, *_others(logs, labels, fold)) for fold in range(len(parts))]
        mixed = [fuse_streams(each, weights) for each, weights in zip(logs, found, strict=True)]
        return torch.cat(mixed), tuple(float(w) for w in np.mean(found, axis=0))
    weights = _found_weights(predictor, fusion.rule, told)
    return fuse_streams(logs[0], weights), weights


def _found_weights(predictor: Predictor, rule: str, told: Progress) -> tuple[float, ...]:
    """Weights from trainings of their own, whose scored clips are training clips."""
    sides, streams = _fusion_sides(predictor, rule), predictor.streams
    if not sides:  # one subject: nothing to fit on
        return (1 / len(streams),) * len(streams)
    told = Progress(told.protocol, told.draw, told.draws, "for the fusion", 0)
    seen = [predictor.predict(side, told) for side in sides]
    logs = [torch.cat([part.streams[stream] for part in seen]) for stream in streams]
    return _weights(rule, logs, torch.cat([predictor.labels_of(held) for _, held in sides]))


def _others(logs: Sequence[Sequence[Tensor]], labels: Sequence[Tensor], fold: int) -> tuple[list[Tensor], Tensor]:
    """Every stream's predictions of all folds but one, and their labels."""
    rest = [i for i in range(len(logs)) if i != fold]
    streams = range(len(logs[0]))
    return [torch.cat([logs[i][s] for i in rest]) for s in streams], torch.cat([labels[i] for i in rest])


def _scores(found: Sequence[_Drawn]) -> tuple[Score, ...]:
    if not found:
        return ()
    scores = []
    for name in found[0].scores:
        each = [drawn.scores[name] for drawn in found]
        epochs = tuple(epoch for _, _, some in each for epoch in some)
        scores.append(Score(name, tuple(t for t, _, _ in each), tuple(loss for _, loss, _ in each), epochs))
    return tuple(scores)
