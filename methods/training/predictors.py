"""What a protocol says of clips that it did not train on: one interface for probes, heads and fine-tuned encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from methods.data.splits import Split
from methods.errors import InputError
from methods.training.branches import Branches
from methods.training.clips import ClipStore
from methods.training.evaluate import whole_training
from methods.training.features import extract
from methods.training.finetune import HeadRun, finetune, predict, start_finetune, start_frozen, start_heads
from methods.training.probe import log_probabilities
from methods.training.protocols import FinetuneProtocol, LinearProtocol, ProbeProtocol, Protocol
from methods.training.seeds import derive_seed
from methods.training.subsets import labelled_part
from methods.training.views import ChangedStore, make_view

FUSED = "fused"

Side = tuple[np.ndarray, np.ndarray]  # clips to train on, clips to predict
Shared = dict[tuple[object, ...], dict[str, Tensor]]  # features of one model, store and split, by how they were taken


@dataclass(frozen=True)
class Prediction:
    """Of some clips: stream -> log-probabilities (n, classes); ``fused``: all streams', of heads trained together.

    ``epochs``: stream (or ``fused``) -> the epoch that counted; empty where there are none.
    """

    streams: Mapping[str, Tensor]
    fused: Tensor | None = None
    epochs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Where a long evaluation stands: the draw, which training of it (``what``), and that training's epoch.

    ``loss`` in nats, ``lr`` of the heads, ``seconds`` of the last epoch.
    """

    protocol: str
    draw: int
    draws: int
    what: str
    epochs: int
    epoch: int = 0
    loss: float = 0.0
    lr: float = 0.0
    seconds: float = 0.0


Tell = Callable[[Progress], None]


def sides_of(split: Split, on: str) -> list[Side]:
    """What to train on and what to score: the test side, the held-out validation subjects, or each fold in turn."""
    if on == "test":
        return [(whole_training(split), split.test)]
    if split.folds is None:
        return [(split.train, split.validation)]
    # Fold -1: persons of two folds in one clip; its label serves no fold.
    scored, folds = split.train[split.folds >= 0], split.folds[split.folds >= 0]
    return [(scored[folds != fold], scored[folds == fold]) for fold in np.unique(folds)]


