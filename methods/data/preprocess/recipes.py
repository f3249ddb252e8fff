"""Named steps from a clip at its original length to the fixed length that training reads.

A list of step names is applied in its order; ``resize`` is put at the end where nothing in the list ends at T frames.
A recipe (:data:`RECIPES`) is a name for such a list and may stand in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from methods.data.layouts.layout import Layout
from methods.data.preprocess.published import PUBLISHED
from methods.data.preprocess.steps import OWN, Array, Clip, Step, present, resize
from methods.errors import InputError, did_you_mean

__all__ = ["DEFAULT_STEPS", "PAPER_STEPS", "RECIPES", "STEPS", "Array", "Clip", "Step", "apply_steps", "check_steps",
           "expand_steps", "parse_steps", "present", "resize"]  # fmt: skip

STEPS: Mapping[str, Step] = {step.name: step for step in (*OWN, *PUBLISHED)}

DEFAULT_STEPS = ("trim", "centre", "resize")
PAPER_STEPS = ("trim_paper", "centre", "resize", "rotate_y_paper")

# A recipe called *_paper is what the published code does, oddities and all; the one beside it means the same and does
# it right (each step says how). `ctrgcn` and `ucla` are published and need no mending.
# After the two of AGCN a body stands along z; after all others whatever was up stays up.
RECIPES: Mapping[str, tuple[str, ...]] = {
    "default": DEFAULT_STEPS,
    "crossclr": ("trim", "centre", "rotate_y", "resize"),
    "crossclr_paper": PAPER_STEPS,  # CrosSCLR, AimCLR, SkeletonBYOL and CMCS, SkeleMixCLR
    "agcn": ("trim", "centre_spine", "align_body", "resize"),
    "agcn_paper": ("shift_persons", "loop_persons", "centre_spine", "spine_z", "shoulders_x", "resize"),  # SCD-Net, CMD
    "ctrgcn": ("trim_empty", "centre_first_spine", "resize"),  # on NTU RGB+D
    "ucla": ("centre_first_spine", "minmax", "sample"),  # CTR-GCN on NW-UCLA
}


def expand_steps(names: str | Sequence[str]) -> tuple[str, ...]:
    """Replace each recipe name by its steps; a bare name is a list of one. Names that nobody knows are left alone."""
    listed = (names,) if isinstance(names, str) else names
    return tuple(step for name in listed for step in RECIPES.get(name, (name,)))


def parse_steps(names: Sequence[str]) -> tuple[Step, ...]:
    """Turn names of steps and recipes into steps, with ``resize`` appended where no step ends at T frames.

    Raises InputError, all faults at once, for unknown or repeated names, for two steps that end at T, and for one that
    changes the number of frames after that.
    """
    if isinstance(names, str):
        raise InputError(f"preprocessing steps must be a list of names, got the text '{names}'")
    expanded = expand_steps(names)
    known = (*STEPS, *RECIPES)
    faults = [
        f"unknown preprocessing step '{name}'{did_you_mean(str(name), known)}" for name in expanded if name not in STEPS
    ]
    faults += [
        f"preprocessing step '{name}' is named twice{_by_recipe(name, names)}"
        for name in dict.fromkeys(expanded)
        if expanded.count(name) > 1
    ]
    steps = [STEPS[name] for name in expanded if name in STEPS]
    if not any(step.ends for step in steps):
        steps.append(STEPS["resize"])
    end = next(step for step in steps if step.ends)
    for step in dict.fromkeys(steps[steps.index(end) + 1 :]):
        if step.ends and step != end:
            faults.append(f"preprocessing steps '{end.name}' and '{step.name}' both end at T frames; name one of them")
        elif step.lengthens and step != end:
            faults.append(f"preprocessing step '{step.name}' must come before '{end.name}'")
    if faults:
        raise InputError(*faults)
    return tuple(steps)


def _by_recipe(step: str, names: Sequence[str]) -> str:
    recipes = [name for name in dict.fromkeys(names) if step in RECIPES.get(name, ())]
    return f" (it is in {' and '.join(map(repr, recipes))})" if recipes else ""


def check_steps(steps: Sequence[Step], layout: Layout, frames: int, channels: int | None = None) -> None:
    """Raise InputError where the layout or the C = ``channels`` coordinates lack what a step needs, or T is below 1."""
    where = f"and layout '{layout.name}' names none; a layout file can"
    faults = []
    for step in steps:
        if step.shoulders and layout.shoulders is None:
            faults.append(f"step '{step.name}' needs shoulders, {where}: shoulders: [left, right]")
        if step.spine and layout.spine is None:
            faults.append(f"step '{step.name}' needs a spine, {where}: spine: [lower, upper]")
        if step.xyz and channels not in (None, 3):
            faults.append(f"step '{step.name}' needs x, y and z; the clips have {channels} coordinates")
    if frames < 1:
        faults.append(f"cannot resize to {frames} frames; T must be 1 or more")
    if faults:
        raise InputError(*faults)


def apply_steps(clip: Array, valid: int, layout: Layout, steps: Sequence[Step], frames: int) -> Array:
    """Apply steps to one clip (t, M, V, C); returns (C, T, V, M) float32 with T = ``frames``.

    ``valid`` is the clip's count of valid frames, which only ``trim_paper`` reads. The unit stays the source's unless
    a step rescales. Raises InputError as :func:`check_steps`, and for a clip of another shape.
    """
    if clip.ndim != 4 or not len(clip) or clip.shape[2] != layout.num_joints:
        raise InputError(f"a clip must be (t, M, {layout.num_joints}, C) with t > 0, got {clip.shape}")
    check_steps(steps, layout, frames, clip.shape[3])
    state = Clip(np.asarray(clip, dtype=np.float32), int(valid), layout, frames)
    for step in steps:
        state = step.run(state)
    return np.array(state.frames.transpose(3, 0, 2, 1), order="C")  # a copy: without steps it is the map itself
