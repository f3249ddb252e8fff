"""One contract, kept by every registered method: whoever adds a method adds no test here, only a row of PUBLISHED."""

from __future__ import annotations

import dataclasses
import inspect
import io
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from tiny import BUSH15, copy_state, generator, make_clips, make_config, make_method, movements, own_config

from tiny import policy, same, small_encoder  # isort: skip

from methods.augment.policy import Policy
from methods.base import Method, Views
from methods.data.layouts import KINECT20, NTU25, Layout
from methods.data.streams import derive
from methods.fields import field_table
from methods.nn.ema import Ema
from methods.registry import get_method, list_methods
from methods.training.features import extract
from methods.training.pretrain import pretrain, start
from methods.training.probe import weighted_knn

METHODS = list_methods()
every_method = pytest.mark.parametrize("name", METHODS)

# method -> what its paper or public code uses. Sections are those of the specification that the project was built from.
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "skeletonclr": {  # section 8.1: head 256-256-128, InfoNCE, K 32768, tau .07, m .999; optimiser as 7.4
        "params": {"temperature": 0.07, "momentum": 0.999, "queue": 32768, "hidden": 256, "projection": 128,
                   "projector_norm": False,
                   "momentum_schedule": "constant", "ema_buffers": "own"},
        "encoder": {"name": "stgcn", "width": 16, "dim": 256, "depth": 10, "dropout": 0.5},  # 1.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # "two normal views": 7.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "step", "step_at": 250 / 300, "step_factor": 0.1},  # 7.4: x0.1 after 250 of 300
        "run": {"frames": 50, "epochs": 300},
    },
    "skeletonbyol": {  # section 2.1: g 512-2048-512, h 512-2048-512, m .996 fixed
        "params": {"momentum": 0.996, "momentum_schedule": "constant", "hidden": 2048, "projection": 512,
                   "ema_buffers": "own"},
        "encoder": {"name": "stgcn", "width": 16, "dim": 512, "depth": 10, "dropout": 0.5},  # 2.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # 2.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "constant"},  # 2.4
        "run": {"frames": 50, "epochs": 60},  # 2.3, NTU60 single stream
    },
    "cmal": {  # section 2.1 to 2.4: the networks and the surroundings of skeletonbyol, repulsion 1/2
        "params": {"momentum": 0.996, "momentum_schedule": "constant", "hidden": 2048, "projection": 512,
                   "repulsion": 0.5, "ema_buffers": "own"},
        "encoder": {"name": "stgcn", "width": 16, "dim": 512, "depth": 10, "dropout": 0.5},  # 2.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # 2.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "constant"},  # 2.4
        "run": {"frames": 50, "epochs": 60, "use": ("joint",)},  # 2.3, NTU60 single stream
    },
    "cmcs": {  # section 2.3: as cmal; CSCL after 60 of 100 epochs, top 2, lambda 10, no temperature
        "params": {"momentum": 0.996, "momentum_schedule": "constant", "hidden": 2048, "projection": 512,
                   "repulsion": 0.5, "ema_buffers": "own", "cross_start": 60 / 100, "topk": 2, "cross_weight": 10.0,
                   "temperature": 1.0},
        "encoder": {"name": "stgcn", "width": 16, "dim": 512, "depth": 10, "dropout": 0.5},  # 2.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # 2.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "constant"},  # 2.4
        "run": {"frames": 50, "epochs": 100, "use": ("joint", "motion", "bone")},  # 2.3, NTU60 three streams
    },
    "crossclr": {  # section 8.2: the networks of skeletonclr for three streams; across after 150 of 300 epochs, top 1
        "params": {"temperature": 0.07, "momentum": 0.999, "queue": 32768, "hidden": 256, "projection": 128,
                   "projector_norm": False, "momentum_schedule": "constant", "ema_buffers": "own",
                   "cross_start": 150 / 300, "topk": 1, "context": True},
        "encoder": {"name": "stgcn", "width": 16, "dim": 256, "depth": 10, "dropout": 0.5},  # 1.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # "two normal views": 7.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "step", "step_at": 250 / 300, "step_factor": 0.1},  # 8.2
        "run": {"frames": 50, "epochs": 300, "use": ("joint", "motion", "bone")},
    },
    "aimclr": {  # sections 7.1 to 7.4: kappa .7, D3M beside the query's loss, neighbours after 150 of 300 epochs, top 1
        "params": {"temperature": 0.07, "momentum": 0.999, "queue": 32768, "hidden": 256, "projection": 128,
                   "projector_norm": False, "momentum_schedule": "constant", "ema_buffers": "own",
                   "drop_threshold": 0.7, "d3m_weight": 1.0, "mining_start": 150 / 300, "topk": 1},
        "encoder": {"name": "stgcn", "width": 16, "dim": 256, "depth": 10, "dropout": 0.5},  # 7.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.5, "rotate": 30.0, "noise": 0.01,
                    "noise_probability": 0.5, "blur": 0.5, "axis_mask": 0.5, "time_flip": 0.0},  # 7.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "step", "step_at": 250 / 300, "step_factor": 0.1},  # 7.4
        "run": {"frames": 50, "epochs": 300, "use": ("joint",)},
    },
    "scdnet": {  # sections 5.1 to 5.4 and 13.2: the run of its README, four terms of equal weight
        "params": {"temperature": 0.2, "momentum": 0.999, "queue": 8192, "hidden": 2048, "projection": 128,
                   "momentum_schedule": "constant", "ema_buffers": "own", "time_to_instance": 1.0,
                   "space_to_instance": 1.0, "instance_to_time": 1.0, "instance_to_space": 1.0},
        "encoder": {"name": "twopath", "base": 64, "d_model": 2048, "heads": 8, "layers": 1, "dropout": 0.1,
                    "partition": "inward_outward", "init": "xavier"},  # 5.1
        "augment": {"strength": 1.0, "crop": 0.0, "crop_resize": 0.8, "rotate": 30.0, "rotate_probability": 0.5,
                    "flip": 0.5, "shear": 1.0, "shear_probability": 0.5, "joint_mask": 0.5, "joint_mask_joints": 8 / 25,
                    "joint_mask_seeds": 5, "segment_mask": 0.5, "segment_mask_share": 6 / 16, "corrupt": 0.0,
                    "noise": 0.0, "blur": 0.0, "axis_mask": 0.0, "time_flip": 0.0},  # 5.2
        "optim": {"name": "sgd", "lr": 0.01, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 64,
                  "schedule": "step", "step_at": 351 / 451, "step_factor": 0.1},  # 5.4
        "run": {"frames": 64, "epochs": 451, "use": ("joint",)},
    },
    "cmd": {  # sections 9.1 to 9.4: top 8192 of 16384, teacher .05, student .1, the sum of six divergences
        "params": {"temperature": 0.07, "momentum": 0.999, "queue": 16384, "hidden": 2048, "projection": 128,
                   "momentum_schedule": "constant", "ema_buffers": "own", "teacher_temperature": 0.05,
                   "student_temperature": 0.1, "topk": 8192 / 16384, "cmd_weight": 1.0},
        "encoder": {"name": "gru", "hidden": 1024, "layers": 3, "bidirectional": True, "input_norm": "joint",
                    "dropout": 0.0, "lengths": "all", "init": "xavier"},  # 9.1
        "augment": {"strength": 1.0, "crop": 0.0, "crop_resize": 0.8, "shear": 1.0, "shear_probability": 1.0,
                    "corrupt": 0.5, "corrupt_joints": 15 / 25, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0, "joint_mask": 0.0, "segment_mask": 0.0},  # 9.2
        "optim": {"name": "sgd", "lr": 0.01, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 64,
                  "schedule": "step", "step_at": 351 / 451, "step_factor": 0.1},  # 9.4
        "run": {"frames": 64, "epochs": 451, "use": ("joint", "motion", "bone")},
    },
    "skelemixclr": {  # sections 3.1 to 3.4: head with a batch norm, one mixture of 1-4 parts and 1-15 of 16 segments
        "params": {"temperature": 0.07, "momentum": 0.999, "queue": 32768, "hidden": 256, "projection": 128,
                   "projector_norm": True, "momentum_schedule": "constant", "ema_buffers": "own",
                   "regional_weight": 1.0, "repeats": 1, "reduce": "mean", "extra_negative": True,
                   "joints": "parts", "parts_least": 1, "parts_more": 3, "joints_least": 10, "joints_more": 5,
                   "segments_least": 1, "segments_more": 14, "fill": "swap"},
        "encoder": {"name": "stgcn", "width": 16, "dim": 256, "depth": 10, "dropout": 0.5,
                    "partition": "inward_outward"},  # 3.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # 3.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "constant"},  # 3.4
        "run": {"frames": 64, "epochs": 300, "use": ("joint",)},
    },
    "skelemixclr_plus": {  # section 3.3: tau .2, the sum over three mixtures of 2-3 parts and 7-11 of 16 segments
        "params": {"temperature": 0.2, "momentum": 0.999, "queue": 32768, "hidden": 256, "projection": 128,
                   "projector_norm": True, "momentum_schedule": "constant", "ema_buffers": "own",
                   "regional_weight": 1.0, "repeats": 3, "reduce": "sum", "extra_negative": True,
                   "joints": "parts", "parts_least": 2, "parts_more": 1, "joints_least": 10, "joints_more": 5,
                   "segments_least": 7, "segments_more": 4, "fill": "swap"},
        "encoder": {"name": "stgcn", "width": 16, "dim": 256, "depth": 10, "dropout": 0.5,
                    "partition": "inward_outward"},  # 3.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # 3.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "constant"},  # 3.4
        "run": {"frames": 64, "epochs": 300, "use": ("joint",)},
    },
    "skeletonbt": {  # section 6: the head, views and optimiser of pstl, one term
        "params": {"projection": 6144, "off_diagonal": 2e-4},
        "encoder": {"name": "stgcn", "width": 16, "dim": 256, "depth": 10, "dropout": 0.5, "init": "torch"},  # 6.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 1.0, "flip": 0.5, "rotate": 30.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # 6.2
        "optim": {"name": "adam", "lr": 5e-3, "weight_decay": 1e-5, "batch": 128, "schedule": "cosine",
                  "warmup": 10 / 150},  # 6.4
        "run": {"frames": 50, "epochs": 150, "use": ("joint",)},
    },
    "pstl": {  # sections 6.1 to 6.4: 50 -> 40 -> 30 frames, 8 ends of bones, both terms alike
        "params": {"projection": 6144, "off_diagonal": 2e-4, "mask_joints": 8, "mask_frames": 10, "spatial_share": 0.5},
        "encoder": {"name": "stgcn", "width": 16, "dim": 256, "depth": 10, "dropout": 0.5, "init": "torch"},  # 6.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 1.0, "flip": 0.5, "rotate": 30.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # 6.2
        "optim": {"name": "adam", "lr": 5e-3, "weight_decay": 1e-5, "batch": 128, "schedule": "cosine",
                  "warmup": 10 / 150},  # 6.4
        "run": {"frames": 50, "epochs": 150, "use": ("joint",)},
    },
    "crrl": {  # sections 4.1 to 4.4: two runs of 60 epochs, here two stages; K 64, tau .1, lambda .1, no augmentation
        "params": {"fuse_start": 60 / 120, "temperature": 0.1, "momentum": 0.999, "momentum_schedule": "constant",
                   "queue": 64, "hidden": 512, "projection": 512, "key": "velocity", "distill_weight": 0.1,
                   "reconstruct": "both", "reduction": "sum"},
        "encoder": {"name": "gru", "hidden": 256, "layers": 2, "bidirectional": True, "stepwise": False,
                    "input_norm": "none", "dropout": 0.2, "pool": "mean", "lengths": "valid", "init": "torch"},  # 4.1
        "augment": {"strength": 1.0, "crop": 0.0, "crop_resize": 0.0, "shear": 0.0, "corrupt": 0.0, "flip": 0.0,
                    "rotate": 0.0, "noise": 0.0, "blur": 0.0, "axis_mask": 0.0, "time_flip": 0.0, "joint_mask": 0.0,
                    "segment_mask": 0.0},  # 4.2
        "optim": {"name": "sgd", "lr": 0.05, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 32,
                  "schedule": "step", "step_at": (60 + 18) / 120, "step_factor": 0.5},  # 4.4; of four drops one
        "run": {"frames": 50, "epochs": 120, "use": ("joint",)},
    },
}  # fmt: skip

