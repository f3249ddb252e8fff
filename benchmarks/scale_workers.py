"""Simulated workers of a large cluster: what they report, how they fail, and how long they wait for one driver."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tuning.engine.mishaps import ERROR, HUNG, KILLED, MEMORY, STORAGE
from tuning.engine.noise import encode_correct

STREAMS = ("joint", "motion", "bone")
KINDS, SHARES = (ERROR, KILLED, MEMORY, HUNG, STORAGE), (0.2, 0.3, 0.2, 0.1, 0.2)
BACK_S = 180.0  # after which a lost node is there again
SUBJECTS = 20


@dataclass(frozen=True)
class Cluster:
    """``fails``: the share of segments whose worker fails, two fifths of them as a node is lost with all its workers.

    ``epoch_s``: the median seconds of an epoch, log-normal by trial; a tenth of the machines take half as long again.
    """

    workers: int = 512
    per_node: int = 8
    epoch_s: float = 60.0
    fails: float = 0.01
    diverges: float = 0.02
    clips: int = 6000
    seed: int = 0

    @property
    def nodes(self) -> int:
        return -(-self.workers // self.per_node)

    def node(self, worker: int) -> str:
        number = worker // self.per_node
        return f"10.0.{number // 250}.{number % 250 + 1}"


class Outcomes:
    """What an epoch of a trial gives, in the shape of :meth:`tuning.session.Session.step`. Seeded, not timed."""

    def __init__(self, cluster: Cluster, rungs: Sequence[int], mark: int) -> None:
        self.cluster, self.rungs, self.mark = cluster, frozenset(rungs), mark
        self.top = max(rungs)
        self.rng = np.random.default_rng(cluster.seed)
        self._hard = self.rng.random(cluster.clips)
        self._pace: dict[int, float] = {}

    def seconds(self, trial: int, worker: int) -> float:
        """Of the next epoch."""
        if trial not in self._pace:
            self._pace[trial] = float(self.rng.lognormal(0.0, 0.25))
        slow = 1.5 if worker // self.cluster.per_node % 10 == 9 else 1.0
        return self.cluster.epoch_s * self._pace[trial] * slow * float(self.rng.uniform(0.95, 1.05))

    def segment_fails(self) -> str | None:
        """The kind of a failure somewhere in a segment that begins, but for lost nodes."""
        return str(self.rng.choice(KINDS, p=SHARES)) if self.rng.random() < 0.6 * self.cluster.fails else None

    def node_lost(self) -> bool:
        """Whether a node goes while this segment begins: so often that its workers are the other failures."""
        return bool(self.rng.random() < 0.4 * self.cluster.fails / self.cluster.per_node)

    def result(self, trial: int, draws: Mapping[str, Any], epoch: int, seconds: float, now: float) -> dict[str, Any]:
        """One epoch's result, without the node."""
        if self.rng.random() < self.cluster.diverges / 4 and epoch <= 2:
            return {"epoch": epoch, "rung": False, "ended": "diverged", "detail": "the loss is NaN", "done": True}
        noise = self.rng.standard_normal(8)
        found: dict[str, Any] = {
            "epoch": epoch, "rung": epoch in self.rungs, "train_loss": 5.0 / epoch + 0.01 * float(noise[0]),
            "spread": 0.5 + 0.01 * float(noise[1]), "lr": 0.1,
            "logs": {f"{s}_loss": float(noise[2 + i]) for i, s in enumerate(STREAMS)},
            "done": epoch >= self.top, "seconds": seconds, "clock": now,
        }  # fmt: skip
        return found | self._score(draws, epoch, noise) if epoch in self.rungs else found

    def _score(self, draws: Mapping[str, Any], epoch: int, noise: Any) -> dict[str, Any]:
        away = sum((math.log(v) % 1 - 0.3) ** 2 for v in draws.values() if isinstance(v, float) and v > 0)
        good = (0.75 - 0.1 * away) * (1 - 0.4 / epoch) + 0.01 * float(noise[5])
        correct = self._hard + 0.15 * self.rng.standard_normal(len(self._hard)) < good
        top1 = float(correct.mean())
        return {
            "top1": top1, "loss": 2.0 - top1 + 0.01 * float(noise[6]),
            "streams": {s: [top1 - 0.02 * i, 1.0] for i, s in enumerate(STREAMS)}, "fuse": [0.6, 0.6, 0.4],
            "clips": len(correct), "parameters": 2_500_000, "correct": encode_correct(correct), "probed": self.mark,
        }  # fmt: skip


class Call(NamedTuple):
    """One call of the driver: for whom, seconds since this worker's last answer, what it was, seconds it took by the
    wall, in CPU time of its thread and on the disk, and how many trials were known then.
    """

    worker: int
    think: float
    kind: str
    wall: float
    cpu: float
    disk: float
    trials: int

    @property
    def service(self) -> float:
        """What it would take where nobody else wants the core."""
        return self.cpu + self.disk


def idle_share(calls: Sequence[Call], scale: float = 1.0, extra_s: float = 0.0) -> tuple[float, float]:
    """The share of its time that a worker waits for an answer, and the share that the driver is at work.

    The measured calls once more, each worker's in their order, before one server that takes who came first. ``scale``:
    epochs so many times as long; ``extra_s``: what each report takes besides (Ray's own).
    """
    left: dict[int, deque[Call]] = defaultdict(deque)
    for call in calls:
        left[call.worker].append(call)
    heap = [(queue[0].think * scale, worker) for worker, queue in left.items()]
    heapq.heapify(heap)
    free = waited = worked = busy = 0.0
    while heap:
        arrival, worker = heapq.heappop(heap)
        call = left[worker].popleft()
        service = call.service + (0.0 if call.kind.startswith("ask") else extra_s)
        free = max(free, arrival) + service
        waited, worked, busy = waited + free - arrival, worked + call.think * scale, busy + service
        if left[worker]:
            heapq.heappush(heap, (free + left[worker][0].think * scale, worker))
    return waited / max(waited + worked, 1e-12), busy / max(free, 1e-12)


class Seat:
    """One worker: which trial it has (None: free), the epoch it does, where it fails, and when it was last answered."""

    def __init__(self) -> None:
        self.trial: int | None = None
        self.epoch = 0
        self.seconds = 0.0
        self.fails: str | None = None
        self.answered = 0.0
        self.turn = 0  # an event of an earlier turn is void: the node was lost meanwhile


class Agenda:
    """What comes next, in simulated seconds: (time, worker, turn)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, int]] = []
        self._order = 0
        self.now = 0.0

    def put(self, when: float, worker: int, turn: int) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, worker, turn))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while self._heap:
            self.now, _, worker, turn = heapq.heappop(self._heap)
            yield worker, turn


def on_node(cluster: Cluster, worker: int) -> range:
    """The workers of the node that ``worker`` is on."""
    first = worker - worker % cluster.per_node
    return range(first, min(first + cluster.per_node, cluster.workers))
