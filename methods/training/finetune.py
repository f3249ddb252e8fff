"""Training linear heads, and with them the encoders: a generator of epochs, as pretraining is one.

run = start_finetune(model, store, index, protocol, seed=0)
for epoch in finetune(run):
    ...                                   # tell, predict, stop: the caller decides

One loop serves three cases: heads on features extracted once, heads on a frozen encoder that sees augmented clips, and
all parameters. The pretrained model is never touched; what is trained is a copy.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from methods.errors import InputError
from methods.fields import require
from methods.training.branches import Branches
from methods.training.clips import ClipStore
from methods.training.features import CPU_BATCH, GPU_BATCH
from methods.training.pretrain import Diverged
from methods.training.protocols import FinetuneProtocol, LinearProtocol, Training
from methods.training.seeds import derive_seed, generator
from methods.training.views import View, make_view

Features = Mapping[str, Tensor]  # stream -> (n, D)
Embed = Callable[[Tensor, Generator | None], Features]  # clips by index (n,); a generator asks for the training view


@dataclass(frozen=True)
class TrainedEpoch:
    """One epoch's account: ``epoch`` counts those done, ``loss`` (nats, mean over streams) and ``lr`` of the heads."""

    epoch: int
    step: int
    loss: float
    lr: float
    seconds: float


@dataclass
class HeadRun:
    """All that changes while heads train. Made by :func:`start_heads`, :func:`start_frozen`, :func:`start_finetune`.

    ``index``: the clips with labels, in the sense of ``embed``; ``labels``: theirs and everybody else's, by index.
    ``model`` is a copy, or None where features are at hand; ``moves`` says whether its batch norms and dropout work as
    in training. ``parts`` are the parameters whose gradients are clipped together.
    """

    training: Training
    heads: nn.ModuleDict
    combine: str
    embed: Embed
    labels: Tensor
    index: Tensor
    optimiser: torch.optim.Optimizer
    seed: int
    device: torch.device
    model: Branches | None = None
    moves: bool = False
    parts: list[list[nn.Parameter]] = field(default_factory=list)
    epoch: int = 0
    step: int = 0


def start_heads(
    features: Features, labels: Tensor, index: Tensor, classes: int, protocol: LinearProtocol, *, seed: int
) -> HeadRun:
    """Heads on ``features`` (n, D) extracted once: ``index`` and ``labels`` (n,) count in their rows."""
    require(len(index) > 0, "there is no clip with a label to train on")
    first = next(iter(features.values()))
    widths = {stream: z.shape[1] for stream, z in features.items()}

    def embed(rows: Tensor, _: Generator | None) -> Features:
        return {stream: z[rows] for stream, z in features.items()}

    return _run(protocol.training, widths, classes, embed, labels, index, first.device, seed, combine=protocol.heads)


def start_frozen(
    model: Branches, store: ClipStore, index: np.ndarray, protocol: LinearProtocol, *, seed: int
) -> HeadRun:
    """Heads on the frozen encoders of ``model``, which see each training clip as ``protocol.augment`` draws it."""
    model = copy.deepcopy(model).requires_grad_(False).eval()
    view = make_view(model.layout, protocol.augment, protocol.middle)
    embed, widths = _through(model, store, view), _widths(model, store, index, view)
    labels, clips = _on(store, store.clips.labels), _on(store, index)
    classes = store.clips.num_classes
    return _run(
        protocol.training,
        widths,
        classes,
        embed,
        labels,
        clips,
        store.device,
        seed,
        combine=protocol.heads,
        model=model,
    )


def start_finetune(
    model: Branches, store: ClipStore, index: np.ndarray, protocol: FinetuneProtocol, *, seed: int
) -> HeadRun:
    """All parameters that ``model``'s features depend on (in a copy), and a linear head a stream.

    ``index``: the clips of ``store`` whose labels are used. Raises ``InputError`` for a method whose features carry no
    gradient.
    """
    model = copy.deepcopy(model)
    view = make_view(model.layout, protocol.augment, protocol.middle)
    widths = _widths(model, store, index, view)
    trained = probed_parameters(model, view(store.take(torch.as_tensor(index[:2])), None))
    labels, clips = _on(store, store.clips.labels), _on(store, index)
    classes = store.clips.num_classes
    return _run(
        protocol.training,
        widths,
        classes,
        _through(model, store, view),
        labels,
        clips,
        store.device,
        seed,
        model=model,
        moves=not protocol.frozen_statistics,
        trained=trained,
    )


