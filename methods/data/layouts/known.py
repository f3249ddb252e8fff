"""The built-in layouts as plain tables: joint names in order, and the parent of each.

Everything else about them follows from the names (`joint_names` beside this). An order is part of a layout: a
source with the same joints in another order is another layout, or its reader puts them into this order.
"""

from __future__ import annotations

from collections.abc import Mapping

Table = tuple[tuple[str, ...], tuple[int, ...]]  # joints, parents


def _arm_and_leg(side: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    arm = tuple(f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hand"))
    leg = tuple(f"{side}_{part}" for part in ("hip", "knee", "ankle", "foot"))
    return arm, leg


_LEFT_ARM, _LEFT_LEG = _arm_and_leg("left")
_RIGHT_ARM, _RIGHT_LEG = _arm_and_leg("right")

# Kinect v2 as in NTU RGB+D and PKU-MMD. The bone list is that of the CrosSCLR family and AGCN; its root and centre is
# joint 21 (spine-shoulder). A hand tip hangs from the thumb there, as published.
_NTU25 = (
    (
        *("spine_base", "spine_mid", "neck", "head"),
        *(*_LEFT_ARM, *_RIGHT_ARM, *_LEFT_LEG, *_RIGHT_LEG),
        *("spine_shoulder", "left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb"),
    ),
    (1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, -1, 22, 7, 24, 11),
)

# Kinect v1 in NW-UCLA's joint order and with CTR-GCN's bones: root and centre is joint 3 (shoulder centre). UTD-MHAD
# (head first) and MSR Action3D have the same joints in orders of their own.
_KINECT20 = (
    (
        *("hip_center", "spine", "shoulder_center", "head"),
        *(*_LEFT_ARM, *_RIGHT_ARM, *_LEFT_LEG, *_RIGHT_LEG),
    ),
    (1, 2, -1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18),
)

# The 15 joints of the OpenNI tracker in the order of SBU Kinect Interaction, root the torso, centre the neck. Florence
# 3D Actions has the same order and calls torso, hands and feet spine, wrists and ankles. CAD-60 and CAD-120 differ:
# head, neck, torso, left shoulder and elbow, right shoulder and elbow, left hip and knee, right hip and knee, left
# hand, right hand, left foot, right foot.
_OPENNI15 = (
    (
        *("head", "neck", "torso"),
        *(f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "elbow", "hand")),
        *(f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "foot")),
    ),
    (1, 2, -1, 1, 3, 4, 1, 6, 7, 2, 9, 10, 2, 12, 13),
)


def _mocap_limbs(side: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    leg = tuple(side + bone for bone in ("hipjoint", "femur", "tibia", "foot", "toes"))
    arm = tuple(side + bone for bone in ("clavicle", "humerus", "radius", "wrist", "hand", "fingers", "thumb"))
    return arm, leg


# The root and the 30 bones of a CMU mocap .asf file in the file's order, with its hierarchy; a joint is the far end of
# the bone it is called after, so lclavicle is the left shoulder, lhumerus the elbow and lradius the wrist.
_CMU31 = (
    (
        *("root", *_mocap_limbs("l")[1], *_mocap_limbs("r")[1]),
        *("lowerback", "upperback", "thorax", "lowerneck", "upperneck", "head"),
        *(*_mocap_limbs("l")[0], *_mocap_limbs("r")[0]),
    ),
    (
        *(-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9),
        *(0, 11, 12, 13, 14, 15),
        *(13, 17, 18, 19, 20, 21, 20),
        *(13, 24, 25, 26, 27, 28, 27),
    ),
)

# COCO's 17 keypoints; a tree with the nose as root and centre and hips under shoulders, as in PYSKL's graph.
_COCO17 = (
    (
        "nose",
        *(
            f"{side}_{part}"
            for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
            for side in ("left", "right")
        ),
    ),
    (-1, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
)

# OpenPose's 18 keypoints (COCO's with a neck), bones as in ST-GCN's graph: root and centre is joint 1, the neck.
_OPENPOSE18 = (
    (
        *("nose", "neck"),
        *(f"{side}_{part}" for side in ("right", "left") for part in ("shoulder", "elbow", "wrist")),
        *(f"{side}_{part}" for side in ("right", "left") for part in ("hip", "knee", "ankle")),
        *(f"{side}_{part}" for part in ("eye", "ear") for side in ("right", "left")),
    ),
    (1, -1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15),
)

KNOWN: Mapping[str, Table] = {
    "ntu25": _NTU25,
    "kinect20": _KINECT20,
    "openni15": _OPENNI15,
    "cmu31": _CMU31,
    "coco17": _COCO17,
    "openpose18": _OPENPOSE18,
}
