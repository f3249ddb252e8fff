"""What the shipped search spaces know: the datasets, what is drawn of each method, and what was published.

Ranges are the methods' own suggestions; here stands which of them a space draws, and what a dataset asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from methods.fields import Range

TITLES = {
    "skeletonclr": "SkeletonCLR", "skeletonbyol": "SkeletonBYOL", "cmal": "CMAL", "cmcs": "CMCS",
    "crossclr": "CrosSCLR", "aimclr": "AimCLR", "skelemixclr": "SkeleMixCLR", "skelemixclr_plus": "SkeleMixCLR+",
    "skeletonbt": "SkeletonBT", "pstl": "PSTL", "scdnet": "SCD-Net", "cmd": "CMD", "crrl": "CRRL",
}  # fmt: skip

# Methods that hold two bodies side by side in one vector and so can see how far apart they are.
SIDE_BY_SIDE = ("scdnet", "cmd", "crrl")

# --- what a method's own file draws, in its own order -----------------------------------------------------------------

_MOMENT = ("temperature", "momentum", "queue")
OWN = {
    "skeletonclr": _MOMENT,
    "skeletonbyol": ("momentum", "hidden", "projection"),
    "cmal": ("momentum", "repulsion", "hidden", "projection"),
    "cmcs": ("momentum", "repulsion", "cross_start", "topk", "cross_weight", "temperature", "freeze_target_in_cross"),
    "crossclr": (*_MOMENT, "cross_start", "topk", "context"),
    "aimclr": (*_MOMENT, "drop_threshold", "d3m_weight", "mining_start", "topk"),
    "skelemixclr": (*_MOMENT, "regional_weight", "extra_negative", "parts_least", "parts_more", "segments_least",
                    "segments_more"),
    "skelemixclr_plus": (*_MOMENT, "regional_weight", "repeats", "reduce", "parts_least", "parts_more",
                         "segments_least", "segments_more"),
    "skeletonbt": ("off_diagonal", "projection"),
    "pstl": ("off_diagonal", "projection", "mask_joints", "mask_frames", "spatial_share"),
    "scdnet": (*_MOMENT, "time_to_instance", "space_to_instance", "instance_to_time", "instance_to_space"),
    "cmd": (*_MOMENT, "teacher_temperature", "student_temperature", "topk", "cmd_weight"),
    "crrl": (*_MOMENT, "fuse_start", "distill_weight", "reconstruct", "reduction"),
}  # fmt: skip

# Where a recipe has several operations `strength` scales them together, and these shift their balance.
AUGMENT = {
    "aimclr": ("rotate", "noise", "blur"),
    "skeletonbt": ("rotate",),
    "pstl": ("rotate",),
    "scdnet": ("crop_resize", "joint_mask", "joint_mask_joints", "segment_mask", "segment_mask_share"),
    "cmd": ("crop_resize", "corrupt", "corrupt_joints"),
}
NO_AUGMENT = ("crrl",)  # its recipe is empty, so there is nothing to scale

ENCODERS = {"stgcn": ("dropout",), "twopath": ("base", "d_model", "dropout"), "gru": ("hidden", "layers")}
ENCODER = {"crrl": ("hidden", "layers", "dropout")}
# Of a file for a small dataset: see docs/fidelity.md, "Two things that small data taught us".
FEW_ENCODERS = {"stgcn": ("input_norm", "segments"), "twopath": ("segments",), "gru": ("input_norm",)}

SGD, SLOW, ADAM = Range("log", (0.01, 0.3)), Range("log", (0.001, 0.1)), Range("log", (5e-4, 0.02))
LR = {"scdnet": SLOW, "cmd": SLOW, "crrl": Range("log", (0.005, 0.2)), "pstl": ADAM, "skeletonbt": ADAM}
DECAY, FINE_DECAY = Range("log", (1e-6, 1e-3)), Range("log", (1e-7, 1e-3))
OPTIM: Mapping[str, Mapping[str, Range]] = {
    "skeletonbyol": {"weight_decay": DECAY},
    "cmal": {"weight_decay": DECAY},
    "cmcs": {"weight_decay": DECAY},
    "pstl": {"weight_decay": FINE_DECAY, "warmup": Range("uniform", (0.0, 0.14))},
    "skeletonbt": {"weight_decay": FINE_DECAY, "warmup": Range("uniform", (0.0, 0.14))},
    "skelemixclr": {"schedule": Range("choice", ("constant", "cosine"))},
    "skelemixclr_plus": {"schedule": Range("choice", ("constant", "cosine"))},
    "scdnet": {"step_at": Range("uniform", (0.6, 0.95))},
    "crrl": {"step_factor": Range("uniform", (0.2, 0.8))},
}

# Own settings that stay as they are, and what to mind when they do not.
REASONS = {
    ("crrl", "key"): "with `key: view` augment something, or query and key are the same clip",
}

# --- what a comparison draws of each method: a few parameters, so that none of them starves --------------------------

COMPARED = {
    "skeletonclr": ("temperature", "momentum"),
    "skeletonbyol": ("momentum",),
    "cmal": ("momentum", "repulsion"),
    "cmcs": ("momentum", "cross_start", "cross_weight"),
    "crossclr": ("temperature", "momentum", "cross_start"),
    "aimclr": ("temperature", "momentum", "d3m_weight", "mining_start"),
    "skelemixclr": ("temperature", "momentum", "regional_weight"),
    "skelemixclr_plus": ("temperature", "momentum", "regional_weight"),
    "skeletonbt": ("off_diagonal",),
    "pstl": ("off_diagonal", "mask_joints", "mask_frames"),
    "scdnet": ("temperature", "momentum"),
    "cmd": ("temperature", "momentum", "cmd_weight"),
    "crrl": ("temperature", "momentum", "fuse_start"),
}

# --- datasets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """``clips``: about how many are left to pretrain on. ``epochs``: where a run's length is not the recipe's.

    ``own`` and ``step_at``: what a method's public code sets for this dataset alone. ``preprocess``: one recipe for all
    methods, where the dataset has its own. ``few``: so small that published sizes do not suit it. A text beside a value
    says why.
    """

    folder: str
    title: str
    source: str
    raw: str
    split: tuple[str, str]
    validate_on: tuple[str, str]
    clips: int
    compared: int = 300  # epochs of the comparison
    preprocess: tuple[str, str] | None = None
    epochs: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    own: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    step_at: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    few: bool = False


_CMCS = "its configuration for this dataset lets streams look across after {} epochs"
_LONGER = (300, "the published length, for NTU, would be a few hundred steps here")
DATASETS = (
    Dataset(
        folder="ntu60",
        title="NTU RGB+D 60",
        source="nturgb+d_skeletons",
        raw="or the download itself, nturgb+d_skeletons or its zips: converted at first use and kept",
        split=("xsub", "20 of 40 subjects train; or xview: cameras 2 and 3 train, camera 1 tests"),
        validate_on=("auto", "about 15 % of the training subjects, drawn by the seed; the test clips stay unseen"),
        clips=34_000,  # 40,091 of 20 subjects, 3 of them held out
    ),
    Dataset(
        folder="ntu120",
        title="NTU RGB+D 120",
        source="nturgb+d_skeletons",
        raw="or the download itself, nturgb+d_skeletons or its zips: converted at first use and kept",
        split=("xsub", "53 of 106 subjects train; or xset: setups with even numbers train"),
        validate_on=("auto", "about 15 % of the training subjects, drawn by the seed; the test clips stay unseen"),
        clips=53_500,  # 63,026 of 53 subjects, 8 of them held out
        epochs={"cmcs": (80, "its configuration for this dataset")},
        own={"cmcs": ("cross_start: 0.5", _CMCS.format("40 of 80"))},
    ),
    Dataset(
        folder="pku1",
        title="PKU-MMD, part I",
        source="pku_mmd_1",
        raw="or the download itself, the folder with skeleton and label texts: converted at first use and kept",
        split=("xsub", "by the official list; or xview"),
        validate_on=(
            "{held_out_share: 0.15}",
            "clips by chance: the videos do not say who performs, so no subject can be held out. The same persons "
            "train and validate, which flatters; the test clips stay unseen",
        ),
        clips=16_000,  # 18,841, a share of 0.15 held out
        epochs={"cmcs": (150, "its configuration for this dataset")},
        own={"cmcs": ("cross_start: 0.6667", _CMCS.format("100 of 150"))},
    ),
    Dataset(
        folder="pku2",
        title="PKU-MMD, part II",
        source="pku_mmd_2",
        raw="or the download itself, the folder with skeleton and label texts: converted at first use and kept",
        split=("xsub", "performers 2, 3 and 7 test; or xview, by the official list"),
        validate_on=("auto", "about 15 % of the training performers, drawn by the seed; the test clips stay unseen"),
        clips=4_300,  # 5,332 of 10 performers, 2 of them held out
        epochs={
            "cmcs": (250, "its configuration for this dataset"),
            "cmd": (1001, "its configuration for this dataset"),
            "cmal": (250, "as CMCS for this dataset; its own 60 epochs for NTU are a tenth of the steps here"),
            "skeletonbyol": (250, "as CMCS for this dataset; 60 epochs, as for NTU, are a tenth of the steps here"),
        },
        own={"cmcs": ("cross_start: 0.8", _CMCS.format("200 of 250"))},
        step_at={"cmd": (0.8002, "after 801 of 1001 epochs, its configuration for this dataset")},
    ),
    Dataset(
        folder="nw_ucla",
        title="NW-UCLA",
        source="all_sqe",
        raw="or the download itself, all_sqe with its .json files: converted at first use and kept",
        split=(
            "xview",
            "views 1 and 2 train, view 3 tests. 95 test clips are copies of training clips: `data convert "
            "--drop-duplicates` stores a split xview_clean without them",
        ),
        validate_on=(
            "auto",
            "training subjects drawn by the seed, in the training views. {held_out_cameras: [2]} asks the test's own "
            "question, a new view, for half the clips to train on",
        ),
        clips=820,  # about 1,000, 2 of 10 subjects held out
        preprocess=(
            "ucla",
            "CTR-GCN's for this dataset: every axis from -1 to 1, which loses proportions; [trim, centre_first, "
            "rotate_y, resize] keeps them and turns bodies to the front",
        ),
        epochs=dict.fromkeys(("skeletonbyol", "cmal", "cmcs", "pstl", "skeletonbt"), _LONGER),
        few=True,
    ),
)  # fmt: skip

# What is drawn on few clips, where the published size makes no sense.
FEW_QUEUE = Range("choice", (512, 256, 128, 64))  # the first is what `published` starts with
FEW_BATCH = {128: Range("choice", (32, 64, 128)), 64: Range("choice", (32, 64)), 32: Range("choice", (16, 32, 64))}

# --- published linear evaluations, top-1 in %, as far as they could be read -------------------------------------------

_README, _TABLES = "its README", "third-party tables"
RESULTS: Mapping[str, Mapping[str, str]] = {
    "ntu60": {
        "skeletonclr": f"xsub 68.3, xview 76.4 (joint; CrosSCLR's README; three streams 75.0 and 79.8 in {_TABLES})",
        "cmcs": f"78.57 and 84.50 (three streams; {_README}, where both are labelled xsub)",
        "crossclr": f"xsub 77.8, xview 83.4 ({_README})",
        "aimclr": f"xsub 74.34, xview 79.68 (joint; three streams 79.18 and 84.02; {_README})",
        "skelemixclr": f"xsub 79.6, xview 84.4 (joint; {_README})",
        "skelemixclr_plus": f"xsub 80.7, xview 85.5 (joint; {_README})",
        "pstl": f"xsub 77.3, xview 81.8 (joint; {_TABLES})",
        "scdnet": f"xsub 86.57 (joint; its repository's log), xview 91.7 ({_TABLES})",
        "cmd": f"xsub 84.1, xview 90.9 (three streams; {_TABLES})",
    },
    "ntu120": {
        "skeletonclr": "xsub 56.8, xset 55.9 (joint; SkeleMixCLR's README)",
        "cmcs": f"xsub 68.54, xset 71.10 (three streams; {_README})",
        "crossclr": f"xsub 67.9, xset 66.7 ({_README})",
        "aimclr": f"xsub 68.2, xset 68.8 (three streams; {_TABLES})",
        "skelemixclr": f"xsub 67.4, xset 69.6 (joint; {_README})",
        "skelemixclr_plus": f"xsub 69.0, xset 68.2 (joint; {_README})",
        "pstl": f"xset 67.7 (joint; {_TABLES}, which disagree on xsub)",
        "scdnet": f"xsub 76.9, xset 80.1 (joint; {_TABLES})",
        "cmd": f"xsub 74.7, xset 76.1 (three streams; {_TABLES})",
    },
    "pku1": {
        "cmcs": f"88.05 (three streams; {_README})",
        "crossclr": f"84.9 (three streams; {_TABLES})",
        "aimclr": f"83.43 (joint; three streams 87.79; {_README})",
        "pstl": f"88.4 (joint; {_TABLES})",
        "scdnet": f"91.9 (joint; {_TABLES})",
    },
    "pku2": {
        "cmcs": f"53.48 (three streams; {_README})",
        "scdnet": f"54.0 (joint; {_TABLES})",
    },
    "nw_ucla": {},
}
