"""The optimiser and its learning rate, both plain functions of the config and of progress."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from methods.recipe import OptimConfig


def make_optimiser(config: OptimConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD or Adam over the trainable ``parameters``; weight decay is added to every gradient (L2), as published."""
    trainable = [p for p in parameters if p.requires_grad]
    if config.name == "adam":
        return torch.optim.Adam(trainable, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        trainable,
        lr=config.lr,
        momentum=config.sgd_momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )


def learning_rate(config: OptimConfig, progress: float) -> float:
    """The rate at ``progress`` in [0, 1) of the whole run.

    A warm-up rises linearly from lr / 100; a cosine falls to 0 over what follows the warm-up; ``step`` multiplies once
    by ``step_factor`` when ``step_at`` of the run lies behind.
    """
    if progress < config.warmup:
        return config.lr * max(0.01, progress / config.warmup)
    if config.schedule == "cosine":
        after = (progress - config.warmup) / (1 - config.warmup)
        return config.lr * 0.5 * (1 + math.cos(math.pi * after))
    if config.schedule == "step" and progress >= config.step_at:
        return config.lr * config.step_factor
    return config.lr


def rates_on_device(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Let every group read its rate from the device, and step by one fused kernel: what a recorded step needs."""
    for group in optimiser.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device).clone()
        group["fused"], group["foreach"] = True, False


def plain_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state without what only a recorded step needs: either path can go on from it."""
    state = optimiser.state_dict()
    groups = [{**g, "lr": float(g["lr"]), "fused": None, "foreach": None} for g in state["param_groups"]]
    return {**state, "param_groups": groups}


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this rate; where a graph reads it from the device, there."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
