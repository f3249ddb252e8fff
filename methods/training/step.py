"""One optimiser step, in the parts that a profile names. The plain path: a reader's reference, and a CPU's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

from methods.base import StepOutput
from methods.training.optim import learning_rate, set_learning_rate
from methods.training.run import Run

PARTS = ("load", "views", "forward", "backward", "optimiser", "momentum")
Mark = Callable[[str], None]


def take_step(run: Run, index: Tensor, generator: Generator, mark: Mark | None = None) -> StepOutput:
    """Train ``run`` on the clips ``index`` (batch,); views are drawn from ``generator``. Nothing is read back.

    ``mark(part)`` is called at the end of each of :data:`PARTS`, in that order.
    """
    set_learning_rate(run.optimiser, learning_rate(run.config.optim, run.progress))
    out = work(run, index, generator, run.progress, mark or unmarked)
    run.step += 1
    return out


def work(run: Run, index: Tensor, generator: Generator, progress: float, mark: Mark) -> StepOutput:
    """What of a step runs on the device: all but the schedules, which are the host's."""
    clips = run.store.take(index)
    mark("load")
    views = run.model.views(clips, generator)
    mark("views")
    out = run.model.loss(views, progress)
    mark("forward")
    run.optimiser.zero_grad(set_to_none=True)
    out.loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
    mark("backward")
    run.optimiser.step()
    mark("optimiser")
    run.model.after_step(progress)
    mark("momentum")
    return out


def unmarked(part: str) -> None:
    """Nobody is measuring, or nothing can be measured in parts: a recording."""
