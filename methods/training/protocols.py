"""How a pretrained encoder is judged: named protocols, ours and each paper's, as frozen values.

Three kinds: a probe on cached features (ours), a linear head trained step by step on the frozen encoder (the papers'),
and training all parameters (fine-tuning; with few labels, the semi-supervised protocols). What a protocol says is how
one trains; which epoch counts (``last`` or, as the papers have it, ``best`` on the test side) is the caller's wish.

Sources: the public codes' evaluation scripts and settings (CrosSCLR, AimCLR, CMCS, SkeleMixCLR, SCD-Net, CMD, PSTL,
CRRL). Clips are of T frames here, so a crop of "0.95 of the valid frames" is taken of those, not of the recording.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from methods.augment.policy import AugmentConfig
from methods.errors import InputError, did_you_mean
from methods.fields import require
from methods.training.probe import ProbeConfig

HEADS = ("apart", "sum", "mean")


@dataclass(frozen=True)
class Training:
    """How heads (and an encoder) are trained; all times in epochs of ``epochs``.

    ``lr`` is the head's rate and ``encoder_share`` the encoder's as a share of it. From ``milestones`` epochs on the
    rate is multiplied by ``factor`` each; ``cosine`` falls to 0 instead, epoch by epoch; ``warmup`` epochs rise
    linearly first. ``clip_norm`` bounds the gradient of a stream's parameters. ``drop_last`` leaves out an epoch's last
    short batch. ``init_std`` is the head's, 0 for Xavier's normal rule. ``evaluate_every``: where ``best`` may look.
    """

    epochs: int
    batch: int
    lr: float
    optimiser: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    cosine: bool = False
    warmup: int = 0
    encoder_share: float = 1.0
    clip_norm: float | None = None
    drop_last: bool = False
    init_std: float = 0.01
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"a protocol trains at least 1 epoch, got {self.epochs}")
        require(self.batch >= 1, f"a protocol's batch must be at least 1, got {self.batch}")
        require(0 < self.lr < math.inf, f"a protocol's lr must be positive and finite, got {self.lr}")
        require(self.optimiser in ("sgd", "adam"), f"a protocol's optimiser is sgd or adam, got {self.optimiser!r}")
        require(self.encoder_share >= 0, f"encoder_share must not be negative, got {self.encoder_share}")
        require(self.clip_norm is None or self.clip_norm > 0, f"clip_norm must be positive, got {self.clip_norm}")
        require(self.evaluate_every >= 1, f"evaluate_every must be at least 1, got {self.evaluate_every}")

    def rate(self, epoch: int) -> float:
        """The head's learning rate in the epoch that follows ``epoch`` finished ones."""
        if epoch + 1 < self.warmup:
            return self.lr * (epoch + 1) / self.warmup
        if self.cosine:
            return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.lr * self.factor ** sum(epoch >= milestone for milestone in self.milestones)

    def lasting(self, epochs: int) -> Training:
        """The same over another number of epochs: milestones and warm-up keep their places."""

        def moved(time: int) -> int:
            return round(time * epochs / self.epochs)

        milestones = tuple(moved(time) for time in self.milestones)
        return dataclasses.replace(self, epochs=epochs, milestones=milestones, warmup=moved(self.warmup))


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What every protocol has: a name, a line about it, and where its numbers were read.

    ``middle``: the share of frames that un-augmented clips keep, from the centre and stretched back to T.
    """

    name: str
    doc: str
    source: str = "ours"
    middle: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.middle <= 1, f"protocol {self.name}: middle is a share in (0, 1], got {self.middle}")


@dataclass(frozen=True, kw_only=True)
class ProbeProtocol(Protocol):
    """A probe on features extracted once: our linear one, kNN, retrieval. Without epochs, without chance."""

    probe: ProbeConfig = field(default_factory=ProbeConfig)


@dataclass(frozen=True, kw_only=True)
class LinearProtocol(Protocol):
    """A linear head a stream, trained on the frozen encoder in evaluation mode.

    ``heads``: trained ``apart`` and fused afterwards, or together on the ``sum`` or ``mean`` of all streams' logits.
    ``fuse``: (stream, weight) of the published fusion. ``augment``: the training clips' views; None leaves them plain,
    so that features are extracted once. ``settle``: average batch-norm statistics over plain clips first.
    """

    training: Training
    heads: str = "apart"
    fuse: tuple[tuple[str, float], ...] = ()
    augment: AugmentConfig | None = None
    settle: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.heads in HEADS, f"protocol {self.name}: heads must be one of {HEADS}, got {self.heads!r}")


@dataclass(frozen=True, kw_only=True)
class FinetuneProtocol(Protocol):
    """All parameters trained, each stream's encoder with a linear head.

    ``frozen_statistics``: the encoder stays in evaluation mode (batch norm by its running statistics, which do not
    move; no dropout) while it is trained: a quirk of the CrosSCLR family that its numbers depend on.
    ``labels``: the share of training labels that is used, class by class (``balanced``) or of all clips together;
    ``draws``: how often such a part, and the head, are drawn.
    """

    training: Training
    frozen_statistics: bool = False
    augment: AugmentConfig | None = None
    labels: float = 1.0
    balanced: bool = True
    draws: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.labels <= 1, f"protocol {self.name}: labels is a share in (0, 1], got {self.labels}")
        require(self.draws >= 1, f"protocol {self.name}: draws must be at least 1, got {self.draws}")


# --- ours -----------------------------------------------------------------------------------------------------------

# A new head learns ten times as fast as the encoder that it would otherwise lead astray.
_OURS = Training(
    epochs=100, batch=64, lr=1e-2, optimiser="adam", weight_decay=1e-4, cosine=True, warmup=5, encoder_share=0.1
)
_FEW = dataclasses.replace(_OURS, batch=32)
_MILD = AugmentConfig(crop=6.0, shear=0.3)

# --- the papers -----------------------------------------------------------------------------------------------------

_CRS = "linear_evaluation.py of CrosSCLR's public code; the same in AimCLR's, CMCS's and SkeleMixCLR's"
_CRS_LINEAR = Training(epochs=100, batch=128, lr=3.0, milestones=(80,), drop_last=True, init_std=0.02, evaluate_every=5)
_CRS_TUNED = Training(
    epochs=110,
    batch=128,
    lr=0.1,
    nesterov=True,
    weight_decay=1e-4,
    milestones=(50, 70, 90),
    warmup=10,
    drop_last=True,
    init_std=0.02,
    evaluate_every=5,
)
_SMX_SEMI = Training(
    epochs=150, batch=128, lr=0.05, milestones=(40,), clip_norm=5.0, drop_last=True, init_std=0.02, evaluate_every=5
)
_MOCO = Training(epochs=80, batch=64, lr=0.1, milestones=(50, 70), evaluate_every=5)
_CMD_CROP = AugmentConfig(crop=0.0, shear=0.0, crop_resize=0.5)
_CMD_TUNED = dataclasses.replace(_MOCO, lr=0.01)
_PSTL_TUNED = Training(epochs=150, batch=128, lr=5e-3, optimiser="adam", cosine=True, init_std=0.0)
# The public code lowers the rate after an epoch e > 15, 35, ..., so from 17, 37, ... finished ones on.
_CRRL = Training(epochs=85, batch=16, lr=0.1, nesterov=True, milestones=(17, 37, 52, 68, 77), factor=0.5)

_ALL: tuple[Protocol, ...] = (
    ProbeProtocol(name="linear", doc="logistic regression on features, by L-BFGS to its optimum"),
    ProbeProtocol(name="knn", doc="20 nearest neighbours, weights exp(cosine / 0.1)", probe=ProbeConfig(kind="knn")),
    ProbeProtocol(name="retrieval", doc="the nearest neighbour by cosine", probe=ProbeConfig(kind="knn", knn_k=1)),
    FinetuneProtocol(name="finetune", doc="all parameters, all labels", training=_OURS, augment=_MILD),
    FinetuneProtocol(
        name="semi_1", doc="all parameters, 1 % of each class", training=_FEW, augment=_MILD, labels=0.01, draws=5
    ),
    FinetuneProtocol(
        name="semi_10", doc="all parameters, 10 % of each class", training=_FEW, augment=_MILD, labels=0.1, draws=5
    ),
    LinearProtocol(
        name="linear_crossclr",
        doc="SGD at 3.0, 100 epochs; streams' heads together, on the mean of their logits",
        source=_CRS,
        training=_CRS_LINEAR,
        heads="mean",
    ),
    LinearProtocol(
        name="linear_aimclr",
        doc="SGD at 3.0, 100 epochs; heads apart, fused 0.6 joint, 0.6 bone, 0.4 motion",
        source="AimCLR's public code: linear_evaluation.py and ensemble_*.py",
        training=_CRS_LINEAR,
        fuse=(("joint", 0.6), ("bone", 0.6), ("motion", 0.4)),
    ),
    LinearProtocol(
        name="linear_cmcs",
        doc="SGD at 3.0, 100 epochs; streams' heads together, on the sum of their logits",
        source="CMCS's public code: linear_evaluation.py and linear_evaluation_3views.py",
        training=_CRS_LINEAR,
        heads="sum",
    ),
    LinearProtocol(
        name="linear_skelemixclr",
        doc="SGD at 3.0, 150 epochs",
        source="SkeleMixCLR's public code",
        training=dataclasses.replace(_CRS_LINEAR, epochs=150),
    ),
    LinearProtocol(
        name="linear_scdnet",
        doc="SGD at 2, batches of 1024, 80 epochs",
        source="SCD-Net's public code: action_classification.py and its README",
        middle=0.95,
        training=dataclasses.replace(_MOCO, lr=2.0, batch=1024, evaluate_every=1),
    ),
    LinearProtocol(
        name="linear_cmd",
        doc="SGD at 0.1, 80 epochs, on random crops of time",
        source="CMD's public code: action_classification_cmd.py",
        middle=0.95,
        training=_MOCO,
        augment=_CMD_CROP,
    ),
    LinearProtocol(
        name="linear_pstl",
        doc="Adam at 0.01, cosine over 150 epochs",
        source="PSTL's public code: procedure.py (there the mean over batches is reported, here over clips)",
        training=dataclasses.replace(_PSTL_TUNED, lr=0.01),
    ),
    LinearProtocol(
        name="linear_crrl",
        doc="SGD at 0.1, batches of 16, 85 epochs",
        source="CRRL's public code: main_evaluation.py",
        training=_CRRL,
    ),
    ProbeProtocol(
        name="retrieval_scdnet",
        doc="the nearest neighbour by cosine, running statistics, the middle 0.95 of time",
        source="SCD-Net's action_retrieval.py; the same in CMD's public code",
        middle=0.95,
        probe=ProbeConfig(kind="knn", knn_k=1, settle=False),
    ),
    FinetuneProtocol(
        name="finetune_crossclr",
        doc="SGD at 0.1, 110 epochs, in evaluation mode",
        source="finetune_evaluation.py of the CrosSCLR family with SkeleMixCLR's settings, the only public ones",
        training=_CRS_TUNED,
        frozen_statistics=True,
    ),
    FinetuneProtocol(
        name="finetune_pstl",
        doc="Adam at 0.005, cosine over 150 epochs",
        source="PSTL's public code: procedure.py",
        training=_PSTL_TUNED,
    ),
    FinetuneProtocol(
        name="finetune_cmd",
        doc="SGD at 0.01, 80 epochs, on random crops of time; CMD's transfer",
        source="CMD's public code: action_classification_cmd_semi.py with all labels",
        middle=0.95,
        training=_CMD_TUNED,
        augment=_CMD_CROP,
    ),
    FinetuneProtocol(
        name="finetune_crrl",
        doc="SGD at 0.1 for the head and 0.01 for the encoder, 85 epochs; CRRL's transfer",
        source="CRRL's public code: main_evaluation.py (there the encoder's rate jumps to the head's at a milestone)",
        training=dataclasses.replace(_CRRL, encoder_share=0.1),
    ),
    FinetuneProtocol(
        name="semi_1_skelemixclr",
        doc="1 % of each class, SGD at 0.05, 150 epochs, in evaluation mode",
        source="SkeleMixCLR's public settings",
        training=_SMX_SEMI,
        frozen_statistics=True,
        labels=0.01,
    ),
    FinetuneProtocol(
        name="semi_10_skelemixclr",
        doc="10 % of each class, SGD at 0.1, 150 epochs, in evaluation mode",
        source="SkeleMixCLR's public settings",
        training=dataclasses.replace(_SMX_SEMI, lr=0.1, milestones=(80,), weight_decay=1e-4),
        frozen_statistics=True,
        labels=0.1,
    ),
    FinetuneProtocol(
        name="semi_10_pstl",
        doc="10 % of each class, Adam at 0.005, cosine over 150 epochs",
        source="PSTL's public code: procedure.py",
        training=_PSTL_TUNED,
        labels=0.1,
    ),
    FinetuneProtocol(
        name="semi_1_cmd",
        doc="1 % of all clips by chance, SGD at 0.01, 80 epochs, 5 draws",
        source="CMD's public code: action_classification_cmd_semi.py",
        middle=0.95,
        training=_CMD_TUNED,
        augment=_CMD_CROP,
        labels=0.01,
        balanced=False,
        draws=5,
    ),
    FinetuneProtocol(
        name="semi_10_cmd",
        doc="10 % of all clips by chance, SGD at 0.01, 80 epochs, 5 draws",
        source="CMD's public code: action_classification_cmd_semi.py",
        middle=0.95,
        training=_CMD_TUNED,
        augment=_CMD_CROP,
        labels=0.1,
        balanced=False,
        draws=5,
    ),
)

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises ``InputError`` with the nearest known one."""
    if name not in PROTOCOLS:
        raise InputError(f"unknown protocol '{name}'{did_you_mean(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def lasting(protocol: Protocol, epochs: int) -> Protocol:
    """The protocol over another number of epochs, its schedule in proportion; one without epochs as it is."""
    if isinstance(protocol, LinearProtocol | FinetuneProtocol):
        return dataclasses.replace(protocol, training=protocol.training.lasting(epochs))
    return protocol
