"""What is known about NTU RGB+D 60 and 120 beforehand: names, protocols, counts, classes.

Sources: Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2020 (protocols, action list); the counts after the removal of
the clips with missing skeletons are those that the official codes print.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.data.reading.sources import ClipTable
from methods.data.skeletons import TEST, TRAIN, UNUSED

NTU60_SETUPS = 17  # setups 1-17 are NTU-60, 18-32 came with NTU-120
NTU60_CLASSES = 60

TRAIN_SUBJECTS_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
TRAIN_SUBJECTS_120 = (
    *TRAIN_SUBJECTS_60,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93),
    *(94, 95, 97, 98, 100, 103),
)
TRAIN_CAMERAS = (2, 3)  # cross-view; camera 1 tests

# (train, test) after the 302 (NTU-60) or 535 (NTU-120) clips with missing skeletons are left out.
PUBLISHED: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "ntu60": {"xsub": (40_091, 16_487), "xview": (37_646, 18_932)},
    "ntu120": {"xsub": (63_026, 50_919), "xset": (54_468, 59_477)},
}
CLIPS: Mapping[str, int] = {"ntu60": 56_880, "ntu120": 114_480}
MISSING: Mapping[str, int] = {"ntu60": 302, "ntu120": 535}

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")


@dataclass(frozen=True)
class NtuName:
    """What a clip's name says, SsssCcccPpppRrrrAaaa; all counted from 1."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    @property
    def label(self) -> int:
        """The class, from 0."""
        return self.action - 1


def parse_name(text: str) -> NtuName | None:
    """Read SsssCcccPpppRrrrAaaa, with or without folders and an ending; None for any other name."""
    stem = text.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    found = _NAME.fullmatch(stem)
    return NtuName(*map(int, found.groups())) if found else None


def version_of(largest_setup: int, largest_action: int) -> str:
    """'ntu60' or 'ntu120', by the setups and actions that occur."""
    return "ntu60" if largest_setup <= NTU60_SETUPS and largest_action <= NTU60_CLASSES else "ntu120"


def class_names(version: str) -> tuple[str, ...]:
    """The 60 or 120 action names in the order of the labels."""
    return CLASS_NAMES[:NTU60_CLASSES] if version == "ntu60" else CLASS_NAMES


def splits(table: ClipTable, version: str) -> dict[str, NDArray[np.int8]]:
    """The official protocols: xsub and xview for NTU-60, xsub and xset for NTU-120.

    The clip's subject is its first. A clip whose subject (camera, setup) is unknown is in no side.
    """
    performers = table.subjects[:, 0]
    trains = TRAIN_SUBJECTS_60 if version == "ntu60" else TRAIN_SUBJECTS_120
    found = {"xsub": _sides(performers, np.isin(performers, trains))}
    if version == "ntu60":
        found["xview"] = _sides(table.cameras, np.isin(table.cameras, TRAIN_CAMERAS))
    else:
        found["xset"] = _sides(table.setups, table.setups % 2 == 0)
    return found


def _sides(ids: NDArray[np.int64], train: NDArray[np.bool_]) -> NDArray[np.int8]:
    return np.where(ids < 0, UNUSED, np.where(train, TRAIN, TEST)).astype(np.int8)


CLASS_NAMES: tuple[str, ...] = (
    *("drink water", "eat meal", "brush teeth", "brush hair", "drop", "pick up", "throw", "sit down", "stand up"),
    *("clapping", "reading", "writing", "tear up paper", "put on jacket", "take off jacket", "put on a shoe"),
    *("take off a shoe", "put on glasses", "take off glasses", "put on a hat", "take off a hat", "cheer up"),
    *("hand waving", "kicking something", "reach into pocket", "hopping", "jump up", "phone call"),
    *("play with phone", "type on a keyboard", "point to something", "taking a selfie", "check time", "rub two hands"),
    *("nod head", "shake head", "wipe face", "salute", "put palms together", "cross hands in front", "sneeze or cough"),
    *("staggering", "falling down", "headache", "chest pain", "back pain", "neck pain", "nausea or vomiting"),
    *("fan self", "punch or slap", "kicking", "pushing", "pat on back", "point finger", "hugging", "giving object"),
    *("touch pocket", "shaking hands", "walking towards", "walking apart", "put on headphone", "take off headphone"),
    *("shoot at basket", "bounce ball", "tennis bat swing", "juggle table tennis ball", "hush", "flick hair"),
    *("thumb up", "thumb down", "make OK sign", "make victory sign", "staple book", "counting money", "cutting nails"),
    *("cutting paper", "snap fingers", "open bottle", "sniff or smell", "squat down", "toss a coin", "fold paper"),
    *("ball up paper", "play magic cube", "apply cream on face", "apply cream on hand", "put on bag", "take off bag"),
    *("put object into bag", "take object out of bag", "open a box", "move heavy objects", "shake fist"),
    *("throw up cap", "capitulate", "cross arms", "arm circles", "arm swings", "run on the spot", "butt kicks"),
    *("cross toe touch", "side kick", "yawn", "stretch oneself", "blow nose", "hit with object", "wield knife"),
    *("knock over", "grab stuff", "shoot with gun", "step on foot", "high-five", "cheers and drink", "carry object"),
    *("take a photo", "follow", "whisper", "exchange things", "support somebody", "rock-paper-scissors"),
)
