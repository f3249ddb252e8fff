"""The GRUs of CMD's and CRRL's public codes as those run them: frame by frame, and over packed sequences.

Written anew from the published description. N clips, T frames, F features a frame, D width of the output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from methods.nn.gru import GruConfig


def flat_frames(clips: Tensor) -> Tensor:
    """Clips (N, C, T, V, M) -> (N, T, F), the coordinates of all joints of all bodies of a frame in a row."""
    n, c, t, v, m = clips.shape
    return clips.permute(0, 2, 3, 1, 4).contiguous().view(n, t, v * c * m)


def bidirectional(config: GruConfig, features: int) -> nn.GRU:
    """The recurrent network of the configuration."""
    return nn.GRU(
        features,
        config.hidden,
        config.layers,
        batch_first=True,
        dropout=config.dropout if config.layers > 1 else 0.0,
        bidirectional=config.bidirectional,
    )


class FrameGRU(nn.Module):
    """CMD's: (N, T, F) -> what stands at the last frame (N, D), one frame handed over at a time.

    The state is carried from call to call, so that both directions run forward; what comes out of a call is put behind
    what came before, and of all of it each clip's last frame is read, clip by clip. With ``stepwise`` off (not a thing
    of the code's) it is one call, of which ``pool`` takes either direction where it ends, or both at the last frame.
    """

    def __init__(self, config: GruConfig, features: int) -> None:
        super().__init__()
        self.stepwise, self.ends, self.hidden = config.stepwise, config.pool == "ends", config.hidden
        self.gru = bidirectional(config, features)

    def forward(self, x: Tensor) -> Tensor:
        self.gru.flatten_parameters()
        return self._stepwise(x) if self.stepwise else self._at_once(x)

    def _stepwise(self, x: Tensor) -> Tensor:
        clips, frames, _ = x.shape
        seen, state = self.gru(x[:, :1])
        for t in range(1, frames):
            now, state = self.gru(x[:, t : t + 1], state)
            seen = torch.cat((seen, now), dim=1)
        last: Tensor = seen.new_empty(clips, seen.shape[2])
        for clip in range(clips):
            last[clip] = seen[clip, frames - 1]
        return last

    def _at_once(self, x: Tensor) -> Tensor:
        seen: Tensor = self.gru(x)[0]
        if self.ends:
            return torch.cat([seen[:, -1, : self.hidden], seen[:, 0, self.hidden :]], dim=1)
        return seen[:, -1]


class PackedGRU(nn.Module):
    """CRRL's: (N, T, F) of N descending ``lengths`` -> (N, L, D), L the longest, zero after each end."""

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.gru = gru

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        self.gru.flatten_parameters()
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        states: Tensor = pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]
        return states


def average(states: Tensor, lengths: list[int]) -> Tensor:
    """(N, L, D), zero after each end -> (N, D): the mean over a clip's own frames."""
    return states.sum(1) / torch.tensor(lengths, dtype=states.dtype, device=states.device)[:, None]
