"""Every node looked at before the first trial: whether it sees data and checkpoints, and has the same libraries."""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from methods.errors import InputError
from tuning.files import write_text
from tuning.run_files import MARK_FILE

if TYPE_CHECKING:
    from tuning.watching.view import ClusterView
    from tuning.workplace import Workplace


LIMIT_S = 180.0  # a node's first process imports torch from a shared disk


def leave_mark(folder: Path) -> str:
    """A word in the run folder by which a node knows that it sees this folder, and not one of its own of that name."""
    mark = secrets.token_hex(8)
    write_text(folder / MARK_FILE, mark + "\n")
    return mark


def versions() -> dict[str, str]:
    """What a run may depend on."""
    names = ("torch", "numpy", "ray")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def preflight(place: Workplace, view: ClusterView, say: Callable[[str], None]) -> None:
    """Look at every node. Bad ones are told and avoided. Raises ``InputError`` with all faults if none is left.

    A node that does not answer is left to Ray; one that joins later is looked at by its first trial.
    """

    @ray.remote(num_cpus=0, max_retries=0)
    def look(place: Workplace) -> tuple[list[str], dict[str, str]]:
        from tuning.watching.preflight import versions
        from tuning.workplace import faults_here

        return faults_here(place), versions()

    asked = []
    for address, node in view.nodes():
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        asked.append((address, look.options(scheduling_strategy=there).remote(place)))
    answers = [answer for _, answer in asked]
    ready, _ = ray.wait(answers, num_returns=len(answers), timeout=LIMIT_S) if asked else ([], [])
    bad: dict[str, list[str]] = {}
    fit = 0
    for address, answer in asked:
        if answer not in ready:
            say(f"note: node {address} did not answer for {LIMIT_S:.0f} s")
            continue
        faults = _answer(answer, say, address)
        if faults:
            bad[address] = faults
        else:
            fit += 1
    lines = [f"node {address}: {fault}" for address, faults in sorted(bad.items()) for fault in faults]
    if bad and not fit:
        raise InputError(*lines)
    for line in lines:
        say(f"note: {line}; no trial is given to it")
    for address in bad:
        view.bad.unfit(address)


def _answer(answer: Any, say: Callable[[str], None], address: str) -> list[str]:
    try:
        faults, found = ray.get(answer)
    except Exception as error:  # whatever Ray raises: that node cannot even start a process of ours
        last = str(error).strip().splitlines()
        return [f"cannot run a process of ours ({last[-1][:200] if last else type(error).__name__})"]
    mine = versions()
    other = [f"{name} {found[name]} (here {mine[name]})" for name in mine if found[name] != mine[name]]
    if other:
        say(f"note: node {address} has {', '.join(other)}: trials there may differ in their last digits")
    return list(faults)
