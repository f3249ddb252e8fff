"""Official weights as ours: which network a file holds, what its shapes say, and its tensors under our names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.data.layouts import Layout
from methods.errors import InputError, did_you_mean
from methods.official.places import placed
from methods.official.sizes import Sizes, sizes_of
from methods.official.variants import REPOSITORIES, Repository, Variant

SHOWN = 4  # names of a long list


@dataclass(frozen=True)
class Official:
    """A recognised file: the network it holds, the ``entries`` that have a place with us, and what they say.

    ``ignored``: what an entry without a place is -> the names of those in the file.
    """

    repository: Repository
    variant: Variant
    entries: Mapping[str, Tensor]
    ignored: Mapping[str, tuple[str, ...]]
    sizes: Sizes


def recognise(tensors: Mapping[str, Tensor], repository: str, where: str, layout: Layout | None = None) -> Official:
    """Find out what ``tensors`` (by the official code's names) are, if ``repository`` stored them.

    ``where`` names the file in what is raised: ``InputError`` for an unknown repository, for names that none of its
    networks has (with the repositories that do have them), and as :func:`methods.official.sizes.sizes_of`.
    """
    if repository not in REPOSITORIES:
        raise InputError(f"unknown repository '{repository}'{did_you_mean(repository, REPOSITORIES)}")
    found = REPOSITORIES[repository]
    tensors = found.prepare(tensors)
    variant = next((v for v in found.variants if v.fits(tensors)), None)
    if variant is None:
        raise InputError(f"{where}: is none of {found.url}'s networks ({_few(list(tensors))}){_others(tensors, found)}")
    unknown = variant.unknown(tensors)
    if unknown:
        what = f"{len(unknown)} of its {len(tensors)} entries are not of {found.url}'s {variant.title}"
        raise InputError(f"{where}: {what}: {_few(unknown)}{_others(tensors, found)}")
    entries = {name: tensor for name, tensor in tensors.items() if variant.what(name) is None}
    ignored: dict[str, tuple[str, ...]] = {}
    for name in tensors:
        what_else = variant.what(name)
        if what_else is not None:
            ignored[what_else] = (*ignored.get(what_else, ()), name)
    sizes = sizes_of(_ours(variant, entries), _encoder(variant), layout, where)
    return Official(found, variant, entries, ignored, sizes)


def fitting(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The repositories that a file of these names may come from."""
    return tuple(name for name, repository in REPOSITORIES.items() if _fits(repository, repository.prepare(tensors)))


def _fits(repository: Repository, tensors: Mapping[str, Tensor]) -> bool:
    return any(variant.fits(tensors) and not variant.unknown(tensors) for variant in repository.variants)


def fill(official: Official, wanted: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Our state ``wanted`` with everything in it that is official, and the names of the parts that are not.

    A part (a projector, a momentum copy, a queue) is filled whole or stays as it is; the encoders that are probed must
    be filled. Raises ``InputError``, all faults at once, for a part with holes, for other shapes, and for what the
    configuration does not have.
    """
    touched = {_part(place.name) for name in official.entries if (place := official.variant.where(name))}
    touched |= {part for name in wanted if (part := _part(name)).partition(".")[0] == official.variant.probed}
    filled = {place.name for name in official.entries if (place := official.variant.where(name))}
    # Files of torch before 0.4.1 do not count batches; nothing depends on it.
    sought = {
        name: value
        for name, value in wanted.items()
        if _part(name) in touched and not (name.endswith("num_batches_tracked") and name not in filled)
    }
    try:
        state = dict(wanted) | placed(official.entries, official.variant.where, sought)
    except InputError as error:
        raise InputError(*(f"{where}: {fault}" for fault in error.faults)) from None
    state |= {name: torch.tensor(value) for name, value in official.variant.flags.items()}
    parts = dict.fromkeys(_part(name) for name in wanted)
    return state, tuple(part for part in parts if part not in touched and part not in official.variant.flags)


def _ours(variant: Variant, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    placed_at = {name: variant.where(name) for name in entries}
    return {place.name: place.ours(entries[name]) for name, place in placed_at.items() if place is not None}


def _encoder(variant: Variant) -> str:
    return f"{variant.probed}.{variant.streams[0]}" if variant.probed == "encoders" else variant.probed


def _part(name: str) -> str:
    """The module that stands or falls together: ``queue``, ``slow_encoder``, of several alike ``encoders.joint``."""
    first, second, *_ = (*name.split("."), "")
    return f"{first}.{second}" if first.endswith("s") else first


def _others(tensors: Mapping[str, Tensor], asked: Repository) -> str:
    found = [f"--from {name}" for name in fitting(tensors) if name != asked.name]
    return f"; it fits {' or '.join(found)}" if found else "; it fits no other repository either"


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
