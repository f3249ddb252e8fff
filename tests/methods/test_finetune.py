"""Training heads and encoders: what moves, what does not, and that a seed decides everything."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import BUSH15, copy_state, generator, make_clips, make_config, own_config, same
from torch import Tensor, nn

from methods.augment.policy import AugmentConfig
from methods.errors import InputError
from methods.nn.gru import GruConfig
from methods.training.branches import Branches
from methods.training.clips import ClipStore
from methods.training.config import StreamsConfig, TrialConfig, published
from methods.training.features import extract
from methods.training.finetune import (
    HeadRun,
    batches,
    finetune,
    predict,
    probed_parameters,
    start_finetune,
    start_frozen,
    start_heads,
)
from methods.training.pretrain import Diverged
from methods.training.protocols import FinetuneProtocol, LinearProtocol, Training

CLIPS = make_clips(32, frames=8, layout=BUSH15, persons=1)
EVERY = np.arange(32)
ADAM = Training(epochs=4, batch=8, lr=0.02, optimiser="adam")
SGD = Training(epochs=4, batch=8, lr=0.1, evaluate_every=2)
FULL = FinetuneProtocol(name="full", doc="", training=ADAM)
LINEAR = LinearProtocol(name="heads", doc="", training=SGD)
VIEWS = AugmentConfig(crop=4.0, shear=0.3)


def store_of(clips=CLIPS) -> ClipStore:
    return ClipStore(clips, torch.device("cpu"))


def model_of(method: str = "skeletonclr", use: tuple[str, ...] = ("joint", "bone"), **changes) -> Branches:
    config = make_config(method, frames=8, streams=StreamsConfig(use), **changes)
    return Branches(config, CLIPS.layout, seed=0, persons=1)


def recurrent(method: str, use: tuple[str, ...]) -> Branches:
    config: TrialConfig = dataclasses.replace(
        published(method),
        params=own_config(method),
        encoder=GruConfig(hidden=8, layers=2, dropout=0.2),
        frames=8,
        streams=StreamsConfig(use),
    )
    return Branches(config, CLIPS.layout, seed=0, persons=1)


def encoders_of(model: Branches) -> dict[str, Tensor]:
    return copy_state(nn.ModuleList(model.encoders()))


def buffers_of(model: Branches) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in nn.ModuleList(model.encoders()).named_buffers() if "running" in name}


def trained(run: HeadRun) -> list[float]:
    return [epoch.loss for epoch in finetune(run)]


# --- all parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["skeletonclr", "skeletonbyol", "cmcs", "crossclr"])
def test_finetuning_lowers_the_loss_and_moves_a_copy_of_the_encoder(method: str) -> None:
    model = model_of(method)
    before = copy_state(model)
    run = start_finetune(model, store_of(), EVERY, FULL, seed=0)
    losses = trained(run)
    assert losses[0] == pytest.approx(math.log(4), rel=0.5)  # four classes and a head that knows nothing
    assert losses[-1] < 0.85 * losses[0]
    assert run.step == 4 * 4
    logs, fused = predict(run, torch.arange(32))
    assert set(logs) == {"joint", "bone"} and fused is None
    for log in logs.values():
        torch.testing.assert_close(log.exp().sum(1), torch.ones(32))
    assert same(copy_state(model), before)
    moved, stood = encoders_of(run.model), encoders_of(model)
    weights = [name for name in moved if name.endswith("weight")]
    assert weights and all(not torch.equal(moved[name], stood[name]) for name in weights)


def test_only_what_the_features_depend_on_is_trained() -> None:
    model = model_of("crossclr")
    run = start_finetune(model, store_of(), EVERY, FULL, seed=0)
    trained(run)
    before, after = copy_state(model), copy_state(run.model)
    encoder = {id(p) for each in run.model.encoders() for p in each.parameters()}
    named = dict(run.model.named_parameters())
    for name, p in named.items():
        assert torch.equal(before[name], after[name]) == (id(p) not in encoder), name
    assert len(encoder) < len(named)


def test_streams_are_trained_as_if_each_were_alone() -> None:
    """Their parameters are apart, so that one loss for all moves each as its own would; with clipped gradients too."""
    protocol = dataclasses.replace(FULL, training=dataclasses.replace(SGD, clip_norm=0.05))
    both = start_finetune(model_of(), store_of(), EVERY, protocol, seed=0)
    alone = start_finetune(model_of(use=("bone",)), store_of(), EVERY, protocol, seed=0)
    trained(both)
    trained(alone)
    log, _ = predict(both, torch.arange(32))
    mine, _ = predict(alone, torch.arange(32))
    torch.testing.assert_close(log["bone"], mine["bone"])


def test_clipping_bounds_a_step() -> None:
    protocol = dataclasses.replace(FULL, training=dataclasses.replace(SGD, clip_norm=0.01, lr=1.0, momentum=0.0))
    run = start_finetune(model_of(use=("joint",)), store_of(), EVERY[:8], protocol, seed=0)
    before = [p.detach().clone() for p in run.parts[0]]
    next(finetune(run))
    squares = [float((p.detach() - b).square().sum()) for p, b in zip(run.parts[0], before, strict=True)]
    assert math.sqrt(sum(squares)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_keep_the_batch_norms_buffers(frozen: bool) -> None:
    model = model_of(use=("joint",))
    run = start_finetune(model, store_of(), EVERY, dataclasses.replace(FULL, frozen_statistics=frozen), seed=0)
    losses = trained(run)
    before, after = buffers_of(model), buffers_of(run.model)
    assert before and all(torch.equal(before[name], after[name]) == frozen for name in before)
    assert losses[-1] < losses[0]
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), run.model.parameters(), strict=True))


def test_frozen_statistics_leave_no_room_for_dropout() -> None:
    """In evaluation mode a loss is a function of the weights alone, whatever seed the dropout would have."""
    encoder = dataclasses.replace(make_config().encoder, dropout=0.5)
    whole = dataclasses.replace(FULL, training=dataclasses.replace(SGD, batch=32, epochs=1), frozen_statistics=True)
    for protocol, equal in ((whole, True), (dataclasses.replace(whole, frozen_statistics=False), False)):
        losses = []
        for seed in (1, 2):
            run = start_finetune(model_of(encoder=encoder), store_of(), EVERY, protocol, seed=seed)
            for head in run.heads.values():
                nn.init.constant_(head.weight, 0.1)
                head.weight.data[0] += 1
            losses += trained(run)
        assert (abs(losses[0] - losses[1]) < 1e-5) == equal


@pytest.mark.parametrize(("method", "use"), [("cmd", ("joint", "bone")), ("crrl", ("joint",))])
@pytest.mark.parametrize("frozen", [True, False])
def test_recurrent_encoders_are_trained_too(method: str, use: tuple[str, ...], frozen: bool) -> None:
    model = recurrent(method, use)
    protocol = dataclasses.replace(FULL, frozen_statistics=frozen)
    losses = trained(start_finetune(model, store_of(), EVERY, protocol, seed=0))
    assert losses[-1] < losses[0]


def test_the_encoders_rate_is_a_share_of_the_heads() -> None:
    still = dataclasses.replace(FULL, training=dataclasses.replace(SGD, encoder_share=0.0))
    model = model_of()
    run = start_finetune(model, store_of(), EVERY, still, seed=0)
    trained(run)
    weights = [name for name in encoders_of(model) if name.endswith("weight")]
    assert all(torch.equal(encoders_of(model)[name], encoders_of(run.model)[name]) for name in weights)
    tenth = dataclasses.replace(FULL, training=dataclasses.replace(SGD, encoder_share=0.1, milestones=(2,)))
    run = start_finetune(model, store_of(), EVERY, tenth, seed=0)
    rates = []
    for _ in finetune(run):
        rates.append([group["lr"] for group in run.optimiser.param_groups])
    assert rates == pytest.approx(np.array([[0.1, 0.01]] * 2 + [[0.01, 0.001]] * 2))


def test_a_seed_decides_all() -> None:
    protocol = dataclasses.replace(FULL, augment=VIEWS)
    encoder = dataclasses.replace(make_config().encoder, dropout=0.3)

    def losses(seed: int) -> list[float]:
        torch.manual_seed(int(torch.randint(1000, ())))  # the caller's own numbers play no part
        return trained(
            start_finetune(model_of(use=("joint",), encoder=encoder), store_of(), EVERY, protocol, seed=seed)
        )

    first = losses(1)
    assert first == losses(1)
    assert first != losses(2)


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    next(finetune(start_finetune(model_of(), store_of(), EVERY, FULL, seed=0)))
    assert torch.equal(torch.rand(3), expected)


def test_training_goes_on_where_it_stopped() -> None:
    whole = start_finetune(model_of(), store_of(), EVERY, FULL, seed=0)
    straight = trained(whole)
    run = start_finetune(model_of(), store_of(), EVERY, FULL, seed=0)
    pieces = [epoch.loss for epoch in finetune(run, until=2)]
    predict(run, torch.arange(4))  # a look in between changes nothing
    pieces += [epoch.loss for epoch in finetune(run)]
    assert pieces == straight and run.epoch == 4


def test_only_labelled_clips_are_seen() -> None:
    data, labels = CLIPS.data.copy(), CLIPS.labels.copy()
    data[8:], labels[8:] = np.nan, -1
    blind = dataclasses.replace(CLIPS, data=data, labels=labels)
    few = EVERY[:8]
    assert trained(start_finetune(model_of(), store_of(blind), few, FULL, seed=0)) == trained(
        start_finetune(model_of(), store_of(), few, FULL, seed=0)
    )


def test_nan_ends_it() -> None:
    wild = dataclasses.replace(FULL, training=dataclasses.replace(SGD, lr=1e30))
    with pytest.raises(Diverged, match="diverged at step"):
        trained(start_finetune(model_of(), store_of(), EVERY, wild, seed=0))
    data = CLIPS.data.copy()
    data[3] = np.nan
    with pytest.raises(Diverged):
        trained(start_finetune(model_of(), store_of(dataclasses.replace(CLIPS, data=data)), EVERY, FULL, seed=0))


def test_a_prediction_that_is_no_number_is_a_divergence() -> None:
    run = start_finetune(model_of(), store_of(), EVERY, FULL, seed=0)
    with torch.no_grad():
        run.heads["joint"].bias.fill_(math.inf)
    with pytest.raises(Diverged):
        predict(run, torch.arange(8))


def test_without_labels_there_is_nothing_to_train() -> None:
    for start, protocol in ((start_finetune, FULL), (start_frozen, LINEAR)):
        with pytest.raises(InputError, match="no clip with a label"):
            start(model_of(), store_of(), EVERY[:0], protocol, seed=0)


def test_features_without_a_gradient_cannot_be_trained() -> None:
    model = model_of(use=("joint",))
    plain = model.embed
    model.embed = lambda clips: {name: z.detach() for name, z in plain(clips).items()}
    with pytest.raises(InputError, match="joint features carry no gradient"):
        probed_parameters(model, store_of().take(torch.arange(2)))


# --- heads alone ----------------------------------------------------------------------------------------------------


def features_of(model: Branches) -> dict[str, Tensor]:
    return extract(model, store_of(), torch.arange(32), None)


def labels() -> Tensor:
    return torch.as_tensor(CLIPS.labels)


def test_a_frozen_encoder_does_not_move() -> None:
    model = model_of()
    run = start_frozen(model, store_of(), EVERY, dataclasses.replace(LINEAR, augment=VIEWS), seed=0)
    losses = trained(run)
    assert losses[-1] < losses[0]
    assert same(copy_state(run.model), copy_state(model))


def test_features_at_hand_and_a_frozen_encoder_are_the_same() -> None:
    """Without augmentation nothing changes from epoch to epoch, so extracting once must give the same heads."""
    model = model_of()
    at_hand = start_heads(features_of(model), labels(), torch.arange(24), 4, LINEAR, seed=3)
    frozen = start_frozen(model, store_of(), EVERY[:24], LINEAR, seed=3)
    assert trained(at_hand) == pytest.approx(trained(frozen), rel=1e-4)
    mine, theirs = predict(at_hand, torch.arange(24, 32))[0], predict(frozen, torch.arange(24, 32))[0]
    for stream in mine:
        torch.testing.assert_close(mine[stream], theirs[stream], rtol=1e-3, atol=1e-4)


def test_heads_follow_a_slow_sgd() -> None:
    """Softmax regression by hand in float64: batches in the run's own order, momentum, milestones, weight decay."""
    training = dataclasses.replace(SGD, milestones=(1, 3), factor=0.5, weight_decay=0.01, nesterov=True)
    z = torch.randn(20, 3, generator=generator(1))
    y = torch.arange(20) % 4
    run = start_heads({"joint": z}, y, torch.arange(20), 4, dataclasses.replace(LINEAR, training=training), seed=5)
    w, b = run.heads["joint"].weight.detach().numpy().astype(np.float64).copy(), np.zeros(4)
    assert abs(w.std() - 0.01) < 0.006
    x, t = z.numpy().astype(np.float64), np.eye(4)[y]
    speed_w, speed_b = np.zeros_like(w), np.zeros_like(b)
    for epoch in range(4):
        rate = 0.1 * 0.5 ** ((epoch >= 1) + (epoch >= 3))
        order = torch.randperm(20, generator=_named(5, "order", epoch)).numpy()
        for part in (order[:8], order[8:16], order[16:]):
            logits = x[part] @ w.T + b
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            slope = (p - t[part]) / len(part)
            grad_w, grad_b = slope.T @ x[part] + 0.01 * w, slope.sum(0) + 0.01 * b
            speed_w, speed_b = 0.9 * speed_w + grad_w, 0.9 * speed_b + grad_b
            w, b = w - rate * (grad_w + 0.9 * speed_w), b - rate * (grad_b + 0.9 * speed_b)
    trained(run)
    np.testing.assert_allclose(run.heads["joint"].weight.detach(), w, atol=1e-5)
    np.testing.assert_allclose(run.heads["joint"].bias.detach(), b, atol=1e-5)


