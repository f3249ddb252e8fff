"""A cluster and its searches at one time, told to people and to scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tuning.launch.jobs import Job

if TYPE_CHECKING:
    from tuning.launch.ray_cluster import NodeInfo


@dataclass(frozen=True)
class RunState:
    """One search.

    ``line``: what `skeltune status` says of the copy here, or why there is none; ``summary``: the same as plain
    values; ``more``: its other lines. ``age``: of the copy, seconds, None for none. ``remark``: what is wrong, and the
    command that goes on.
    """

    run: str
    state: str
    job: str
    line: str
    summary: dict[str, Any] | None
    age: float | None
    folder: str
    remark: str = ""
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """A cluster and its searches at one time. ``trouble``: why the head could not be asked, or empty."""

    cluster: str
    trouble: str
    nodes: tuple[NodeInfo, ...]
    runs: tuple[RunState, ...]
    others: tuple[Job, ...] = field(default=())  # jobs that are no searches of ours, while they run

    def lines(self) -> list[str]:
        """For people."""
        return [*self._head(), *(line for run in self.runs for line in self._of(run)), *self._others()]

    def as_json(self) -> dict[str, Any]:
        """Plain values for scripts."""
        return asdict(self)

    def _head(self) -> list[str]:
        if self.trouble:
            return [f"{self.cluster}: cannot be asked: {self.trouble}", "what follows is what was last copied here"]
        alive = [node for node in self.nodes if node.alive]
        lines = [
            f"{self.cluster}: {counted(len(alive), 'node')}, {sum(n.cpu for n in alive):g} CPU, "
            f"{sum(n.gpu for n in alive):g} GPU"
        ]
        gone = {node.address: node.why for node in self.nodes if not node.alive}
        back = {node.address for node in alive}
        return lines + [f"  {address} is gone: {why}" for address, why in gone.items() if address not in back]

    def _of(self, run: RunState) -> list[str]:
        old = f"   [as of {age_text(run.age)} ago]" if self.trouble and run.age is not None else ""
        lines = [f"{run.line}{old}", f"  {run.state.lower() if run.state else 'no job'} {run.job}".rstrip()]
        return [*lines, *([f"  {run.remark}"] if run.remark else []), *(f"  {line}" for line in run.more)]

    def _others(self) -> list[str]:
        return [f"{job.id}: no search of ours, {job.state.lower()}" for job in self.others]


def age_text(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h`, `5 days`"""
    for unit, size, below in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172_800)):
        if seconds < below:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def counted(count: int, what: str) -> str:
    """`1 node`, `3 nodes`"""
    return f"{count} {what}{'' if count == 1 else 's'}"
