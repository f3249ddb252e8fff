"""Frozen features: the model leaves as it came, and batch norm's statistics fit the clips."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny import copy_state, make_clips, make_config, same
from torch import nn

from methods.losses import feature_spread
from methods.nn.encoder import Encoder
from methods.registry import get_method, list_methods
from methods.training.branches import Branches
from methods.training.clips import Clips, ClipStore
from methods.training.features import extract, spread
from methods.training.pretrain import pretrain, start


def used_model(method: str = "skeletonclr", **changes: object) -> tuple[Branches, ClipStore]:
    """A model after one epoch, in train mode, with odd settings that must be given back."""
    clips = make_clips(32)
    use = get_method(method).cls.only_streams or ("joint", "bone")
    config = make_config(method, epochs=1, streams=dataclasses.replace(make_config().streams, use=use))
    config = dataclasses.replace(config, **changes)
    run = start(config, clips, np.arange(32), seed=0)
    list(pretrain(run))
    run.model.train()
    list(run.model.encoders()[-1].children())[-1].eval()
    for norm in [m for m in run.model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)][:1]:
        norm.momentum = 0.37
    return run.model, run.store


def surroundings(model: nn.Module) -> list[object]:
    return [
        (name, m.training, getattr(m, "momentum", None), getattr(m, "track_running_stats", None))
        for name, m in model.named_modules()
    ] + [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("method", list_methods())
@pytest.mark.parametrize("what", ["settled", "as it stands", "spread"])
def test_model_leaves_as_it_came(method: str, what: str) -> None:
    model, store = used_model(method)
    state, around, rng = copy_state(model), surroundings(model), torch.get_rng_state()
    index = torch.arange(20)
    if what == "spread":
        spread(model, store, index)
    else:
        features = extract(model, store, index, index if what == "settled" else None, batch=8)
        assert all(not z.requires_grad for z in features.values())
    assert same(copy_state(model), state)
    assert surroundings(model) == around
    assert torch.equal(torch.get_rng_state(), rng)


def test_model_leaves_as_it_came_when_something_breaks() -> None:
    model, store = used_model()
    state, around = copy_state(model), surroundings(model)
    with pytest.raises(IndexError):
        extract(model, store, torch.tensor([999]), torch.arange(8))
    assert same(copy_state(model), state) and surroundings(model) == around


def test_features_are_the_branches_own_in_evaluation_mode() -> None:
    model, store = used_model()
    found = extract(model, store, torch.tensor([5, 2, 9]), None)
    model.eval()
    with torch.no_grad():
        expected = model.embed(store.take(torch.tensor([5, 2, 9])))
    assert found.keys() == expected.keys() == {"joint", "bone"}
    assert all(torch.equal(found[k], expected[k]) and found[k].dtype == torch.float32 for k in found)


def test_features_do_not_depend_on_the_batch() -> None:
    model, store = used_model()
    index = torch.arange(20)
    whole = extract(model, store, index, index, batch=20)
    for batch in (7, 1):
        settled = extract(model, store, index, None, batch=batch)
        plain = extract(model, store, index, None, batch=20)
        for k in whole:
            torch.testing.assert_close(settled[k], plain[k])


def input_mean(clips: Clips, index: np.ndarray) -> torch.Tensor:
    """(V*C,) mean of the input over clips, frames and bodies, as the first batch norm sees it; numpy only."""
    x = clips.data[index]  # (n, C, T, V, M)
    return torch.from_numpy(np.moveaxis(x, 1, 3).mean((0, 1, 4)).reshape(-1))


def statistics_while_settled(
    model: Branches, store: ClipStore, index: torch.Tensor, batch: int, **how: int
) -> nn.Module:
    """A copy of the first norm's buffers as they were while features were extracted."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    norm = model.branches["joint"].encoder.norm

    def look(module: nn.Module, _inputs: object) -> None:
        if not module.training:
            seen.append((module.running_mean.clone(), module.running_var.clone()))

    handle = norm.register_forward_pre_hook(look)
    extract(model, store, torch.arange(2), index, batch, **how)
    handle.remove()
    return seen[-1]


