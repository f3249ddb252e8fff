"""What is known about PKU-MMD I and II beforehand: cameras, protocols, counts, classes.

Sources: Liu et al., PKU-MMD, arXiv:1703.07475; the counts are those of AimCLR's and CMD's readers; the names of the
classes are as public code lists them.
"""

from __future__ import annotations

from pathlib import Path

CAMERAS = {"l": 1, "m": 2, "r": 3}
TEST_PERFORMERS = (2, 3, 7)  # of part II, cross-subject
PUBLISHED = {
    "I": {"xsub": (18_841, 2_704)},
    "II": {"xsub": (5_332, 1_613)},
}  # clips, as AimCLR's and CMD's readers count

CLASS_NAMES = (
    *("bow", "brushing hair", "brushing teeth", "check time (from watch)", "cheer up", "clapping"),
    *("cross hands in front (say stop)", "drink water", "drop", "eat meal/snack", "falling"),
    *("giving something to other person", "hand waving", "handshaking", "hopping (one foot jumping)"),
    *("hugging other person", "jump up", "kicking other person", "kicking something"),
    *("make a phone call/answer phone", "pat on back of other person", "pickup", "playing with phone/tablet"),
    *("point finger at the other person", "pointing to something with finger", "punching/slapping other person"),
    *("pushing other person", "put on a hat/cap", "put something inside pocket", "reading", "rub two hands together"),
    *("salute", "sitting down", "standing up", "take off a hat/cap", "take off glasses", "take off jacket"),
    *("take out something from pocket", "taking a selfie", "tear up paper", "throw", "touch back (backache)"),
    *("touch chest (stomachache/heart pain)", "touch head (headache)", "touch neck (neckache)"),
    *("typing on a keyboard", "use a fan (with hand or paper)/feeling warm", "wear jacket", "wear on glasses"),
    *("wipe face", "writing"),
)


def is_pku(source: Path, labels_shape: tuple[int, ...]) -> bool:
    """Whether such an archive is of PKU-MMD: 51 classes, or labels without columns in a file called so."""
    if len(labels_shape) == 2 and labels_shape[1] > 1:
        return labels_shape[1] == len(CLASS_NAMES)
    return "pku" in source.stem.lower()
