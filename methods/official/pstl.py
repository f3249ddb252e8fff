"""PSTL's repository (YujieOuO/PSTL, commit da95ce1): an encoder and a Barlow Twins head, of which it stores the first.

SkeletonBT has no class there; with us its networks are PSTL's under the same names.
"""

from __future__ import annotations

from methods.official.places import Place, stgcn_name


def pstl(name: str) -> Place | None:
    """Our place of an entry ``encoder.<name>`` or ``head.<name>``, or of the encoder's file, ``<name>`` alone."""
    if name.startswith("head.projector."):
        return Place(name.removeprefix("head."))
    if name.startswith("head.bn."):
        return Place(f"norm.{name.removeprefix('head.bn.')}")
    backbone = stgcn_name(name.removeprefix("encoder."))
    return None if backbone is None else Place(f"encoder.{backbone}")
