"""Every way to take a step takes the same step: recorded and replayed, with fixed numbers of bodies, or plainly."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tape import NotHeldFast, Watch, record_on_tape
from tiny import BUSH15, copy_state, make_clips, make_config, own_config, same, small_encoder
from torch import Tensor

from methods.data.streams import derive
from methods.errors import InputError
from methods.nn.encoder import EncoderConfig
from methods.nn.stgcn import Block
from methods.recipe import OptimConfig
from methods.registry import get_method, list_methods
from methods.training import captured, checkpoint, pretrain, step
from methods.training.captured import Replayer
from methods.training.clips import Clips
from methods.training.config import StreamsConfig, TrialConfig, published
from methods.training.optim import learning_rate
from methods.training.order import Strata, bodies_of_clips, check_order, epoch_order, strata_of
from methods.training.run import Run, start
from methods.training.seeds import derive_seed, generator
from methods.training.step import PARTS, take_step

METHODS = list_methods()
STEPS = 20
CLIPS = make_clips(40, frames=8, layout=BUSH15)


@pytest.fixture(autouse=True)
def rates_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused optimiser reads its rate as float32; the plain path takes the same number, to be comparable to 1e-9."""
    monkeypatch.setattr(step, "learning_rate", lambda *args: float(np.float32(learning_rate(*args))))


def config_of(name: str, epochs: int = 4, **changes: Any) -> TrialConfig:
    """Everything that changes from step to step is on: a falling rate, a rising momentum, a switch of stages."""
    config = make_config(name, epochs, frames=8, **changes)
    known = {f.name for f in dataclasses.fields(config.params)}
    params = dataclasses.replace(
        config.params, **({"momentum_schedule": "cosine"} if "momentum_schedule" in known else {})
    )
    # Not Adam, where it is published: of a bias before a batch norm, whose gradient is rounding, it makes a full step.
    if "optim" in changes:
        return dataclasses.replace(config, params=params)
    optim = dataclasses.replace(config.optim, name="sgd", schedule="cosine", warmup=0.1)
    return dataclasses.replace(config, params=params, optim=optim)


def in_double(run: Run) -> Run:
    """The run in float64, its clips too."""
    run.model.double()
    data = run.store._resident.double()
    run.store._resident = run.store._host = data
    return run


def begin(config: TrialConfig, clips: Clips = CLIPS) -> Run:
    return in_double(start(config, clips, np.arange(len(clips)), seed=3))


def plain_losses(run: Run, steps: int = STEPS) -> list[float]:
    return [float(value) for value in _epochs(run, steps, None)]


def _epochs(run: Run, steps: int, replayer: Replayer | None) -> list[Tensor]:
    """``steps`` steps as an epoch takes them, by the plain path or by a replayer."""
    losses: list[Tensor] = []
    run.model.train()
    while len(losses) < steps:
        draws = generator("cpu", run.seed, "order", run.epoch)
        order = epoch_order(run.index, run.strata, run.config.optim.batch, run.steps_per_epoch, draws)
        seed = derive_seed(run.seed, "views", run.epoch)
        torch.manual_seed(run.epoch)
        if replayer is None:
            views = torch.Generator().manual_seed(seed)
            losses += [take_step(run, index, views).loss.detach() for index in order]
        else:
            replayer.views.manual_seed(seed)
            losses += [replayer.step(index)[1][0] for index in order]
        run.epoch += 1
    return losses[:steps]


def capturable() -> list[tuple[str, dict[str, Any]]]:
    """Method and the changes under which it can be recorded."""
    out: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in METHODS if name not in ("pstl", "crrl")]
    out.append(("pstl", {"params": own_config("pstl", mask_joints=0)}))
    out.append(("crrl", {"encoder": small_encoder("crrl", lengths="all")}))
    out.append(("cmd", {"optim": OptimConfig(name="adam", lr=1e-3, batch=8, schedule="cosine")}))
    return out


@pytest.mark.parametrize(
    ("name", "changes"), capturable(), ids=[f"{name}-{'-'.join(changes)}" for name, changes in capturable()]
)
def test_a_recorded_step_is_the_plain_step(name: str, changes: dict[str, Any]) -> None:
    """Twenty steps over every stage: replays may not remember a rate, a momentum, a pointer or a random number."""
    config = config_of(name, **changes)
    plain, replayed = begin(config), begin(config)
    assert captured.why_not(replayed) == ""
    expected = plain_losses(plain)
    replayer = Replayer(replayed, record_on_tape)
    found = [float(value) for value in _epochs(replayed, STEPS, replayer)]
    assert len(set(expected)) == STEPS  # the steps differ, or equality would say little
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    for (key, mine), theirs in zip(replayed.model.state_dict().items(), plain.model.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}")
    stages = sum(starts < STEPS / replayed.total_steps for starts in replayed.model.stage_starts())
    assert len(replayer.recordings) == stages