@pytest.mark.parametrize("batch", [32, 16, 8, 30])
def test_settled_statistics_are_the_mean_over_the_clips(batch: int) -> None:
    model, store = used_model()
    mean, var = statistics_while_settled(model, store, torch.arange(32), batch)
    torch.testing.assert_close(mean, input_mean(store.clips, np.arange(32)), atol=1e-5, rtol=1e-4)
    if batch == 32:
        x = np.moveaxis(store.clips.data, 1, 3).var((0, 1, 4), ddof=1).reshape(-1)
        torch.testing.assert_close(var, torch.from_numpy(x), atol=1e-5, rtol=1e-3)


def by_training_mode(model: Branches, store: ClipStore, index: torch.Tensor, part: int) -> list[torch.Tensor]:
    """Statistics of all norms as torch's own training mode averages them over parts, every body run."""
    encoders = nn.ModuleList(model.encoders())
    norms = [m for m in encoders.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    model.eval()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
        m.train()
    count = -(-len(index) // part)
    with torch.no_grad():
        for i in range(count):
            model.embed(store.take(index[i::count]))
    return [b for m in norms for b in (m.running_mean, m.running_var)]


@pytest.mark.parametrize("settle", [32, 12, 5])
@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("skeletonclr", {}),
        ("skeletonclr", {"bodies": "real"}),
        ("skeletonclr", {"input_norm": "scale"}),
        ("cmd", {}),
        ("scdnet", {}),
    ],
)
def test_statistics_are_those_of_training_mode(method: str, change: dict[str, str], settle: int) -> None:
    """In float64, where no rounding hides a difference: empty bodies count as often as they are there."""
    model, store = used_model(method, encoder=dataclasses.replace(make_config(method).encoder, **change))
    store = ClipStore(dataclasses.replace(store.clips, data=store.clips.data.astype(np.float64)), torch.device("cpu"))
    model.double()
    index, seen = torch.arange(settle), []
    encoder = model.encoders()[0]
    norms = [m for m in nn.ModuleList(model.encoders()).modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    handle = encoder.register_forward_pre_hook(
        lambda *_: seen.append([b.clone() for m in norms for b in (m.running_mean, m.running_var)])
    )
    extract(model, store, torch.arange(2), index, batch=12)
    handle.remove()
    expected = by_training_mode(model, store, index, 12)
    assert len(seen) == -(-settle // 12) + 1
    for mine, theirs in zip(seen[-1], expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-9)


def test_settling_takes_evenly_spaced_clips() -> None:
    model, store = used_model()
    mean, _ = statistics_while_settled(model, store, torch.arange(32), 32, settle_clips=8)
    torch.testing.assert_close(mean, input_mean(store.clips, np.arange(0, 32, 4)), atol=1e-5, rtol=1e-4)


def test_an_encoder_without_batch_norm_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """CRRL's published one: the clips go through it once."""
    model, store = used_model("crrl", encoder=dataclasses.replace(make_config("crrl").encoder, input_norm="none"))
    seen: list[int] = []
    take = ClipStore.take
    monkeypatch.setattr(ClipStore, "take", lambda self, index: seen.extend(index.tolist()) or take(self, index))
    extract(model, store, torch.arange(12), torch.arange(32))
    assert seen == list(range(12))


def test_settling_on_one_clip_is_harmless() -> None:
    model, store = used_model()
    features = extract(model, store, torch.arange(4), torch.arange(1))
    assert all(torch.isfinite(z).all() for z in features.values())


def test_settling_reads_only_the_clips_it_is_given() -> None:
    model, store = used_model()
    data = store.clips.data.copy()
    data[20:] = np.nan
    blind = ClipStore(dataclasses.replace(store.clips, data=data), torch.device("cpu"))
    a, b = (extract(model, s, torch.arange(10), torch.arange(20)) for s in (store, blind))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_spread_of_one_clip_repeated_is_zero_and_of_many_is_not() -> None:
    model, store = used_model()
    alike = spread(model, store, torch.zeros(16, dtype=torch.long))
    apart = spread(model, store, torch.arange(16))
    assert alike.keys() == apart.keys() == {"joint", "bone"}
    assert all(v < 1e-4 for v in alike.values()) and all(v > 0.02 for v in apart.values())


def test_spread_does_not_trust_running_statistics() -> None:
    """Early in training they lag behind; the spread must not be read through them."""
    model, store = used_model()
    before = spread(model, store, torch.arange(16))
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.fill_(100.0)
    assert spread(model, store, torch.arange(16)) == before


@pytest.mark.parametrize("method", ["skeletonclr", "cmd", "scdnet"])
def test_spread_is_that_of_training_mode(method: str) -> None:
    model, store = used_model(method)
    store = ClipStore(dataclasses.replace(store.clips, data=store.clips.data.astype(np.float64)), torch.device("cpu"))
    model.double()
    found = spread(model, store, torch.arange(16))
    model.eval()
    for m in nn.ModuleList(model.encoders()).modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.train()
    with torch.no_grad():
        expected = model.embed(store.take(torch.arange(16)))
    assert found == {k: pytest.approx(float(feature_spread(z)), rel=1e-9) for k, z in expected.items()}


@pytest.mark.parametrize("method", list_methods())
def test_bf16_features_are_near_and_the_settings_come_back(method: str) -> None:
    """Really in bf16 (they differ), settled in full precision (statistics are the same), within 10 % of a deviation."""
    model, store = used_model(method)
    encoders, index = model.encoders(), torch.arange(32)
    configs, buffers = [e.config for e in encoders], []

    def look(*_: object) -> None:
        buffers.append({name: b.clone() for name, b in encoders[0].named_buffers()})

    handle = encoders[0].register_forward_pre_hook(look)
    exact = extract(model, store, index, index)
    settled = buffers[-1]
    low = extract(model, store, index, index, precision="bf16")
    handle.remove()
    assert same(settled, buffers[-1])
    assert [e.config for e in encoders] == configs and not torch.is_autocast_enabled("cpu")
    for name, z in exact.items():
        assert low[name].dtype == torch.float32
        error = (low[name] - z).square().mean().sqrt() / z.std(0).square().mean().sqrt()
        assert 1e-5 < float(error) < 0.1, name


def test_bf16_reaches_an_encoder_without_such_a_setting() -> None:
    """Somebody else's encoder, which knows nothing of precision: autocast around it is enough."""
    model, store = used_model()
    seen: list[torch.dtype] = []

    class Foreign(Encoder):
        dim = 16

        def __init__(self) -> None:
            super().__init__()
            self.flat, self.norm = nn.Linear(3 * 25, 16), nn.BatchNorm1d(16)

        def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
            y = self.flat(x.mean((2, 4)).flatten(1))
            seen.append(y.dtype)
            return self.norm(y)

    for branch in model.branches.values():
        branch.encoder = Foreign()
    found = extract(model, store, torch.arange(4), torch.arange(4), precision="bf16")
    assert set(seen[:2]) == {torch.float32} and set(seen[2:]) == {torch.bfloat16}
    assert {z.dtype for z in found.values()} == {torch.float32}


@pytest.mark.parametrize(
    "change", [{"bodies": "real"}, {"precision": "bf16"}, {"input_norm": "scale"}, {"segments": 2}]
)
def test_features_of_every_encoder_option(change: dict[str, object]) -> None:
    config = make_config("skeletonbyol")
    model, store = used_model("skeletonbyol", encoder=dataclasses.replace(config.encoder, **change))
    found = extract(model, store, torch.arange(6), torch.arange(32), batch=16)
    assert all(z.dtype == torch.float32 and torch.isfinite(z).all() for z in found.values())
    assert found["joint"].shape == (6, 32 if "segments" in change else 16)