def probed_parameters(model: Branches, clips: Tensor) -> dict[str, list[nn.Parameter]]:
    """Stream -> the parameters that its features of ``clips`` (n, C, T, V, M) depend on; only those keep a gradient.

    Found by differentiating, so that it holds for any method: one may probe another encoder than it began with.
    """
    everything = list(model.requires_grad_(True).parameters())
    model.eval()
    with _differentiable_in_evaluation(model):
        features = model.embed(clips)
        found = {}
        for stream, z in features.items():
            if not z.requires_grad:
                raise InputError(f"method '{model.config.method}': its {stream} features carry no gradient to train by")
            slopes = torch.autograd.grad(z.sum(), everything, retain_graph=True, allow_unused=True)
            found[stream] = [p for p, slope in zip(everything, slopes, strict=True) if slope is not None]
    used = {id(p) for parameters in found.values() for p in parameters}
    for p in everything:
        p.requires_grad_(id(p) in used)
    return found


def finetune(run: HeadRun, until: int | None = None) -> Iterator[TrainedEpoch]:
    """Train ``run`` epoch by epoch, up to and including epoch ``until`` (default: the protocol's last).

    Raises :class:`~methods.training.pretrain.Diverged` when the loss is no longer finite.
    """
    last = run.training.epochs if until is None else min(until, run.training.epochs)
    while run.epoch < last:
        begun = time.perf_counter()
        rate = run.training.rate(run.epoch)
        losses = _one_epoch(run, rate)
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            raise Diverged(run.step - len(losses) + int(bad[0]) + 1)
        yield TrainedEpoch(run.epoch, run.step, float(losses.mean()), rate, time.perf_counter() - begun)


@torch.no_grad()
def predict(run: HeadRun, index: Tensor, batch: int | None = None) -> tuple[dict[str, Tensor], Tensor | None]:
    """Stream -> log-probabilities (n, classes) of clips ``index`` seen plain; and all streams' where trained together.

    Raises :class:`~methods.training.pretrain.Diverged` where they are not finite.
    """
    _set_modes(run, training=False)
    batch = batch or (CPU_BATCH if run.device.type == "cpu" else GPU_BATCH)
    found: dict[str, list[Tensor]] = {}
    together = []
    for part in index.to(run.device).split(batch):
        logits = _logits(run, run.embed(part, None))
        for stream, each in logits.items():
            found.setdefault(stream, []).append(F.log_softmax(each.float(), dim=1))
        if run.combine != "apart":
            together.append(F.log_softmax(_combined(run, logits).float(), dim=1))
    logs = {stream: torch.cat(parts) for stream, parts in found.items()}
    if not all(bool(torch.isfinite(log).all()) for log in logs.values()):
        raise Diverged(run.step)
    return logs, torch.cat(together) if together else None


# --- how a run is made ----------------------------------------------------------------------------------------------


def _run(
    training: Training,
    widths: Mapping[str, int],
    classes: int,
    embed: Embed,
    labels: Tensor,
    index: Tensor,
    device: torch.device,
    seed: int,
    *,
    combine: str = "apart",
    model: Branches | None = None,
    moves: bool = False,
    trained: Mapping[str, list[nn.Parameter]] | None = None,
) -> HeadRun:
    heads = nn.ModuleDict({s: _head(width, classes, training.init_std, seed, s) for s, width in widths.items()})
    heads.to(device)
    trained = trained or {stream: [] for stream in widths}
    parts = [[*heads[stream].parameters(), *trained[stream]] for stream in widths]
    combine = combine if len(widths) > 1 else "apart"  # one stream has nothing to be trained together with
    if combine != "apart":
        parts = [_distinct(p for part in parts for p in part)]
    groups = [{"params": list(heads.parameters()), "share": 1.0}]
    encoder = _distinct(p for parameters in trained.values() for p in parameters)
    if encoder:
        groups.append({"params": encoder, "share": training.encoder_share})
    optimiser = _optimiser(training, groups)
    return HeadRun(training, heads, combine, embed, labels, index, optimiser, seed, device, model, moves, parts)


