"""What Ray writes about a worker that is gone: texts as Ray 2.60 wrote them, shortened in the middle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.watching.mishap import LONGEST, read_mishap

DIED = (
    "Failure # 1 (occurred at 2026-11-21_18-49-19)\nThe actor died unexpectedly before finishing this task.\n"
    "\tclass_name: Trial\n\tactor_id: 570c\n\tpid: 8892\n\tip: 10.0.0.12\n"
)
RAISED = (
    "Failure # 1 (occurred at 2026-11-21_18-49-19)\n\x1b[36mray::Trial.train()\x1b[39m (pid=8975, ip=10.0.0.13, "
    'actor_id=6d92, repr=<Trial>)\n  File "trainable.py", line 326, in train\n    result = self.step()\n'
)


@pytest.mark.parametrize(
    ("text", "kind", "node", "line"),
    [
        (
            f"{DIED}The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit "
            "detail: Worker unexpectedly exits with a connection error code 2. End of file. Some common "
            "causes include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop",
            "killed",
            "10.0.0.12",
            "the worker process died",
        ),
        (
            f"{DIED}The actor is dead because its worker process has died. Worker exits with an exit code 1. The "
            "process receives a SIGTERM.",
            "lost",
            "10.0.0.12",
            "its worker was told to end from outside",
        ),
        (
            f"{DIED}The actor is dead because it was killed by `ray.kill`.",
            "hung",
            "10.0.0.12",
            "nothing was heard of it for too long, so its worker was killed",
        ),
        (
            f"{DIED}The actor died because its node has died. Node Id: 66028452\n\tthe actor's node was terminated: "
            "health check failed due to missing too many heartbeats",
            "lost",
            "10.0.0.12",
            "its node died",
        ),
        (
            "Failure # 1\nThe actor 2ccf is unavailable: The actor is temporarily unavailable: RpcError: Socket closed "
            "rpc_code: 14. The task may or may not have been executed on the actor.",
            "lost",
            "",
            "its node could not be reached",
        ),
        (
            "Failure # 1\n1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
            "10.0.0.14, ID: 94548e) was 22.83GB used / 23.54GB limit (0.97)\nOOM kill reason: above threshold",
            "memory",
            "10.0.0.14",
            "its node ran out of memory, and Ray ended it",
        ),
        (
            f"{RAISED}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            "memory",
            "10.0.0.13",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        ),
        (f"{RAISED}MemoryError: no", "memory", "10.0.0.13", "MemoryError: no"),
        (
            f"{RAISED}methods.errors.WorkFailed: the checkpoint of t0003: Input/output error; gave up after 300 s",
            "storage",
            "10.0.0.13",
            "methods.errors.WorkFailed: the checkpoint of t0003: Input/output error; gave up after 300 s",
        ),
        (f"{RAISED}ValueError: wrong", "error", "10.0.0.13", "ValueError: wrong"),
        ("", "killed", "", "the worker process died"),
    ],
)
def test_kind_node_and_line(text, kind, node, line) -> None:
    found = read_mishap(text)
    assert (found.kind, found.node, found.line) == (kind, node, line)


@given(st.text(max_size=2000))
def test_any_text_is_told_in_one_line(text) -> None:
    found = read_mishap(text)
    assert found.line
    assert len(found.line) <= LONGEST
    assert "\n" not in found.line
