"""A CUDA graph's rules on a CPU: what was called is called again on the same memory, whatever Python would say now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

# What reads a value back to the host, or makes a shape of one: a graph cannot hold it.
READS_BACK = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
    torch.ops.aten.unique_dim.default,
    torch.ops.aten.bincount.default,
}
# What makes a tensor of Python numbers: a copy from the host at every step, and a constant in a recording.
FROM_HOST = {torch.ops.aten.lift_fresh.default}


class NotHeldFast(AssertionError):
    """A step did something that a graph cannot hold."""


class Watch(TorchDispatchMode):
    """Raises :class:`NotHeldFast` at the first call that reads back from the device or copies to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.check(func, args)
        return func(*args, **(kwargs or {}))

    def check(self, func: Any, args: Any) -> None:
        masked = func is torch.ops.aten.index.Tensor and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if func in READS_BACK or masked:
            raise NotHeldFast(f"{func} reads back from the device")
        if func in FROM_HOST:
            raise NotHeldFast(f"{func} copies numbers from the host")


class Tape(Watch):
    """Records every call under it; :meth:`replay` makes them again, each result into the memory it had."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.check(func, args)
        kwargs = kwargs or {}
        # By other names for the same memory: a call that turns a tensor round in place would turn it again and again.
        named = tree_map(_alias, (args, kwargs))
        out = func(*args, **kwargs)
        self.calls.append((func, *named, [_alias(t) for t in _fresh(out, (args, kwargs))]))
        return out

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, held in self.calls:
                made = _fresh(func(*args, **kwargs), (args, kwargs))
                for old, new in zip(held, made, strict=True):
                    if old.shape != new.shape:
                        raise NotHeldFast(f"{func} made another shape: {tuple(old.shape)}, {tuple(new.shape)}")
                    old.copy_(new)


def _alias(value: Any) -> Any:
    return torch.ops.aten.alias.default(value) if isinstance(value, Tensor) else value


def _fresh(out: Any, inputs: Any) -> list[Tensor]:
    """The tensors of ``out`` that have memory of their own: neither views of an input nor an input itself."""
    known = {t.untyped_storage().data_ptr() for t in tree_flatten(inputs)[0] if isinstance(t, Tensor)}
    return [t for t in tree_flatten(out)[0] if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in known]


def record_on_tape(body: Callable[[], None], views: Generator) -> Callable[[], None]:
    """In place of a CUDA graph. A recording there changes nothing, so that whatever it changed here is put back."""
    held = _all_state(body)
    draws, default = views.get_state(), torch.get_rng_state()
    tape = Tape()
    with tape:
        body()
    for tensor, before in held:
        tensor.copy_(before)
    views.set_state(draws)
    torch.set_rng_state(default)
    return tape.replay


def _all_state(body: Any) -> list[tuple[Tensor, Tensor]]:
    """Parameters, buffers and the optimiser's state of the run that ``body`` closes over, with copies."""
    run = body.__closure__[0].cell_contents.run
    tensors = [p.detach() for p in run.model.parameters()] + list(run.model.buffers())
    for state in run.optimiser.state.values():
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return [(t, t.clone()) for t in tensors]