# When the slow copy moves: before the key's pass (1.5) or after the optimiser's step (2.1).
MOVES_IN_LOSS = {
    "skeletonclr": True,
    "skeletonbyol": False,
    "cmal": False,
    "cmcs": False,
    "crossclr": True,
    "aimclr": True,
    "skelemixclr": True,
    "skelemixclr_plus": True,
    "scdnet": True,
    "cmd": True,
    "crrl": True,
}


def batch(layout: Layout = NTU25, frames: int = 16, persons: int = 2, count: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(movements(count, frames, layout, persons, seed=seed)[0])


def views_of(method: Method, name: str, clips: torch.Tensor, layout: Layout = NTU25, seed: int = 0) -> Views:
    return method.make_views(clips, policy(name, layout), generator(seed))


def slow_copies(method: Method) -> dict[str, Ema]:
    return {n: m for n, m in method.named_modules() if isinstance(m, Ema)}


def online_of(method: Method, slow: str) -> torch.nn.Module:
    """By the room's convention ``slow_x`` is the slow copy of ``x``."""
    return method.get_submodule(slow.removeprefix("slow_"))


def sgd(method: Method, lr: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr, momentum=0.9)


def step(method: Method, name: str, solver: torch.optim.Optimizer, seed: int, count: int = 5) -> float:
    loss = method.loss(views_of(method, name, batch(seed=seed, count=count), seed=seed), 0.0).loss
    solver.zero_grad()
    loss.backward()
    solver.step()
    method.after_step(0.0)
    return loss.item()


# --- the published values -------------------------------------------------------------------------------------------


@every_method
def test_defaults_are_the_published_ones(name: str) -> None:
    entry = get_method(name)
    assert name in PUBLISHED, f"write what '{name}' was published with into PUBLISHED"
    recipe = entry.recipe
    found = {
        "params": entry.config(),
        "encoder": recipe.encoder,
        "augment": recipe.augment,
        "optim": recipe.optim,
        "run": recipe,
    }
    for part, values in PUBLISHED[name].items():
        assert {k: getattr(found[part], k) for k in values} == values, part
    assert recipe.source and entry.summary


@every_method
def test_every_suggested_range_constructs_at_both_ends(name: str) -> None:
    for setting, info in field_table(get_method(name).config).items():
        assert info.doc, f"{setting} has no line of doc"
        if info.range is not None:
            for end in info.range.ends():
                config = dataclasses.replace(get_method(name).config(), **{setting: end})
                assert getattr(config, setting) == end


@every_method
def test_every_end_of_a_range_gives_a_loss(name: str) -> None:
    for setting, info in field_table(get_method(name).config).items():
        if info.range is None or setting in ("hidden", "projection"):  # those only make the heads wide
            continue
        for end in info.range.ends():
            method = make_method(name, **{setting: end})
            assert torch.isfinite(method.loss(views_of(method, name, batch()), 0.5).loss), f"{setting} = {end}"


# --- loss and gradients ---------------------------------------------------------------------------------------------


@every_method
def test_gradients_reach_what_is_trained_and_nothing_else(name: str) -> None:
    method = make_method(name)
    step(method, name, sgd(method), 0)  # what starts at exactly zero lets nothing through (SCD-Net's alpha)
    method.zero_grad()
    for stage in method.stages(method.config):  # each part is trained in one of them at least
        out = method.loss(views_of(method, name, batch()), stage.start)
        assert out.loss.shape == () and torch.isfinite(out.loss)
        assert all(not v.requires_grad and v.shape == () for v in out.logs.values())
        out.loss.backward()
    slow = {id(p) for ema in slow_copies(method).values() for p in ema.parameters()}
    for key, p in method.named_parameters():
        if id(p) in slow:
            assert not p.requires_grad and p.grad is None, key
        else:
            assert p.grad is not None and torch.isfinite(p.grad).all(), key
            # A bias before a batch norm has no effect but must at least be in the graph.
            assert p.grad.abs().sum() > 0 or key.endswith("bias"), key
    assert all(b.grad is None and not b.requires_grad for b in method.buffers())


@every_method
def test_features_are_the_encoders(name: str) -> None:
    method = make_method(name).eval()
    x = batch()
    assert torch.equal(method.embed(x), method.encoder(x))
    assert method.embed(x).shape == (5, method.encoder.dim)


@every_method
@pytest.mark.parametrize(
    ("layout", "frames", "persons"), [(NTU25, 17, 1), (BUSH15, 9, 2), (KINECT20, 16, 3), (NTU25, 8, 2)]
)
def test_any_layout_length_and_number_of_persons(name: str, layout: Layout, frames: int, persons: int) -> None:
    method = make_method(name, layout, frames=frames, persons=persons)
    x = batch(layout, frames, persons)
    out = method.loss(views_of(method, name, x, layout), 0.3)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert method.embed(x).shape == (5, method.encoder.dim)


@every_method
def test_bf16_and_real_bodies_give_nearly_the_same_kind_of_loss(name: str) -> None:
    for change in ({"precision": "bf16"}, {"bodies": "real"}, {"segments": 2}, {"input_norm": "scale"}):
        method = make_method(name, encoder=small_encoder(name, **change))
        loss = method.loss(views_of(method, name, batch()), 0.0).loss
        loss.backward()
        assert torch.isfinite(loss) and loss.dtype == torch.float32, change


# --- each loss by its own formula -----------------------------------------------------------------------------------


def unit_rows(x: torch.Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def loss_of_skeletonclr(method: Any, views: Views) -> float:
    """Query from view a, key from view b by the slow copy; -log of the own key's share among itself and the queue."""
    q = unit_rows(method.projector(method.encoder(views["a"])))
    k = unit_rows(method.slow_projector(method.slow_encoder(views["b"])))
    queue = method.queue.keys.double().numpy()
    own = np.exp((q * k).sum(1) / method.config.temperature)
    others = np.exp(q @ queue.T / method.config.temperature).sum(1)
    return float(-np.log(own / (own + others)).mean())


def loss_of_skeletonbyol(method: Any, views: Views) -> float:
    """Section 2.3: d(p_1, t_2) + d(p_2, t_1), d(a, b) = |a/|a| - b/|b||^2, the mean over clips."""
    p1, p2 = (unit_rows(method.predictor(method.projector(method.encoder(views[v])))) for v in "ab")
    t1, t2 = (unit_rows(method.slow_projector(method.slow_encoder(views[v]))) for v in "ab")
    return float(((p1 - t2) ** 2).sum(1).mean() + ((p2 - t1) ** 2).sum(1).mean())


def adversarial(first: Any, second: Any, away_first: Any, away_second: Any) -> float:
    """Section 2.3 of unit rows: d(p_1, p_2) - (d(p_1, t_1) + d(p_2, t_2)) / 2, the mean over clips."""
    drawn, away = (first - second) ** 2, (first - away_first) ** 2 + (second - away_second) ** 2
    return float((drawn - away / 2).sum(1).mean())


def loss_of_cmal(method: Any, views: Views) -> float:
    online = (unit_rows(method.predictor(method.projector(method.encoder(views[v])))) for v in "ab")
    slow = (unit_rows(method.slow_projector(method.slow_encoder(views[v]))) for v in "ab")
    return adversarial(*online, *slow)


def loss_of_cmcs(method: Any, views: Views) -> float:
    """Before the streams meet: the sum of theirs."""
    total = 0.0
    for s in ("joint", "motion", "bone"):
        x = [derive(views[v], s, NTU25) for v in "ab"]
        online = (unit_rows(method.predictors[s](method.projectors[s](method.encoders[s](each)))) for each in x)
        slow = (unit_rows(method.slow_projectors[s](method.slow_encoders[s](each))) for each in x)
        total += adversarial(*online, *slow)
    return total


def loss_of_crossclr(method: Any, views: Views) -> float:
    """Before the streams look across: the sum of theirs, each SkeletonCLR's."""
    total = 0.0
    for s in ("joint", "motion", "bone"):
        own = views.map(lambda x, s=s: derive(x, s, NTU25))
        q = unit_rows(method.projectors[s](method.encoders[s](own["a"])))
        k = unit_rows(method.slow_projectors[s](method.slow_encoders[s](own["b"])))
        total -= np.log(shares(q, k, method.queue[s].double().numpy(), method.config.temperature)[:, 0]).mean()
    return float(total)


def shares(q: np.ndarray, k: np.ndarray, queue: np.ndarray, tau: float) -> np.ndarray:
    """(N, 1+K) softmax of unit rows over their own keys, first, and the queue."""
    likeness = np.exp(np.concatenate([(q * k).sum(1, keepdims=True), q @ queue.T], 1) / tau)
    return likeness / likeness.sum(1, keepdims=True)


def loss_of_aimclr(method: Any, views: Views) -> float:
    """Section 7.3 before the mining: -log P(own key), and the mean of two -sum P log P', P' of the extreme view."""
    maps = method.encoder.features(views["extreme"])
    dropped = method.encoder.drop_attended(maps, 0.7)
    seen = (method.encoder(views["a"]), method.encoder.pool(maps), method.encoder.pool(dropped))
    k = unit_rows(method.slow_projector(method.slow_encoder(views["b"])))
    queue, tau = method.queue.keys.double().numpy(), method.config.temperature
    p, extreme, hidden = (shares(unit_rows(method.projector(each)), k, queue, tau) for each in seen)
    d3m = -(p * np.log(extreme)).sum(1) - (p * np.log(hidden)).sum(1)
    return float((-np.log(p[:, 0]) + d3m / 2).mean())


def loss_of_scdnet(method: Any, views: Views) -> float:
    """Section 5.3: -log of the own key's share, for four pairs of a query's level and a key's, summed."""

    def embedded(encoder: Any, heads: Any, clips: torch.Tensor) -> dict[str, np.ndarray]:
        both, half = encoder(clips), method.encoder.time_dim
        parts = {"time": both[:, :half], "space": both[:, half:], "instance": both}
        return {level: unit_rows(heads[level](part)) for level, part in parts.items()}

    q = embedded(method.encoder, method.projectors, views["a"])
    k = embedded(method.slow_encoder, method.slow_projectors, views["b"])
    total, tau = 0.0, method.config.temperature
    for ask, answer in (("time", "instance"), ("space", "instance"), ("instance", "time"), ("instance", "space")):
        total -= np.log(shares(q[ask], k[answer], method.queue[answer].double().numpy(), tau)[:, 0]).mean()
    return float(total)


def loss_of_cmd(method: Any, views: Views) -> float:
    """Section 9.3: SkeletonCLR's of each stream, and KL(teacher's key || student's query) of each ordered pair."""
    c, total, q, k, queue = method.config, 0.0, {}, {}, {}
    streams = ("joint", "motion", "bone")
    for s in streams:
        own = views.map(lambda x, s=s: derive(x, s, NTU25))
        q[s] = unit_rows(method.projectors[s](method.encoders[s](own["a"])))
        k[s] = unit_rows(method.slow_projectors[s](method.slow_encoders[s](own["b"])))
        queue[s] = method.queue[s].double().numpy()
        total -= np.log(shares(q[s], k[s], queue[s], c.temperature)[:, 0]).mean()
    for teacher, student in itertools.permutations(streams, 2):
        for key, query in zip(k[teacher], q[student], strict=True):
            seen = queue[teacher] @ key
            nearest = np.argsort(-seen)[: len(seen) // 2]  # topk: half the queue
            p = np.exp(seen[nearest] / c.teacher_temperature)
            r = np.exp(queue[student][nearest] @ query / c.student_temperature)
            p, r = p / p.sum(), r / r.sum()
            total += c.cmd_weight * (p * np.log(p / r)).sum() / len(k[teacher])
    return float(total)


def loss_of_skelemixclr(method: Any, views: Views) -> float:
    """Section 3.3: SkeletonCLR's, and for each mixture the mean of both sides' -log of their own key's share."""
    c, count = method.config, len(views["a"])
    queue = method.queue.keys.double().numpy()
    k = unit_rows(method.slow_projector(method.slow_encoder(views["b"])))
    regional = []
    for shift, joints, begin, length in zip(*(views.extra[f"mix_{x}"] for x in MIX), strict=True):
        cells = torch.zeros(count, 4, 25, dtype=torch.bool)  # 16 frames, four a segment
        for i in range(count):
            cells[i, begin[i] : begin[i] + length[i], joints[i]] = True
        order = [(i + int(shift)) % count for i in range(count)]
        taken = cells.repeat_interleave(4, 1)[:, None, :, :, None]
        maps = method.encoder.features(views["a"] * ~taken + views["a"][order] * taken).mean(1)
        sides = [(maps * x[:, None]).sum((2, 3)) / x.sum((1, 2))[:, None] for x in (cells, ~cells)]
        p, o = (unit_rows(method.projector(side)) for side in sides)
        for side, key, other in ((p, k[order], o), (o, k, p)):
            beside = np.exp((side * other).sum(1) / c.temperature)
            own = np.exp((side * key).sum(1) / c.temperature)
            regional.append(np.log((own + np.exp(side @ queue.T / c.temperature).sum(1) + beside) / own).mean() / 2)
    q = unit_rows(method.projector(method.encoder(views["a"])))
    instance = -np.log(shares(q, k, queue, c.temperature)[:, 0]).mean()
    return float(instance + sum(regional) / (c.repeats if c.reduce == "mean" else 1))


MIX = ("shift", "joints", "start", "length")


def redundancy(method: Any, first: torch.Tensor, second: torch.Tensor) -> float:
    """Section 6.3: the squared distance of two features' correlations from the identity, off the diagonal by lambda."""
    a, b = (method.projector(x).detach().double().numpy() for x in (first, second))
    a, b = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) for x in (a, b))
    apart = (a.T @ b / len(a) - np.eye(a.shape[1])) ** 2
    on = np.trace(apart)
    return float(on + method.config.off_diagonal * (apart.sum() - on))


def loss_of_skeletonbt(method: Any, views: Views) -> float:
    return redundancy(method, method.encoder(views["a"]), method.encoder(views["b"]))


def loss_of_pstl(method: Any, views: Views) -> float:
    fewer = method.encoder.pool(method.encoder.features(views["spatial"], joints=views.extra["joints"]))
    anchor = method.encoder(views["anchor"])
    return redundancy(method, anchor, method.encoder(views["temporal"])) + redundancy(method, anchor, fewer)


BY_HAND = {
    "skeletonclr": loss_of_skeletonclr,
    "skeletonbyol": loss_of_skeletonbyol,
    "cmal": loss_of_cmal,
    "cmcs": loss_of_cmcs,
    "crossclr": loss_of_crossclr,
    "aimclr": loss_of_aimclr,
    "skelemixclr": loss_of_skelemixclr,
    "skelemixclr_plus": loss_of_skelemixclr,
    "skeletonbt": loss_of_skeletonbt,
    "pstl": loss_of_pstl,
    "scdnet": loss_of_scdnet,
    "cmd": loss_of_cmd,
    "crrl": loss_of_skeletonclr,  # section 4.3, before the student: the same, between positions and velocities
}


@every_method
def test_loss_is_its_formula(name: str) -> None:
    """After a step that set the slow copy apart, with a momentum of 1 that leaves it there. By batch statistics."""
    method = make_method(name, momentum=1.0, encoder=small_encoder(name, init="torch"))
    step(method, name, sgd(method, lr=0.5), 0)
    drawn = views_of(method, name, batch(seed=4)).extra  # of the methods whose views come with draws
    a, b = batch(seed=4), batch(seed=5).roll(1, 0)  # a clip's second view is of another movement
    extreme = batch(seed=6)  # of the methods that have a third view

    def views_with(second: torch.Tensor) -> Views:
        clips = {"a": a, "b": second, "extreme": extreme, "anchor": a, "temporal": second, "spatial": extreme}
        return Views(clips, torch.ones(5, 2, dtype=torch.bool), drawn)

    views = views_with(b)
    expected = BY_HAND[name](method, views)
    same_view = BY_HAND[name](method, views_with(a))
    assert abs(same_view - expected) > 0.01, "the two views cannot be told apart here"
    assert method.loss(views, 0.0).loss.item() == pytest.approx(expected, rel=1e-4)


# --- the slow copy --------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("momentum", [0.9, 1.0, 0.0])
def test_slow_copies_move_by_exactly_the_stated_rate(name: str, momentum: float) -> None:
    """slow <- m slow + (1 - m) online, once a step, with the online weights of the published moment."""
    method = make_method(name, momentum=momentum)
    if not slow_copies(method):
        pytest.skip(f"{name} has no slow copy")
    solver = sgd(method, lr=0.5)
    step(method, name, solver, 0)  # now the online weights and the copy's differ
    before = {n: [p.clone() for p in ema.parameters()] for n, ema in slow_copies(method).items()}
    online_before = {n: [p.detach().clone() for p in online_of(method, n).parameters()] for n in before}
    step(method, name, solver, 1)
    for n, ema in slow_copies(method).items():
        seen = online_before[n] if MOVES_IN_LOSS[name] else [p.detach() for p in online_of(method, n).parameters()]
        for slow, old, new in zip(ema.parameters(), before[n], seen, strict=True):
            expected = momentum * old.double() + (1 - momentum) * new.double()
            torch.testing.assert_close(slow.double(), expected, rtol=1e-6, atol=5e-8)  # where the two cancel
            if momentum in (0, 1):
                assert torch.equal(slow, old if momentum else new)
        moved = any(not torch.equal(p, q) for p, q in zip(ema.parameters(), before[n], strict=True))
        assert moved == (momentum < 1)


@every_method
def test_rising_momentum_stops_the_copy_at_the_end(name: str) -> None:
    method = make_method(name, momentum=0.5, momentum_schedule="cosine")
    if not slow_copies(method):
        pytest.skip(f"{name} has no slow copy")
    step(method, name, sgd(method), 0)
    before = {n: copy_state(ema) for n, ema in slow_copies(method).items()}
    method.eval()  # so that batch norm keeps still
    with torch.no_grad():
        method.loss(views_of(method, name, batch()), 1.0)
        method.after_step(1.0)
    for n, ema in slow_copies(method).items():
        parameters = {k for k, _ in ema.named_parameters()}
        assert all(torch.equal(v, before[n][k]) for k, v in ema.state_dict().items() if k in parameters)


@every_method
@pytest.mark.parametrize("sync", [True, False])
def test_slow_copy_starts_equal_only_if_asked(name: str, sync: bool) -> None:
    if not sync and "init_sync" not in field_table(get_method(name).config):
        pytest.skip(f"{name} always starts equal, as published")
    method = make_method(name, init_sync=sync)
    for n, ema in slow_copies(method).items():
        pairs = list(zip(ema.parameters(), online_of(method, n).parameters(), strict=True))
        assert all(torch.equal(p, q) for p, q in pairs) == sync


# --- state ----------------------------------------------------------------------------------------------------------


@every_method
def test_state_survives_saving_in_the_middle_of_the_queue(name: str) -> None:
    """Batches of 5 into a queue of 12: after three steps the pointer stands at 3, past one wrap."""
    method = make_method(name)
    solver = sgd(method)
    for seed in range(3):
        step(method, name, solver, seed)
    if hasattr(method, "queue"):
        assert int(method.queue.pointer) == 3
    file = io.BytesIO()
    torch.save({"model": method.state_dict(), "optimiser": solver.state_dict()}, file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    other = make_method(name, seed=5)
    assert not same(copy_state(other), copy_state(method))
    other.load_state_dict(stored["model"])
    again = sgd(other)
    again.load_state_dict(stored["optimiser"])
    assert same(copy_state(other), copy_state(method))
    for seed in (3, 4):
        assert step(other, name, again, seed) == step(method, name, solver, seed)
    assert same(copy_state(other), copy_state(method))


@every_method
def test_batch_larger_than_the_queue_and_batch_of_two(name: str) -> None:
    method = make_method(name)
    solver = sgd(method)
    for seed, count in enumerate((13, 2, 12, 7)):
        assert np.isfinite(step(method, name, solver, seed, count))


# --- views ----------------------------------------------------------------------------------------------------------


def test_views_have_no_place_for_labels() -> None:
    assert {f.name for f in dataclasses.fields(Views)} == {"clips", "present", "extra"}


@every_method
def test_views_take_no_labels(name: str) -> None:
    assert list(inspect.signature(get_method(name).cls.make_views).parameters) == [
        "self",
        "clips",
        "policy",
        "generator",
    ]
    assert list(inspect.signature(get_method(name).cls.loss).parameters) == ["self", "views", "progress"]


@every_method
def test_views_are_a_function_of_clips_and_generator(name: str) -> None:
    method = make_method(name)
    x = batch()
    kept = x.clone()
    noise = {"noise": 0.1, "noise_probability": 1.0}  # in some methods' published views nothing is random
    random = Policy(dataclasses.replace(get_method(name).recipe.augment, **noise), NTU25)
    first, second, other = (method.make_views(x, random, generator(s)) for s in (1, 1, 2))
    assert torch.equal(x, kept), "the clips themselves were changed"
    assert first.clips.keys() == second.clips.keys()
    assert all(torch.equal(first[k], second[k]) for k in first.clips)
    assert any(not torch.equal(first[k], other[k]) for k in first.clips)
    keys = list(first.clips)
    assert len(keys) < 2 or not torch.equal(first[keys[0]], first[keys[1]]), "two views got the same draws"
    expected = np.array([[body.any() for body in np.moveaxis(clip, -1, 0)] for clip in x.numpy()])
    assert np.array_equal(first.present.numpy(), expected)


@every_method
def test_a_clips_views_do_not_depend_on_the_other_clips(name: str) -> None:
    method = make_method(name)
    x, y = batch(seed=1), batch(seed=2)
    y[2] = x[2]
    strong = Policy(dataclasses.replace(get_method(name).recipe.augment, noise=0.1, blur=0.5, rotate=30.0), NTU25)
    first, second = (method.make_views(clips, strong, generator()) for clips in (x, y))
    for k in first.clips:
        assert torch.equal(first[k][2], second[k][2])
        assert not torch.equal(first[k][1], second[k][1])


# --- learning -------------------------------------------------------------------------------------------------------


@every_method
def test_thirty_steps_teach_something(name: str) -> None:
    """32 clips of four movements, 30 steps: neighbours share a class far above the chance of 1/4."""
    clips = make_clips(32)
    config = make_config(name, epochs=8, params=own_config(name, momentum=0.9, queue=64, hidden=64, projection=32))
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, name="adam", lr=3e-3))
    run = start(config, clips, np.arange(32), seed=0)
    epochs = list(pretrain(run))
    assert run.step == 32
    everything = torch.arange(32)
    z = extract(run.model, run.store, everything, everything)["joint"]
    labels = torch.from_numpy(clips.labels)
    similarity = torch.nn.functional.normalize(z, dim=1)
    hits = 0
    for i in range(32):
        rest = everything[everything != i]
        hits += int(weighted_knn(similarity[rest], labels[rest], similarity[i : i + 1], 4, 3, 0.1).argmax()) == int(
            labels[i]
        )
    assert hits / 32 > 0.6
    if name == "skeletonbyol":  # a queue's loss first rises while real keys replace the random ones
        assert epochs[-1].loss < 0.6 * epochs[0].loss
