"""Skeleton graphs: a joint layout becomes K adjacency matrices, one for each role of a neighbour.

Source: "spatial configuration partitioning", Yan et al., arXiv:1801.07455, section 3.3, and the public code that the
CrosSCLR family shares. That code computes hop distances with a cut-off of one hop, so that all joints further than one
hop from the centre count as equally far; ``spatial_degenerate`` repeats this, ``spatial`` uses the true distances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from methods.data.layouts import Layout

PARTITIONS = ("spatial", "spatial_degenerate", "inward_outward")


def hop_distance(layout: Layout) -> Tensor:
    """(V, V) number of bones between two joints, as float64."""
    v = layout.num_joints
    dist = torch.full((v, v), float("inf"), dtype=torch.float64)
    dist.fill_diagonal_(0)
    for child, parent in layout.bones:
        dist[child, parent] = dist[parent, child] = 1
    for k in range(v):  # Floyd-Warshall; V is at most a few dozen
        dist = torch.minimum(dist, dist[:, k : k + 1] + dist[k : k + 1, :])
    return dist


def _spatial(layout: Layout, cut_off: float) -> Tensor:
    """Itself / neighbours no nearer the centre than the joint / neighbours nearer it; distances beyond the cut tie."""
    dist = hop_distance(layout)
    adjacency = (dist <= 1).double()
    normal = adjacency / adjacency.sum(0, keepdim=True)  # A D^-1, columns sum to 1
    to_centre = dist[:, layout.centre].clone()
    to_centre[to_centre > cut_off] = float("inf")
    # In y[w] = sum_v x[v] A[v, w] joint w gathers from v. In a tree neighbours are never equally far, so the tie
    # between them exists only where the cut-off makes it; the public code counts it with the outer ones.
    nearer = to_centre[:, None] < to_centre[None, :]
    itself = torch.eye(len(dist), dtype=torch.bool)
    return torch.stack([normal * itself, normal * (~nearer & ~itself), normal * nearer])


def _inward_outward(layout: Layout) -> Tensor:
    v = layout.num_joints
    inward = torch.zeros(v, v, dtype=torch.float64)
    for child, parent in layout.bones:
        inward[parent, child] = 1

    def column_normal(a: Tensor) -> Tensor:
        degree = a.sum(0, keepdim=True)
        return torch.where(degree > 0, a / degree.clamp(min=1), a)

    return torch.stack([torch.eye(v, dtype=torch.float64), column_normal(inward), column_normal(inward.T)])


def adjacency(layout: Layout, partition: str) -> Tensor:
    """(3, V, V) float32 adjacency of ``layout``, used as ``y[w] = sum_v x[v] A[k, v, w]``.

    ``spatial``: itself / the neighbours outward / the one towards the centre, by true hop distance;
    ``spatial_degenerate``: the same with distances cut at one hop (what the published numbers were made with);
    ``inward_outward``: identity / along the bones / against them, column-normalised (2s-AGCN, SkeleMixCLR, SCD-Net).
    Raises ``InputError`` for another word.
    """
    if partition == "spatial":
        return _spatial(layout, float("inf")).float()
    if partition == "spatial_degenerate":
        return _spatial(layout, 1).float()
    if partition == "inward_outward":
        return _inward_outward(layout).float()
    raise InputError(f"unknown graph partition '{partition}'{did_you_mean(partition, PARTITIONS)}")