@pytest.mark.parametrize("order", ["shuffled", "stratified"])
@pytest.mark.parametrize("name", ["skeletonclr", "aimclr", "skeletonbyol", "crossclr"])
def test_bodies_real_is_recorded_with_a_stratified_order_only(name: str, order: str) -> None:
    config = config_of(name, encoder=small_encoder(name, bodies="real"))
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, order=order))
    run = begin(config)
    if order == "shuffled":
        assert "needs optim.order: stratified" in captured.why_not(run)
        with pytest.raises(NotHeldFast), Watch():
            take_step(run, run.index[:8], torch.Generator())
        return
    plain = begin(config)
    found = _epochs(run, STEPS, Replayer(run, record_on_tape))
    np.testing.assert_allclose([float(x) for x in found], plain_losses(plain), rtol=0, atol=1e-9)


def test_methods_that_read_back_say_so_and_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """``not_captured`` is neither empty where a step reads back nor said where it does not."""
    cut = begin(config_of("pstl"))
    assert "joints" in captured.why_not(cut)
    with pytest.raises(NotHeldFast), Watch():
        take_step(cut, cut.index[:8], torch.Generator())
    packed = begin(config_of("crrl"))
    assert "lengths" in captured.why_not(packed)
    asked: list[torch.Size] = []
    to_host = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: asked.append(self.shape) or to_host(self))
    take_step(packed, packed.index[:8], torch.Generator())
    assert torch.Size([8]) in asked  # the clips' lengths, for the host to pack by
    streams = StreamsConfig(("joint", "motion"))
    assert "rewind" in captured.why_not(begin(config_of("scdnet", streams=streams)))
    assert captured.why_not(begin(config_of("skeletonclr", streams=streams))) == ""
    real = small_encoder("skelemixclr", bodies="real")
    config = config_of("skelemixclr", encoder=real)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, order="stratified"))
    assert "mixtures" in captured.why_not(begin(config))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("pstl", "crrl")])
def test_a_plain_step_reads_nothing_back(name: str) -> None:
    run = begin(config_of(name))
    views = torch.Generator()
    take_step(run, run.index[:8], views)  # tables that stay on the device are made by the first step
    with Watch():
        take_step(run, run.index[8:16], views)


# Methods whose twenty steps here are no chaos: float32 and float64 agree as well, and so does bf16 throughout. The
# others' losses part after some steps, as those of two seeds do; of them the first step is held to the band.
STEADY = ("aimclr", "cmd", "crossclr", "crrl", "scdnet", "skeletonclr")


@pytest.mark.parametrize("name", METHODS)
def test_bf16_stays_within_its_band(name: str) -> None:
    """Relative to the larger of 1 and the float32 loss: 2.5 % at the first step, 5 % over twenty of a steady method."""
    losses = {}
    for precision in ("fp32", "bf16"):
        config = config_of(name, encoder=small_encoder(name, precision=precision))
        run = start(config, CLIPS, np.arange(40), seed=3)
        losses[precision] = np.array(plain_losses(run, STEPS if name in STEADY else 1))
    full = losses["fp32"]
    apart = np.abs(losses["bf16"] - full) / np.maximum(1, np.abs(full))
    assert 0 < apart[0] < 2.5e-2  # and it is another arithmetic
    assert apart.max() < 5e-2


@pytest.mark.parametrize("name", [name for name in METHODS if isinstance(published(name).encoder, EncoderConfig)])
def test_the_blocks_of_a_cpu_take_the_plain_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty steps through ``Block.on_cpu`` and through ``Block.plain``: losses and all weights."""
    ran: list[str] = []
    fast, slow = begin(config_of(name)), begin(config_of(name))
    on_cpu = Block.on_cpu
    monkeypatch.setattr(Block, "on_cpu", lambda self, *args: ran.append("on_cpu") or on_cpu(self, *args))
    found = plain_losses(fast)
    assert ran
    monkeypatch.setattr(Block, "forward", Block.plain)
    np.testing.assert_allclose(found, plain_losses(slow), rtol=1e-9, atol=1e-9)
    for (key, mine), theirs in zip(fast.model.state_dict().items(), slow.model.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}")


def test_the_parts_of_a_step_are_marked_in_order() -> None:
    run, seen = begin(config_of("skeletonbyol")), []
    take_step(run, run.index[:8], torch.Generator(), seen.append)
    assert tuple(seen) == PARTS


def test_a_run_of_one_path_goes_on_by_the_other(tmp_path: Any) -> None:
    """A checkpoint written between recorded steps holds nothing of the recording."""
    config = config_of("skeletonclr")
    run = begin(config)
    _epochs(run, 10, Replayer(run, record_on_tape))
    checkpoint.save(tmp_path / "a.pt", run)
    state = checkpoint.read(tmp_path / "a.pt")
    group = state["optimiser"]["param_groups"][0]
    assert isinstance(group["lr"], float)
    assert group["fused"] is None
    other = begin(config)
    checkpoint.restore(state, other)
    through = plain_losses(begin(config), 20)
    np.testing.assert_allclose(plain_losses(other, 10), through[10:], rtol=0, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("name", METHODS)
def test_graphs_on_a_gpu_change_no_number(name: str) -> None:
    """The same on a device: a whole epoch through ``pretrain``, captured and plain."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    losses = []
    for graph in (False, True):
        run = start(config_of(name), CLIPS, np.arange(40), seed=3, device="cuda", captured=graph)
        losses.append([epoch.loss for epoch in pretrain.pretrain(run)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_fixed_bodies_are_the_same_bits() -> None:
    """A stratified batch run by fixed rows and by rows found anew: the same bodies in the same order."""
    config = config_of("skeletonclr", encoder=small_encoder("skeletonclr", bodies="real"))
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, order="stratified"))
    fixed, free = begin(config), begin(config)
    for module in free.model.modules():
        if hasattr(module, "_fixed"):
            module._fixed = None
    assert plain_losses(fixed, 5) == plain_losses(free, 5)
    assert same(copy_state(fixed.model), copy_state(free.model))


