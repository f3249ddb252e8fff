"""Steps replayed as CUDA graphs: one launch for a whole step, views included, with the numbers of the plain path.

A step of a small network is bound by its launches: a thousand kernels of a few microseconds each. Recorded once, they
are launched together. What a recording holds fast is everything that Python decided: shapes, addresses, numbers. So the
clips of a step come through one index tensor, rates and progress through tensors that are refilled, random numbers from
generators that the graph knows, and each stage of a method is recorded by itself. What cannot be held fast (a size that
is read back, a packed sequence) says so by :attr:`methods.base.Method.not_captured` and goes the plain path.

Source      PyTorch's notes on CUDA graphs: warm-up on a side stream, gradients made inside the recording.
Departures  The warm-up steps are steps of the run, not repetitions of one, so that nothing is trained on twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from methods.base import StepOutput
from methods.nn.progress import Progress
from methods.training.optim import learning_rate, rates_on_device, set_learning_rate
from methods.training.run import Run
from methods.training.step import unmarked, work

WARM_UP = 3  # steps of a stage before it is recorded: libraries choose their kernels, optimisers make their state
Replay = Callable[[], None]
Record = Callable[[Callable[[], None], Generator], Replay]


def cuda_graph(body: Callable[[], None], views: Generator) -> Replay:
    """Record ``body``, which is not run by that; what it draws from ``views`` and from the device's own generator is
    drawn anew at each replay."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(views)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        body()
    return graph.replay  # type: ignore[no-any-return]


def why_not(run: Run) -> str:
    """Why ``run`` takes the plain path although it may be captured; empty where it does not."""
    encoders = run.model.encoders()
    real = any(getattr(encoder.config, "bodies", "all") == "real" for encoder in encoders)
    if real and run.strata is None and run.store.clips.data.shape[4] > 1:
        return "how many bodies a batch has is read back: encoder.bodies: real needs optim.order: stratified"
    if run.store.home.type != run.device.type:
        return "the clips do not fit on the device"
    return run.model.not_captured()


@dataclass
class Replayer:
    """The tensors that recordings of one run read and write, and the recordings themselves by stage.

    ``record`` makes a replayable of a body: :func:`cuda_graph`, or in tests whatever holds a recording to the same
    rules on a CPU.
    """

    run: Run
    record: Record = cuda_graph
    recordings: dict[int, Replay] = field(default_factory=dict)
    rows: dict[int, tuple[list[str], Tensor]] = field(default_factory=dict)  # stage -> names and (1 + logs,)
    warmed: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        run = self.run
        self.index = torch.zeros(run.config.optim.batch, dtype=torch.long, device=run.device)
        self.progress = torch.zeros((), dtype=torch.float64, device=run.device)
        self.views = Generator(device=run.device)
        rates_on_device(run.optimiser, run.device)

    def stage(self) -> int:
        """The number of the stage that the next step belongs to."""
        return sum(run_start <= self.run.progress for run_start in self.run.model.stage_starts()) - 1

    def step(self, index: Tensor) -> tuple[list[str], Tensor]:
        """The next step on clips ``index`` (batch,): names of logs, and (1 + logs,), the loss first."""
        run, stage = self.run, self.stage()
        self.index.copy_(index)
        self.progress.fill_(run.progress)
        set_learning_rate(run.optimiser, learning_rate(run.config.optim, run.progress))
        if self.warmed.setdefault(stage, 0) < WARM_UP:
            self.warmed[stage] += 1
            names, row = self._row(self._work())
        else:
            if stage not in self.recordings:
                run.optimiser.zero_grad(set_to_none=True)  # the recording makes its own
                self.recordings[stage] = self.record(lambda: self._recorded(stage), self.views)
            self.recordings[stage]()
            names, row = self.rows[stage]
            row = row.clone()  # the next replay overwrites it
        run.step += 1
        return names, row

    def _work(self) -> StepOutput:
        progress = Progress(self.run.progress, self.progress)
        return work(self.run, self.index, self.views, progress, unmarked)

    def _recorded(self, stage: int) -> None:
        self.rows[stage] = self._row(self._work())

    @staticmethod
    def _row(out: StepOutput) -> tuple[list[str], Tensor]:
        values = [out.loss.detach(), *out.logs.values()]
        return list(out.logs), torch.stack([value.to(out.loss.dtype) for value in values])


def epoch(run: Run, order: Tensor, views_seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """All steps of ``order`` (steps, batch): losses (steps,), and the mean of each log that came up.

    Recordings are made in the first epoch of a stage and kept with the run.
    """
    if not isinstance(run.replayer, Replayer):
        run.replayer = Replayer(run)
    replayer = run.replayer
    replayer.views.manual_seed(views_seed)
    rows: dict[str, list[Tensor]] = {}
    losses = []
    for index in order:
        names, row = replayer.step(index)
        losses.append(row[0])
        for i, name in enumerate(names, 1):
            rows.setdefault(name, []).append(row[i])
    return torch.stack(losses), {name: torch.stack(values).mean() for name, values in rows.items()}