def _distinct(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return list({id(p): p for p in parameters}.values())


def _optimiser(training: Training, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
    if training.optimiser == "adam":
        return torch.optim.Adam(groups, lr=training.lr, weight_decay=training.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
    )


def _head(width: int, classes: int, std: float, seed: int, stream: str) -> nn.Linear:
    """Zero biases; weights N(0, std), or by Xavier's normal rule where ``std`` is 0."""
    rng = generator("cpu", seed, "head", stream)
    with torch.random.fork_rng(devices=[]):  # the layer's own draw is thrown away; it must not move anybody's numbers
        head = nn.Linear(width, classes)
    std = std or (2 / (width + classes)) ** 0.5
    with torch.no_grad():
        head.weight.copy_(torch.randn(classes, width, generator=rng) * std)
        head.bias.zero_()
    return head


def _on(store: ClipStore, values: np.ndarray) -> Tensor:
    return torch.as_tensor(np.asarray(values), device=store.device).long()


def _through(model: Branches, store: ClipStore, view: View) -> Embed:
    def embed(index: Tensor, rng: Generator | None) -> Features:
        return model.embed(view(store.take(index), rng))

    return embed


@torch.no_grad()
def _widths(model: Branches, store: ClipStore, index: np.ndarray, view: View) -> dict[str, int]:
    """Stream -> D, as the model says it."""
    require(len(index) > 0, "there is no clip with a label to train on")
    model.eval()
    features = model.embed(view(store.take(torch.as_tensor(index[:1])), None))
    return {stream: z.shape[1] for stream, z in features.items()}


# --- one epoch ------------------------------------------------------------------------------------------------------


def _one_epoch(run: HeadRun, rate: float) -> Tensor:
    """Take one epoch's steps; losses (steps,) are read from the device once, at its end."""
    _set_modes(run, training=True)
    for group in run.optimiser.param_groups:
        group["lr"] = rate * group["share"]
    order = torch.randperm(len(run.index), generator=generator("cpu", run.seed, "order", run.epoch)).to(run.device)
    views = generator(run.device, run.seed, "views", run.epoch)
    losses = []
    cuda = [run.device] if run.device.type == "cuda" else []
    learning = run.model if _encoder_learns(run) else None
    with torch.random.fork_rng(devices=cuda), _differentiable_in_evaluation(learning):
        torch.manual_seed(derive_seed(run.seed, "dropout", run.epoch))  # dropout has no generator of its own
        for part in batches(order, run.training):
            losses.append(_step(run, run.index[part], views))
    run.epoch += 1
    return torch.stack(losses).cpu()


def batches(order: Tensor, training: Training) -> list[Tensor]:
    """An epoch's batches of ``order`` (n,), at least one; without ``drop_last`` none of a single clip, if n > 1."""
    size = min(training.batch, len(order))
    if training.drop_last:
        return list(order[: len(order) // size * size].split(size))
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:  # a batch norm has nothing to compare a single clip with
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _step(run: HeadRun, index: Tensor, views: Generator) -> Tensor:
    with torch.set_grad_enabled(_encoder_learns(run)):
        features = run.embed(index, views)
    with torch.enable_grad():
        logits = _logits(run, features)
        targets = run.labels[index]
        if run.combine == "apart":
            loss = torch.stack([F.cross_entropy(each, targets) for each in logits.values()]).sum()
        else:
            loss = F.cross_entropy(_combined(run, logits), targets)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
    if run.training.clip_norm is not None:
        for part in run.parts:
            clip_grad_norm_(part, run.training.clip_norm)
    run.optimiser.step()
    run.step += 1
    return loss.detach() / (len(logits) if run.combine == "apart" else 1)


def _encoder_learns(run: HeadRun) -> bool:
    return len(run.optimiser.param_groups) > 1


def _logits(run: HeadRun, features: Features) -> dict[str, Tensor]:
    return {stream: head(features[stream]) for stream, head in run.heads.items()}


def _combined(run: HeadRun, logits: Mapping[str, Tensor]) -> Tensor:
    """The logits on which all heads are trained together."""
    total = torch.stack(list(logits.values())).sum(0)
    return total / len(logits) if run.combine == "mean" else total


def _set_modes(run: HeadRun, training: bool) -> None:
    run.heads.train(training)
    if run.model is not None:
        run.model.train(training and run.moves)


@contextmanager
def _differentiable_in_evaluation(model: nn.Module | None) -> Iterator[None]:
    """cuDNN's recurrent layers have no backward pass in evaluation mode; torch's own have."""
    recurrent = model is not None and any(isinstance(m, nn.RNNBase) for m in model.modules())
    if recurrent and model is not None and not model.training:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    else:
        yield