def _named(*parts: int | str) -> torch.Generator:
    from methods.training.seeds import generator as named

    return named("cpu", *parts)


@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_heads_trained_together_are_one_head_on_features_side_by_side(combine: str) -> None:
    """The sum of linear heads is a linear head on all features; their mean is that of features divided by S."""
    z = {"joint": torch.randn(24, 3, generator=generator(1)), "bone": torch.randn(24, 5, generator=generator(2))}
    y = torch.arange(24) % 3
    protocol = dataclasses.replace(LINEAR, heads=combine)
    run = start_heads(z, y, torch.arange(24), 3, protocol, seed=0)
    beside = {"joint": torch.cat([z["joint"], z["bone"]], 1) / (2 if combine == "mean" else 1)}
    one = start_heads(beside, y, torch.arange(24), 3, protocol, seed=0)
    with torch.no_grad():
        one.heads["joint"].weight.copy_(torch.cat([run.heads[s].weight for s in ("joint", "bone")], 1))
    # Two biases move for one: with the mean each by half the slope, and half of them counts.
    _no_bias(run)
    _no_bias(one)
    assert trained(run) == pytest.approx(trained(one), rel=1e-4)
    _, fused = predict(run, torch.arange(24))
    torch.testing.assert_close(fused, predict(one, torch.arange(24))[0]["joint"], rtol=1e-3, atol=1e-4)


