"""Everything that reads a layout works on every built-in one and on a stranger's: graph, streams, views, training."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import BUSH15, generator, make_clips, make_config, make_method, movements, policy, small_encoder

from methods.augment.policy import AugmentConfig, Policy
from methods.data.layouts import LAYOUTS, Layout, get_layout
from methods.data.splits import Split
from methods.data.streams import STREAMS, derive
from methods.fields import field_table
from methods.nn.graph import PARTITIONS, adjacency, hop_distance
from methods.registry import get_method, list_methods
from methods.training import evaluate
from methods.training.clips import Clips
from methods.training.pretrain import pretrain, start
from methods.training.probe import ProbeConfig

# A stranger's: the root is not the centre, nobody has shoulders or a spine, and the three parts are the owner's own.
CRANE = Layout.from_dict(
    {
        "name": "crane",
        "joints": ["hook", "rope", "boom", "cab", "left track", "right track"],
        "parents": {"hook": "rope", "rope": "boom", "boom": "cab", "left track": "cab", "right track": "cab"},
        "centre": "boom",
        "parts": {"top": ["hook", "rope", "boom"], "mid": ["cab"], "low": ["left track", "right track"]},
    }
)
EVERY = {**LAYOUTS, "bush15": BUSH15, "crane": CRANE}
every_layout = pytest.mark.parametrize("layout", EVERY.values(), ids=EVERY)
METHODS = list_methods()


def clips(layout: Layout, count: int = 4, frames: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(movements(count, frames, layout, seed=seed)[0])


# --- graph ----------------------------------------------------------------------------------------------------------


@every_layout
def test_hop_distances_are_paths_in_the_tree(layout: Layout) -> None:
    def ancestors(joint: int) -> list[int]:
        return [joint] if layout.parents[joint] < 0 else [joint, *ancestors(layout.parents[joint])]

    ways = [ancestors(joint) for joint in range(layout.num_joints)]
    expected = [[len(a) + len(b) - 2 * len(set(a) & set(b)) for b in ways] for a in ways]
    assert hop_distance(layout).tolist() == expected


@every_layout
@pytest.mark.parametrize("partition", PARTITIONS)
def test_every_partition_has_every_bone_once_each_way(layout: Layout, partition: str) -> None:
    graph = adjacency(layout, partition)
    count = layout.num_joints
    assert graph.shape[1:] == (count, count)
    links = {(v, w) for k, v, w in graph.nonzero().tolist() if v != w}
    assert links == {pair for child, parent in layout.bones for pair in ((child, parent), (parent, child))}
    assert int(graph.count_nonzero()) == count + 2 * (count - 1)


@every_layout
def test_the_spatial_partitions_part_inward_from_outward(layout: Layout) -> None:
    """By true distance a joint has one neighbour nearer the centre, the centre none."""
    nearer = adjacency(layout, "spatial")[2].count_nonzero(0)
    expected = torch.ones(layout.num_joints, dtype=torch.long)
    expected[layout.centre] = 0
    assert torch.equal(nearer, expected)


# --- streams and views ----------------------------------------------------------------------------------------------


@every_layout
@pytest.mark.parametrize("stream", STREAMS)
def test_streams(layout: Layout, stream: str) -> None:
    x = clips(layout)
    out = derive(x, stream, layout)
    assert out.shape == x.shape
    if stream == "bone":
        assert not out[:, :, :, layout.root].any()
        for child, parent in layout.bones:
            assert torch.equal(out[:, :, :, child], x[:, :, :, child] - x[:, :, :, parent])


@every_layout
@pytest.mark.parametrize("name", METHODS)
def test_published_views(layout: Layout, name: str) -> None:
    """Of the method's own recipe at strength 1: new coordinates, the same shape."""
    x = clips(layout, frames=16)
    kept = x.clone()
    method = make_method(name, layout)
    recipe = policy(name, layout)
    assert recipe.config.strength == 1
    views = method.make_views(x, recipe, generator())
    assert torch.equal(x, kept)
    for view in views.clips.values():
        assert view.shape[:2] == x.shape[:2]
        assert view.shape[3:] == x.shape[3:]
        assert torch.isfinite(view).all()
    changed = [not torch.equal(view, x) for view in views.clips.values()]
    assert any(changed)  # CRRL holds the clip itself against its velocities; every other method changes all views
    assert all(changed) or name == "crrl"


@every_layout
def test_every_augmentation_at_the_ends_of_its_range(layout: Layout) -> None:
    """One after the other, by the table of settings: an augmentation that is added is tried here at once."""
    x = clips(layout, frames=16)
    for setting, info in field_table(AugmentConfig).items():
        if info.range is None:
            continue
        for end in info.range.ends():
            out = Policy(dataclasses.replace(AugmentConfig(crop=0.0, shear=0.0), **{setting: end}), layout)(
                x, generator()
            )
            assert out.shape == x.shape, setting
            assert torch.isfinite(out).all(), setting


@every_layout
def test_a_flip_swaps_the_sides(layout: Layout) -> None:
    x = clips(layout)
    flip = Policy(AugmentConfig(crop=0.0, shear=0.0, flip=1.0, flip_reflect=False), layout)
    out = flip(x, generator())
    for joint, other in enumerate(layout.mirror):
        assert torch.equal(out[:, :, :, other], x[:, :, :, joint])
    assert torch.equal(flip(out, generator()), x)


# --- training and probe ---------------------------------------------------------------------------------------------


@every_layout
@pytest.mark.parametrize("name", METHODS)
def test_a_tiny_run_is_pretrained_and_probed(layout: Layout, name: str) -> None:
    data = make_clips(12, frames=8, layout=layout, classes=3)
    config = make_config(name, epochs=1)
    small = small_encoder(name, width=2, dim=8)
    optim = dataclasses.replace(config.optim, batch=4)
    run = start(dataclasses.replace(config, encoder=small, optim=optim, frames=8), data, np.arange(8), seed=0)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    (epoch,) = pretrain(run)
    assert run.step == 2
    assert np.isfinite(epoch.loss)
    moved = [key for key, value in run.model.state_dict().items() if not torch.equal(value, before[key])]
    assert any("encoder" in key for key in moved)
    split = Split("tiny", np.arange(8), np.arange(8, 12), np.arange(0), None, (), "")
    result = evaluate.validate(run.model, run.store, split, ProbeConfig(), seed=0)
    assert len(result.clips) == 4
    assert 0 <= result.top1 <= 1
    assert np.isfinite(result.loss)


@pytest.mark.parametrize("name", ["coco17", "openpose18"])
def test_skeletons_of_two_coordinates_train(name: str) -> None:
    """2-D keypoints (COCO, OpenPose): every op of the extreme recipe, an encoder of two channels, a step."""
    layout = get_layout(name)
    data, labels = movements(16, 8, layout)
    flat = Clips(data[:, :2], labels, np.stack([np.arange(16) % 4, np.full(16, -1)], 1), layout, 4, "flat")
    config = make_config("skeletonclr", 1)
    extreme = dataclasses.replace(get_method("aimclr").recipe.augment, time_flip=0.5)
    config = dataclasses.replace(config, frames=8, augment=extreme)
    (epoch,) = pretrain(start(config, flat, np.arange(16), seed=0))
    assert math.isfinite(epoch.loss) and epoch.spread > 0
