"""The eight repositories, the networks that each of them stores, and how one is told from another by its names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from methods.official.aimclr import aimclr
from methods.official.cmcs import cmal, cmcs
from methods.official.cmd import cmd
from methods.official.crossclr import crossclr, skeletonclr
from methods.official.crrl import crrl
from methods.official.places import Place, Placing
from methods.official.pstl import pstl
from methods.official.scdnet import scdnet
from methods.official.skelemixclr import skelemixclr

ALL = ("joint", "motion", "bone")


@dataclass(frozen=True)
class Variant:
    """One network of a repository, ``title`` as people call it, ``method`` as we do.

    It is this one if every pattern of ``needs`` fits one of a file's names and none of ``without`` does. ``ignored``:
    pattern -> what such an entry is that has no place with us. ``streams`` are the network's own; none where it has one
    and does not say which. ``probed``: our part whose encoder is evaluated. ``settings`` follow from its being this
    network; ``flags`` are entries of our state that no official file has.
    """

    title: str
    method: str
    place: Placing
    needs: tuple[str, ...]
    without: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    probed: str = "encoder"
    settings: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, bool] = field(default_factory=dict)

    def fits(self, names: Iterable[str]) -> bool:
        """Whether a file with these names may be this network."""
        held = list(names)
        return all(_some(held, pattern) for pattern in self.needs) and not any(_some(held, p) for p in self.without)

    def where(self, name: str) -> Place | None:
        """Our place of an official entry; a part of a head that is no layer of one has none."""
        place = self.place(name)
        if place is None or ("projector" in place.name and not _LAYER.search(place.name)):
            return None
        return place

    def what(self, name: str) -> str | None:
        """What an entry is that we have no use for; None for one that is used or unknown."""
        return next((what for pattern, what in self.ignored.items() if re.fullmatch(pattern, name)), None)

    def unknown(self, names: Iterable[str]) -> list[str]:
        """The names that this network does not have."""
        return [name for name in names if self.what(name) is None and self.where(name) is None]


_LAYER = re.compile(r"projectors?(\.[a-z]+)?(\.target)?\.\d+\.")


def _some(names: list[str], pattern: str) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)


@dataclass(frozen=True)
class Repository:
    """``url`` and ``commit``: where and at which state its names were read. ``prepare`` mends names before all else."""

    name: str
    url: str
    commit: str
    variants: tuple[Variant, ...]
    prepare: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda tensors: tensors


_LINEAR = "a linear head (of a linear evaluation, or of pretraining without an MLP)"
_HEAD = {r"encoder_[qk](_motion|_bone)?\.fc\.(weight|bias)": _LINEAR}
_NORMED = r"encoder_q\.fc\.1\.running_mean"  # SkeleMixCLR's head alone has a batch norm
_TWO = r"encoder_q_motion\.data_bn\.weight"
_GRAPH_NET = r"encoder_q\.(A|data_bn\.weight)"


def _crossclr() -> tuple[Variant, ...]:
    bone = r"encoder_q_bone\.data_bn\.weight"
    own = {"share_head": True}  # whatever the preset: the file has the shared head once for each stream
    return (
        Variant("SkeletonCLR", "skeletonclr", skeletonclr, (_GRAPH_NET,), (_TWO, bone, _NORMED), _HEAD),
        Variant("2s-CrosSCLR", "crossclr", crossclr, (_GRAPH_NET, _TWO), (bone,), _HEAD, ALL[:2], "encoders", own),
        Variant("3s-CrosSCLR", "crossclr", crossclr, (_GRAPH_NET, _TWO, bone), (), _HEAD, ALL, "encoders", own),
    )


def _skelemixclr() -> tuple[Variant, ...]:
    label, queue, plain = r"queue_label", r"queue", r"encoder_q\.fc\.2\.weight"
    ignored = _HEAD | {label: "labels of the queue, which nothing reads"}
    other = (_TWO, plain)
    return (
        Variant("SkeleMixCLR+", "skelemixclr_plus", skelemixclr, (_GRAPH_NET, queue), (*other, label), ignored),
        Variant("SkeleMixCLR", "skelemixclr", skelemixclr, (_GRAPH_NET,), other, ignored),
    )


def _cmcs() -> tuple[Variant, ...]:
    head = {r"online_projector(_joint|_motion|_bone)?\.(weight|bias)": "the classifier of a linear evaluation"}
    three = tuple(rf"online_backbone_{stream}\.A" for stream in ALL)
    return (
        Variant("CMAL, one stream", "cmal", cmal, (r"online_backbone\.A",), three, head),
        Variant("CMCS, three streams", "cmcs", cmcs, three, (), head, ALL, "encoders"),
    )


def _of_downstream(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """SCD-Net's classifier calls the query encoder's entries alike, but for what stands before them."""
    if any(name.startswith("encoder.gcn_t.") for name in tensors):
        return {f"encoder_q.{name}": value for name, value in tensors.items()}
    return tensors


def _of_networks(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """CRRL's evaluation stores the encoder and its classifier as ``encoder_fc``."""
    return {re.sub(r"^encoder_fc\.", "encoder.", name): value for name, value in tensors.items()}


def _crrl() -> tuple[Variant, ...]:
    moco, student = r"moco(_model)?\.encoder_fc_q\.gru\.weight_ih_l0", r"(encoder\.)?gru\.weight_ih_l0"
    head = {r"(encoder\.)?fc\.(weight|bias)": "the classifier of a linear evaluation"}
    return (
        Variant(
            "its contrastive run",
            "crrl",
            crrl,
            (moco,),
            (student,),
            head,
            settings={"fuse_start": 1.0},
            flags={"fused": False},
        ),
        Variant("both runs", "crrl", crrl, (moco, student), (), head, probed="student", flags={"fused": True}),
        Variant("an encoder", "crrl", crrl, (student,), (moco,), head, probed="student", flags={"fused": True}),
    )


def _cmd() -> tuple[Variant, ...]:
    needs = tuple(rf"encoder_q{end}\.encoder\.gru\.weight_ih_l0" for end in ("", "_motion", "_bone"))
    return (Variant("CMD", "cmd", cmd, needs, (), _HEAD, ALL, "encoders"),)


_SCD = Variant(
    "SCD-Net", "scdnet", scdnet, (r"encoder_q\.encoder\.gcn_t\.l1\.gcn1\.PA",), (), {r"encoder_q\.fc\..*": _LINEAR}
)
_AIMCLR = Variant("AimCLR", "aimclr", aimclr, (_GRAPH_NET,), (_TWO, _NORMED), _HEAD)
_PSTL = Variant("PSTL", "pstl", pstl, (r"(encoder\.)?data_bn\.weight",))

REPOSITORIES: Mapping[str, Repository] = {
    repository.name: repository
    for repository in (
        Repository("aimclr", "Levigty/AimCLR", "6cd7376", (_AIMCLR,)),
        Repository("crossclr", "LinguoLi/CrosSCLR", "792b70c", _crossclr()),
        Repository("cmcs", "Levigty/CMCS", "e3d0bbf", _cmcs()),
        Repository("skelemixclr", "czhaneva/SkeleMixCLR", "4538d6c", _skelemixclr()),
        Repository("pstl", "YujieOuO/PSTL", "da95ce1", (_PSTL,)),
        Repository("scdnet", "cong-wu/SCD-Net", "0af1b19", (_SCD,), _of_downstream),
        Repository("crrl", "Picasso-Wang/CRRL", "4d06d50", _crrl(), _of_networks),
        Repository("cmd", "maoyunyao/CMD", "6e9a8ac", _cmd()),
    )
}
