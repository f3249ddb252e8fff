"""What a running search stands on: the cluster as it is now, the slots on it, and what its trials share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tuning.plan import Plan
from tuning.slots import Slots, find_slots, fitting
from tuning.stored import Stored
from tuning.watching.preflight import leave_mark, preflight
from tuning.watching.view import ClusterView
from tuning.workplace import Workplace


@dataclass(frozen=True)
class Ground:
    """``view``: the cluster; ``slots``: what a trial takes of it; ``place``: what all trials share."""

    view: ClusterView
    slots: Slots
    place: Workplace
    fits: Callable[[Mapping[str, float]], int]  # how many trials fit on a cluster with such resources

    def places(self) -> int:
        """How many trials fit on the cluster as it is now."""
        return self.fits(self.view.now)


def prepare(
    plan: Plan, view: ClusterView, say: Callable[[str], None], *, stored: Stored | None, cluster: bool
) -> Ground:
    """Find the slots and look at every node of a ``cluster``. ``stored``: its copies in a store.

    Raises ``InputError`` when no trial fits, or when no node can work.
    """
    slots = find_slots(plan.spec.budget, view.resources)
    # A GPU that was reserved and does not answer is an error of that node, not a reason to train on its CPU.
    device = "cuda" if slots.gpu else "auto"
    mark = leave_mark(plan.folder) if cluster and stored is None else ""
    store, life = (stored.store.url, stored.life) if stored is not None else ("", 0)
    folder = str(plan.folder.absolute())
    graphs = plan.spec.budget.per_trial.graphs
    place = Workplace(plan.source, plan.probe, slots.threads, device, folder, mark, store, life, graphs)
    if cluster:
        preflight(place, view, say)
    return Ground(view, slots, place, lambda cluster: fitting(slots, cluster))
