"""An official parameter's place with us, and the parts that all repositories of a family name alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from methods.errors import InputError


@dataclass(frozen=True)
class Place:
    """Our name of an official entry, and how that lies: ``same``, ``transposed``, or ``scalar`` (theirs is (1,))."""

    name: str
    lies: str = "same"

    def ours(self, theirs: Tensor) -> Tensor:
        """An official tensor as we hold it."""
        if self.lies == "transposed":
            return theirs.T.contiguous()
        return theirs.reshape(()) if self.lies == "scalar" else theirs

    def theirs(self, ours: Tensor) -> Tensor:
        """Our tensor as the official code holds it."""
        if self.lies == "transposed":
            return ours.T
        return ours.reshape(1) if self.lies == "scalar" else ours


Placing = Callable[[str], Place | None]  # None: an entry that we have no use for (a duplicate, a classifier)

_BLOCK = {"gcn.conv": "spatial.conv", "tcn": "temporal", "residual": "shortcut"}


def stgcn_name(name: str) -> str | None:
    """Our name of an entry of the CrosSCLR family's and PSTL's ST-GCN; None for what is no part of the backbone."""
    name = name.replace("data_bn", "norm")
    if name == "A":
        return "graph"
    found = re.fullmatch(r"st_gcn_networks\.(\d+)\.(gcn\.conv|tcn|residual)\.(.*)", name)
    if found:
        return f"blocks.{found[1]}.{_BLOCK[found[2]]}.{found[3]}"
    return name if name.startswith(("norm.", "edge_importance.")) else None


def queue_place(name: str, ours: str, theirs: str = "queue") -> Place | None:
    """The place of an official queue (D, K) or its pointer (1,); None for any other entry."""
    if name == theirs:
        return Place(f"{ours}.keys", "transposed")
    return Place(f"{ours}.pointer", "scalar") if name == theirs.replace("queue", "queue_ptr", 1) else None


def placed(state: Mapping[str, Tensor], place: Placing, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state as one of ours, for a model whose own state is ``wanted``.

    Raises ``InputError``, all faults at once, for entries of another shape, and for ours that nothing official fills.
    """
    found: dict[str, Tensor] = {}
    faults = []
    for name, theirs in state.items():
        where = place(name)
        if where is None:
            continue
        if where.name not in wanted:
            faults.append(f"official '{name}' would be our '{where.name}', which this configuration does not have")
            continue
        tensor = where.ours(theirs)
        if tensor.shape != wanted[where.name].shape:
            shapes = f"{tuple(tensor.shape)}, ours {tuple(wanted[where.name].shape)}"
            faults.append(f"official '{name}' has shape {shapes}: another width, layout or number of classes")
        found[where.name] = tensor.to(wanted[where.name].dtype)
    faults += [f"nothing official fills our '{name}'" for name in wanted if name not in found]
    if faults:
        raise InputError(*faults)
    return found