def _no_bias(run: HeadRun) -> None:
    for head in run.heads.values():
        head.bias.requires_grad_(False)


def test_one_stream_has_nothing_to_be_trained_together_with() -> None:
    z = {"joint": torch.randn(24, 3, generator=generator(1))}
    runs = [
        start_heads(z, torch.arange(24) % 3, torch.arange(24), 3, dataclasses.replace(LINEAR, heads=how), seed=0)
        for how in ("apart", "sum", "mean")
    ]
    first, *others = [trained(run) for run in runs]
    assert all(losses == first for losses in others)
    assert predict(runs[2], torch.arange(4))[1] is None


def test_a_heads_start() -> None:
    z = {"joint": torch.zeros(8, 400)}
    for std, expected in ((0.02, 0.02), (0.0, math.sqrt(2 / 500))):  # 0 is Xavier's normal rule
        protocol = dataclasses.replace(LINEAR, training=dataclasses.replace(SGD, init_std=std))
        head = start_heads(z, torch.zeros(8).long(), torch.arange(8), 100, protocol, seed=0).heads["joint"]
        assert float(head.weight.detach().std()) == pytest.approx(expected, rel=0.02)
        assert not head.bias.any()


def test_batches() -> None:
    order = torch.arange(17)

    def sizes(batch: int, drop_last: bool) -> list[int]:
        return [len(part) for part in batches(order, dataclasses.replace(SGD, batch=batch, drop_last=drop_last))]

    assert sizes(5, False) == [5, 5, 5, 2]
    assert sizes(5, True) == [5, 5, 5]
    assert sizes(4, False) == [4, 4, 4, 5]  # no batch norm over a single clip
    assert sizes(99, True) == sizes(99, False) == [17]  # few labels are one batch, not none
    assert torch.equal(torch.cat(batches(order, SGD)), order)