def test_evaluation_runs_one_empty_body_for_all() -> None:
    run = begin(config_of("skeletonclr"))
    plain_losses(run, 5)  # so that an empty body's features are not zero
    encoder = run.model.encoders()[0].eval()
    for stream in ("joint", "motion", "bone"):
        clips = derive(run.store.take(run.index[:12]), stream, BUSH15)
        maps = encoder.features(clips)
        whole = encoder.pool(maps)  # every body, the empty ones too
        runs: list[int] = []
        hook = encoder.blocks[0].register_forward_hook(lambda _m, x, _o, runs=runs: runs.append(len(x[0])))
        found = encoder(clips)
        hook.remove()
        assert runs == [12 + 6 + 1]  # every second clip has a second body
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)
        assert maps[1, 1].abs().max() > 0
    nobody = torch.zeros_like(clips)
    torch.testing.assert_close(encoder(nobody), encoder.pool(encoder.features(nobody)), rtol=0, atol=1e-12)
    crowd = clips[::2]
    torch.testing.assert_close(encoder(crowd), encoder.pool(encoder.features(crowd)), rtol=0, atol=1e-12)


# --- order ------------------------------------------------------------------------------------------------------------


def strata_with(*counts: int) -> Strata:
    edges = np.cumsum([0, *counts])
    rows = [torch.arange(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return Strata(tuple((len(counts) - i, r) for i, r in enumerate(rows)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=3), st.integers(2, 16), st.integers(0, 5))
def test_every_batch_has_its_quota_of_every_stratum(counts: list[int], batch: int, seed: int) -> None:
    strata = strata_with(*counts)
    total = sum(counts)
    if batch > total or 0 in strata.quotas(batch):
        if batch <= total:
            with pytest.raises(InputError, match="use order: shuffled"):
                check_order(strata, batch)
        return
    check_order(strata, batch)
    steps, index = total // batch, torch.arange(total)
    order = epoch_order(index, strata, batch, steps, torch.Generator().manual_seed(seed))
    assert order.shape == (steps, batch)
    bodies = torch.cat([torch.full((len(rows),), count) for count, rows in strata.clips])
    expected = strata.bodies_of_rows(batch)
    assert all(torch.equal(bodies[row], expected) for row in order)
    for (_, rows), quota in zip(strata.clips, strata.quotas(batch), strict=True):
        seen = torch.bincount(order.flatten(), minlength=total)[rows]
        assert int(seen.max() - seen.min()) <= 1  # none twice before each once
        assert abs(quota - batch * len(rows) / total) < 1


def test_a_shuffled_epoch_takes_no_clip_twice_and_is_repeatable() -> None:
    index = torch.arange(100, 130)
    one, two = (epoch_order(index, None, 8, 3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert len(set(one.flatten().tolist())) == 24
    assert set(one.flatten().tolist()) <= set(index.tolist())


def test_bodies_are_counted_from_the_clips() -> None:
    counts = bodies_of_clips(CLIPS)
    assert counts.tolist() == [2, 1] * 20
    strata = strata_of(CLIPS, torch.arange(1, 40, 2))
    assert [(count, len(rows)) for count, rows in strata.clips] == [(1, 20)]


def test_a_stratified_run_names_what_a_batch_has_no_place_for() -> None:
    data = CLIPS.data.copy()
    data[2:, ..., 1] = 0
    clips = dataclasses.replace(CLIPS, data=data)
    config = make_config("skeletonclr", frames=8)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, order="stratified"))
    with pytest.raises(InputError, match="only 1 of 40 training clips have 2 bodies"):
        start(config, clips, np.arange(40), seed=0)
    assert get_method("skeletonclr").recipe.optim.order == "shuffled"
