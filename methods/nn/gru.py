"""A bidirectional GRU over frames, as in CMD and CRRL: all joints of all bodies are one vector a frame.

Source      Mao et al. (CMD), arXiv:2208.12448, and its public code: batch norm over the V*C*M features, 3 layers of
            1024, read at the last frame. Wang et al. (CRRL), arXiv:2111.11051, and its public code: 2 layers of 256, no
            norm, frames past a clip's end left out, the mean over the others.
Departures  ``stepwise``: CMD's code hands its bidirectional GRU one frame at a time, so that its "backward" cells also
            run forward in time. Here this is two causal passes a layer with the same weights, not a loop over frames;
            ``stepwise: false`` is a true bidirectional GRU. Any layout, number of bodies, channels and frames.
Shapes      N clips, C channels, T frames, V joints, M persons, F = V*C*M features a frame (in that order), H hidden.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from methods.fields import require, tunable
from methods.filled import valid_lengths
from methods.nn.encoder import Encoder, require_shape
from methods.nn.recurrence import gru_layer
from methods.nn.stgcn import ScaleNorm

if TYPE_CHECKING:
    from methods.data.layouts import Layout

POOLS = ("last", "mean", "max", "ends")


@dataclass(frozen=True)
class GruConfig:
    """Everything a YAML may set under ``encoder`` for a method that uses a GRU."""

    name: str = tunable("gru", choice=("gru",), doc="architecture")
    hidden: int = tunable(256, choice=(128, 256, 512, 1024), doc="H, width of the state of each direction")
    layers: int = tunable(2, int=(1, 3), doc="number of layers")
    bidirectional: bool = tunable(True, choice=(True, False), doc="two directions; D is then 2 H, else H")
    stepwise: bool = tunable(False, doc="both directions run forward in time (CMD's code: true)")
    input_norm: str = tunable(
        "joint", choice=("joint", "scale", "none"), doc="batch norm per joint, axis and body (CMD), one scale, or none"
    )
    dropout: float = tunable(0.0, uniform=(0.0, 0.5), doc="dropout between layers")
    pool: str = tunable("mean", choice=POOLS, doc="over frames; `ends`: either direction at its last step (CMD: last)")
    lengths: str = tunable("all", choice=("all", "valid"), doc="`valid` ends a clip at its last frame that is not zero")
    init: str = tunable("torch", choice=("xavier", "torch"), doc="Xavier-uniform matrices as CMD, or torch's own")
    precision: str = tunable("fp32", choice=("fp32", "bf16"), doc="bf16 runs the recurrence under autocast")

    def __post_init__(self) -> None:
        require(self.name == "gru", f"encoder.name must be gru, got {self.name!r}")
        require(self.hidden >= 1, f"encoder.hidden must be at least 1, got {self.hidden}")
        require(self.layers >= 1, f"encoder.layers must be at least 1, got {self.layers}")
        require(
            self.input_norm in ("joint", "scale", "none"),
            f"encoder.input_norm must be joint, scale or none, got {self.input_norm!r}",
        )
        require(0 <= self.dropout < 1, f"encoder.dropout must lie in [0, 1), got {self.dropout}")
        require(self.pool in POOLS, f"encoder.pool must be one of {POOLS}, got {self.pool!r}")
        require(self.lengths in ("all", "valid"), f"encoder.lengths must be all or valid, got {self.lengths!r}")
        require(self.init in ("xavier", "torch"), f"encoder.init must be xavier or torch, got {self.init!r}")
        require(self.precision in ("fp32", "bf16"), f"encoder.precision must be fp32 or bf16, got {self.precision!r}")


class GruEncoder(Encoder):
    """Encoder: clips (N, C, T, V, M) -> features (N, D), D = 2 H (H with one direction).

    Bodies lie side by side in a frame's vector, an absent one as zeros; ``present`` is not read. Weights have the
    names that ``nn.GRU`` gives them, whatever ``stepwise`` says. ``frames`` is not read: any T.
    """

    temporal_stride = 1

    def __init__(
        self, config: GruConfig, layout: Layout, channels: int = 3, *, frames: int = 0, persons: int = 2
    ) -> None:
        super().__init__()
        self.config = config
        self.sizes = {"channels": channels, "joints": layout.num_joints, "persons": persons}
        features = layout.num_joints * channels * persons
        norms = {"joint": nn.BatchNorm1d, "scale": ScaleNorm, "none": nn.Identity}
        self.norm = norms[config.input_norm](features)
        self.gru = nn.GRU(
            features,
            config.hidden,
            config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
            bidirectional=config.bidirectional,
        )
        self.dim = config.hidden * (2 if config.bidirectional else 1)
        if config.init == "xavier":
            for weight in self.gru.parameters():
                if weight.dim() == 2:
                    nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        lengths = valid_lengths(x) if self.config.lengths == "valid" else None
        return self.pool(self.states(x, lengths), lengths)

    def states(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the last layer holds at each frame, (N, T, D); zero after a clip's end.

        ``lengths``: (N,) frames of each clip (N, C, T, V, M), from 1 to T; None for all T of them.
        """
        require_shape(x, **self.sizes)
        flat = x.permute(0, 3, 1, 4, 2).flatten(1, 3)  # (N, V*C*M, T)
        flat = self.norm(flat).transpose(1, 2)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            if self.config.stepwise or (lengths is None and _in_one_product(flat)):
                n, t, _ = flat.shape
                states = self._layer_by_layer(flat.transpose(0, 1).flatten(0, 1), [n] * t)
                states = states.view(t, n, -1).transpose(0, 1)
            elif lengths is None:
                states = self.gru(flat)[0]
            else:
                return self._packed(flat, lengths).to(x.dtype)
        states = states.to(x.dtype)
        return states if lengths is None else states * _inside(states, lengths)

    def pool(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(N, T, D) of :meth:`states` -> (N, D), over each clip's own frames."""
        n, t, d = states.shape
        lengths = torch.full((n,), t, device=states.device) if lengths is None else lengths.to(states.device)
        if self.config.pool == "mean":
            return states.sum(1) / lengths[:, None]  # zero beyond the end
        if self.config.pool == "max":
            return states.where(_inside(states, lengths), -torch.inf).amax(1)
        last = states[torch.arange(n, device=states.device), lengths - 1]
        if self.config.pool == "last" or self.config.stepwise or not self.config.bidirectional:
            return last
        return torch.cat([last[:, : d // 2], states[:, 0, d // 2 :]], 1)

    def _packed(self, flat: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(flat, lengths.cpu(), batch_first=True, enforce_sorted=False)
        if _in_one_product(flat):
            rows = self._layer_by_layer(packed.data, packed.batch_sizes.tolist())
            out = PackedSequence(rows, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        else:
            out = self.gru(packed)[0]
        states: Tensor = pad_packed_sequence(out, batch_first=True, total_length=flat.shape[1])[0]
        return states

    def _layer_by_layer(self, x: Tensor, sizes: list[int]) -> Tensor:
        """Rows (R, F) of a packed sequence, ``sizes`` of each frame -> (R, D).

        With ``stepwise`` every cell of every layer runs from the first frame to the last: its state at a frame depends
        on the frames before it only, so handing over frame by frame and running the whole sequence give the same; with
        both directions side by side that is two passes a layer.
        """
        sides = ("", "_reverse") if self.config.bidirectional else ("",)
        for layer in range(self.config.layers):
            if layer:
                x = dropout(x, self.gru.dropout, self.gru.training)
            x = torch.cat([self._pass(x, sizes, layer, side) for side in sides], 1)
        return x

    def _pass(self, x: Tensor, sizes: list[int], layer: int, side: str) -> Tensor:
        """(R, F) -> (R, H): one cell over all frames."""
        cell = f"l{layer}{side}"
        weights = [getattr(self.gru, f"{name}_{cell}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        if _in_one_product(x):
            return gru_layer(x, sizes, weights, backwards=bool(side) and not self.config.stepwise)
        # Only ``stepwise`` comes here: every clip has all frames.
        start = x.new_zeros(1, sizes[0], self.config.hidden)
        frames = x.view(len(sizes), sizes[0], -1)
        with warnings.catch_warnings():
            # cuDNN copies the weights of one cell together at each call: a few megabytes beside T steps of work.
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
            return torch.gru(frames, start, weights, True, 1, 0.0, self.training, False, False)[0].flatten(0, 1)


def _in_one_product(x: Tensor) -> bool:
    """Whether gradients of the weights are to be had in one product over all frames: on a CPU, where it pays."""
    return x.is_cpu and not torch.is_autocast_enabled("cpu")


def _inside(states: Tensor, lengths: Tensor) -> Tensor:
    """(N, T, 1) bool: the frames before each clip's end."""
    frames = torch.arange(states.shape[1], device=states.device)
    return (frames < lengths.to(states.device)[:, None])[..., None]
