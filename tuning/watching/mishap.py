"""What a failed trial's error says: of which kind it is, in one line, and where it happened.

Ray has a dozen classes for a worker that is gone, and pickles them; the text is what all of them have, and what can be
read without unpickling anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuning.engine.mishaps import ERROR, HUNG, KILLED, LOST, MEMORY, STORAGE

LONGEST = 300
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r"\b(?:ip|IP)[:=] ?([0-9a-fA-F.:]+[0-9a-fA-F])")

# Looked for in this order: a machine that is gone takes its workers along, and an error of ours names its own kind.
_SIGNS: tuple[tuple[str, str, str], ...] = (
    (HUNG, "killed by `ray.kill`", "nothing was heard of it for too long, so its worker was killed"),
    (LOST, "node has died", "its node died"),
    (LOST, "node was terminated", "its node was terminated"),
    (LOST, "preempted", "its node was taken away (preempted)"),
    (LOST, "received a SIGTERM", "its worker was told to end from outside"),
    (LOST, "receives a SIGTERM", "its worker was told to end from outside"),
    (LOST, "is unavailable", "its node could not be reached"),
    (LOST, "NodeDiedError", "its node died"),
    (LOST, "local raylet died", "its node died"),
    (MEMORY, "running low on memory", "its node ran out of memory, and Ray ended it"),
    (MEMORY, "OutOfMemoryError", "out of memory"),
    (MEMORY, "CUDA out of memory", "out of GPU memory"),
    (MEMORY, "can't allocate memory", "out of memory"),
    (MEMORY, "MemoryError", "out of memory"),
    (STORAGE, "WorkFailed", "its storage was away"),
    (KILLED, "worker process has died", "the worker process died"),
    (KILLED, "The worker died", "the worker process died"),
    (KILLED, "died unexpectedly", "the worker process died"),
)


@dataclass(frozen=True)
class Mishap:
    """One failure: its ``kind`` (:mod:`tuning.engine.mishaps`), a ``line`` for people, the ``node``'s address or ""."""

    kind: str
    line: str
    node: str = ""


def read_mishap(text: str) -> Mishap:
    """What an error's text tells. What the trial's own code raised is told by the last line of its traceback."""
    text = _COLOUR.sub("", text)
    found = _ADDRESS.search(text)
    node = found[1] if found else ""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    raised = (bool(found) and "Traceback" in text) or '.py", line' in text
    for kind, sign, said in _SIGNS:
        if sign in text:
            line = lines[-1][:LONGEST] if raised and kind in (MEMORY, STORAGE) else said
            return Mishap(kind, line, node)
    return Mishap(ERROR if lines else KILLED, lines[-1][:LONGEST] if lines else "the worker process died", node)
