"""What goes wrong with a trial's worker, and what of it speaks against the configuration that it trained."""

from __future__ import annotations

from tuning.engine.state import Failure, TrialState

ERROR = "error"  # the trial raised
KILLED = "killed"  # its process died, and nothing else did
MEMORY = "memory"  # it, or its machine, ran out of memory (the host's or the GPU's)
HUNG = "hung"  # nothing was heard of it for too long, so it was killed
LOST = "lost"  # its machine died, was taken away, or could not be reached
STORAGE = "storage"  # its checkpoint could not be kept or read, although it was tried for minutes

NOBODYS_FAULT = (LOST, STORAGE)
IN_A_ROW = 3


def counts(trial: TrialState, kind: str) -> bool:
    """Whether a failure is one of the few that a configuration may have (``budget.retries``).

    A lost machine says nothing about a configuration. Yet one that brings its machine down each time would be tried for
    ever: when it happened three times in a row without an epoch in between, the next ones count.
    """
    if kind not in NOBODYS_FAULT:
        return True
    row = 0
    for failure in reversed(trial.failures):
        if failure.kind not in NOBODYS_FAULT or failure.epochs != trial.epochs:
            break
        row += 1
    return row >= IN_A_ROW


def lacked_memory(trial: TrialState) -> bool:
    """Whether the last failure was for want of memory: a neighbour may have had what it lacked."""
    return bool(trial.failures) and trial.failures[-1].kind == MEMORY


def speaks_against(trial: TrialState) -> tuple[Failure, ...]:
    """The failures that count."""
    return tuple(failure for failure in trial.failures if failure.counted)