class Predictor:
    """A pretrained model under a protocol, on the clips of one side of a split (``on``: test or validation).

    Features that no training changes are extracted once, here; with ``shared``, once for all protocols that take them
    alike from this model, store and split. ``report``: ``last``, or ``best`` on the scored clips.
    """

    def __init__(
        self,
        model: Branches,
        store: ClipStore,
        split: Split,
        protocol: Protocol,
        *,
        on: str,
        report: str,
        seed: int,
        batch: int | None = None,
        tell: Tell | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.model, self.store, self.split, self.protocol = model, store, split, protocol
        self.on, self.report, self.seed, self.batch = on, report, seed, batch
        self.tell = tell or (lambda _: None)
        self.labels = torch.as_tensor(store.clips.labels, device=store.device).long()
        self.sides = sides_of(split, on)
        self.features: dict[str, Tensor] = {}
        if not self.through_encoder:
            self._extract({} if shared is None else shared)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of the checkpoint, in its order."""
        return self.model.config.streams.use

    @property
    def through_encoder(self) -> bool:
        """Whether training passes clips through the encoder again and again, and so is dear."""
        p = self.protocol
        return isinstance(p, FinetuneProtocol) or (isinstance(p, LinearProtocol) and p.augment is not None)

    def labelled(self, train: np.ndarray, draw: int) -> np.ndarray:
        """Those of the training clips whose labels the protocol uses in this draw."""
        p = self.protocol
        if not isinstance(p, FinetuneProtocol) or p.labels == 1:
            return train
        seed = derive_seed(self.seed, "labelled part", draw)
        return train[labelled_part(self.store.clips.labels[train], p.labels, seed, balanced=p.balanced)]

    def labels_of(self, clips: np.ndarray) -> Tensor:
        """Labels (n,) on the device."""
        return self.labels[self._on(clips)]

    def predict(self, side: Side, told: Progress, report: str = "last") -> Prediction:
        """Train on ``side[0]`` and predict ``side[1]``; ``told`` says which draw this is."""
        train, held = side
        seed = self.seed if told.draw == 1 else derive_seed(self.seed, "draw", told.draw)
        p = self.protocol
        if isinstance(p, ProbeProtocol):
            rows, out, classes = self._rows(train), self._rows(held), self.store.clips.num_classes
            y, each = self.labels_of(train), self.features.items()
            return Prediction({s: log_probabilities(z[rows], y, z[out], classes, p.probe, seed) for s, z in each})
        run, index = self._begin(train, held, seed)
        told = dataclasses.replace(told, epochs=run.training.epochs)
        return self._trained(run, index, self.labels_of(held), told, report)

    def _on(self, clips: np.ndarray) -> Tensor:
        return torch.as_tensor(clips, device=self.store.device)

    def _rows(self, clips: np.ndarray) -> Tensor:
        """Where the clips stand in ``features``."""
        return self._row[self._on(clips)]

    def _extract(self, shared: Shared) -> None:
        """Features of every clip that is used."""
        p, store, middle = self.protocol, self.store, self.protocol.middle
        train, held = self.sides[0]
        used = np.concatenate([train, held])
        if len(self.sides) > 1:
            used = np.sort(used)  # the same order whichever fold comes first
        self._used = self._on(used)
        self._row = torch.full((len(store.clips),), -1, dtype=torch.long, device=store.device)
        self._row[self._used] = torch.arange(len(used), device=store.device)
        if middle < 1:
            view = make_view(self.model.layout, None, middle)
            store = ChangedStore(store, lambda clips: view(clips, None))
        settled = p.probe.settle if isinstance(p, ProbeProtocol) else isinstance(p, LinearProtocol) and p.settle
        precision = p.probe.precision if isinstance(p, ProbeProtocol) else "fp32"
        settle_on = whole_training(self.split) if self.on == "test" else self.split.train
        how = (self.on, settled, middle, precision, self.batch)
        if how not in shared:
            index, norms = torch.as_tensor(used), torch.as_tensor(settle_on) if settled else None
            shared[how] = extract(self.model, store, index, norms, self.batch, precision=precision)
        self.features = shared[how]

    def _begin(self, train: np.ndarray, held: np.ndarray, seed: int) -> tuple[HeadRun, Tensor]:
        """A training that has not begun, and the held clips as it counts them."""
        p = self.protocol
        if isinstance(p, FinetuneProtocol):
            return start_finetune(self.model, self.store, train, p, seed=seed), self._on(held)
        if not isinstance(p, LinearProtocol):
            raise InputError(f"protocol {p.name} is of no kind that can be trained")
        if self.through_encoder:
            return start_frozen(self.model, self.store, train, p, seed=seed), self._on(held)
        labels, classes = self.labels[self._used], self.store.clips.num_classes
        return start_heads(self.features, labels, self._rows(train), classes, p, seed=seed), self._rows(held)

    def _trained(self, run: HeadRun, index: Tensor, labels: Tensor, told: Progress, report: str) -> Prediction:
        """Train to the end and predict; for ``best`` wherever the published code looks, and keep what was best."""
        best: dict[str, tuple[float, Tensor, int]] = {}
        for epoch in finetune(run):
            self.tell(dataclasses.replace(told, epoch=epoch.epoch, loss=epoch.loss, lr=epoch.lr, seconds=epoch.seconds))
            looks = report == "best" and epoch.epoch % run.training.evaluate_every == 0
            if not looks and epoch.epoch < run.training.epochs:
                continue
            streams, fused = predict(run, index, self.batch)
            every = streams if fused is None else {**streams, FUSED: fused}
            for name, log in every.items():
                judged = log if fused is None else fused  # of heads trained together, one epoch for all
                right = float((judged.argmax(1) == labels).double().mean()) if report == "best" else 0.0
                if name not in best or right > best[name][0]:
                    best[name] = (right, log, epoch.epoch)
        logs = {name: log for name, (_, log, _) in best.items()}
        together = logs.pop(FUSED, None)
        return Prediction(logs, together, {name: epoch for name, (_, _, epoch) in best.items()})
