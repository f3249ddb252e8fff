"""Named protocols and their scores: published settings, sides that stay apart, fusion, epochs, draws."""

from __future__ import annotations

import dataclasses
import math
import statistics

import numpy as np
import pytest
import torch
from tiny import BUSH15, copy_state, make_clips, make_config, same
from torch import Tensor

from methods.augment.policy import AugmentConfig
from methods.data.layouts import NTU25
from methods.data.splits import Split
from methods.errors import InputError
from methods.training import evaluate
from methods.training.branches import Branches
from methods.training.clips import ClipStore
from methods.training.config import StreamsConfig
from methods.training.downstream import TOGETHER, Judgement, judge
from methods.training.features import extract
from methods.training.fusion import Fusion, fuse_streams, parse_fusion, search_fusion
from methods.training.predictors import FUSED, Predictor, Progress
from methods.training.probe import ProbeConfig
from methods.training.protocols import (
    PROTOCOLS,
    FinetuneProtocol,
    LinearProtocol,
    ProbeProtocol,
    Protocol,
    Training,
    get_protocol,
    lasting,
)
from methods.training.views import check_fit, fitting_store, make_view

CLIPS = make_clips(60, frames=8, subjects=6, layout=BUSH15, persons=1)
TRAIN = [i for i in range(60) if i // 4 % 6 < 4]
VALIDATION = [i for i in range(60) if i // 4 % 6 == 4]
TEST = [i for i in range(60) if i // 4 % 6 == 5]
LINEAR = dataclasses.replace(get_protocol("linear"), probe=ProbeConfig(l2=0.1))  # quickly there
SHORT = Training(epochs=3, batch=8, lr=0.05, init_std=0.02)
HEADS = LinearProtocol(name="heads", doc="", training=SHORT)
TUNED = FinetuneProtocol(name="tuned", doc="", training=dataclasses.replace(SHORT, epochs=2))
SPLIT = Split("by hand", *(np.array(part) for part in (TRAIN, VALIDATION, TEST)), None, (4,), "")
FOLDED = Split(
    "folded",
    np.array(TRAIN),
    np.array([], dtype=int),
    np.array(TEST),
    np.array([-1 if i % 9 == 0 else i // 4 % 6 % 3 for i in TRAIN]),
    (),
    "",
)


def store_of(clips=CLIPS) -> ClipStore:
    return ClipStore(clips, torch.device("cpu"))


def model_of(method: str = "skeletonclr", use: tuple[str, ...] = ("joint", "bone"), fuse: object = "equal") -> Branches:
    config = make_config(method, frames=8, streams=StreamsConfig(use, fuse=fuse))
    return Branches(config, CLIPS.layout, seed=0, persons=1)


MODEL = model_of()


def changed(clips=CLIPS, **indices: list[int]) -> ClipStore:
    """The store with the named clips' ``labels`` moved on by one, or their ``data`` NaN."""
    labels, data = clips.labels.copy(), clips.data.copy()
    labels[indices.get("labels", [])] = (labels[indices.get("labels", [])] + 1) % 4
    data[indices.get("data", [])] = np.nan
    return store_of(dataclasses.replace(clips, labels=labels, data=data))


def plain(found: Judgement) -> list[tuple]:
    return [(s.stream, s.top1, s.loss, s.epochs) for s in found.scores]


# --- the presets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("linear_crossclr", {1: 3.0, 80: 3.0, 81: 0.3, 100: 0.3}),
        ("linear_aimclr", {80: 3.0, 81: 0.3, 100: 0.3}),
        ("linear_cmcs", {80: 3.0, 81: 0.3, 100: 0.3}),
        ("linear_skelemixclr", {80: 3.0, 81: 0.3, 150: 0.3}),
        ("linear_scdnet", {50: 2.0, 51: 0.2, 70: 0.2, 71: 0.02, 80: 0.02}),
        ("linear_cmd", {50: 0.1, 51: 0.01, 71: 0.001, 80: 0.001}),
        ("linear_pstl", {1: 0.01, 76: 0.005, 150: 0.01 * 0.5 * (1 + math.cos(math.pi * 149 / 150))}),
        ("linear_crrl", {1: 0.1, 17: 0.1, 18: 0.05, 38: 0.025, 53: 0.0125, 69: 0.00625, 78: 0.003125, 85: 0.003125}),
        ("finetune_crossclr", {1: 0.01, 9: 0.09, 10: 0.1, 50: 0.1, 51: 0.01, 71: 1e-3, 91: 1e-4, 110: 1e-4}),
        ("finetune_pstl", {1: 5e-3, 76: 2.5e-3}),
        ("finetune_cmd", {50: 0.01, 51: 1e-3, 80: 1e-4}),
        ("semi_1_skelemixclr", {40: 0.05, 41: 0.005, 150: 0.005}),
        ("semi_10_skelemixclr", {80: 0.1, 81: 0.01, 150: 0.01}),
    ],
)
def test_published_rates_epoch_by_epoch(name: str, rates: dict[int, float]) -> None:
    """Epochs counted from 1, the last one given being the last there is."""
    training = get_protocol(name).training
    assert {epoch: training.rate(epoch - 1) for epoch in rates} == pytest.approx(rates)
    assert max(rates) == training.epochs or name == "finetune_pstl"


def test_published_settings() -> None:
    settings = {n: p.training for n, p in PROTOCOLS.items() if isinstance(p, LinearProtocol | FinetuneProtocol)}
    batches = {"linear_scdnet": 1024, "linear_cmd": 64, "linear_crrl": 16, "finetune_crrl": 16, "finetune_cmd": 64}
    assert {name: settings[name].batch for name in batches} == batches
    assert {name for name, t in settings.items() if t.optimiser == "adam"} == {
        "finetune",
        "semi_1",
        "semi_10",
        "linear_pstl",
        "finetune_pstl",
        "semi_10_pstl",
    }
    frozen = {n for n, p in PROTOCOLS.items() if isinstance(p, FinetuneProtocol) and p.frozen_statistics}
    assert frozen == {"finetune_crossclr", "semi_1_skelemixclr", "semi_10_skelemixclr"}  # the CrosSCLR family's quirk
    assert {name for name in settings if settings[name].nesterov} == {
        "linear_crrl",
        "finetune_crrl",
        "finetune_crossclr",
    }
    assert settings["finetune_crrl"].encoder_share == 0.1
    assert [PROTOCOLS[name].draws for name in ("semi_1", "semi_10", "semi_1_cmd", "finetune")] == [5, 5, 5, 1]
    assert [PROTOCOLS[name].heads for name in ("linear_crossclr", "linear_cmcs", "linear_aimclr")] == [
        "mean",
        "sum",
        "apart",
    ]
    assert dict(PROTOCOLS["linear_aimclr"].fuse) == {"joint": 0.6, "bone": 0.6, "motion": 0.4}
    assert {name for name, p in PROTOCOLS.items() if p.middle == 0.95} == {
        "linear_scdnet",
        "linear_cmd",
        "retrieval_scdnet",
        "finetune_cmd",
        "semi_1_cmd",
        "semi_10_cmd",
    }
    assert PROTOCOLS["retrieval"].probe.knn_k == 1 and PROTOCOLS["knn"].probe.knn_k == 20
    assert all(p.doc and p.source for p in PROTOCOLS.values())


def test_another_length_keeps_the_places_of_the_milestones() -> None:
    short = lasting(get_protocol("finetune_crossclr"), 22).training
    assert (short.epochs, short.milestones, short.warmup) == (22, (10, 14, 18), 2)
    assert lasting(get_protocol("knn"), 5) == get_protocol("knn")


def test_unknown_names_and_impossible_values() -> None:
    with pytest.raises(InputError, match=r"unknown protocol 'finetun'; did you mean 'finetune'\?"):
        get_protocol("finetun")
    for wrong in ({"epochs": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": math.inf}, {"optimiser": "lion"}, {"clip_norm": 0}):
        with pytest.raises(InputError):
            dataclasses.replace(SHORT, **wrong)
    for protocol, wrong in (
        (TUNED, {"labels": 0}),
        (TUNED, {"draws": 0}),
        (HEADS, {"heads": "x"}),
        (HEADS, {"middle": 2}),
    ):
        with pytest.raises(InputError):
            dataclasses.replace(protocol, **wrong)


# --- the same numbers as what is known ------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", ["fitted", (0.3, 0.7)])
@pytest.mark.parametrize("on", ["test", "validation", "folds"])
@pytest.mark.parametrize("protocol", [LINEAR, get_protocol("knn")], ids=lambda p: p.name)
def test_probes_are_those_of_a_search(protocol: ProbeProtocol, on: str, fuse: object) -> None:
    model = model_of(fuse=fuse)
    split = FOLDED if on == "folds" else SPLIT
    theirs = (evaluate.test if on == "test" else evaluate.validate)(model, store_of(), split, protocol.probe)
    found = judge(model, store_of(), split, protocol, on="test" if on == "test" else "validation")
    mine = {s.stream: (s.top1[0], s.loss[0]) for s in found.scores}
    fused = mine.pop(FUSED)
    # Folds come one after the other here, so that means are taken in another order.
    assert mine == {stream: pytest.approx(pair, rel=1e-5) for stream, pair in theirs.streams.items()}
    assert fused == pytest.approx((theirs.top1, theirs.loss), rel=1e-4)
    assert found.weights[0] == pytest.approx(theirs.fuse, abs=5e-4)  # as near as their fit comes to its optimum
    assert (found.clips, found.draws, found.epoch_rule) == (len(theirs.clips), 1, "no epochs")


def test_protocols_share_the_features_that_they_take_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """linear, knn and retrieval one extraction; unsettled heads one of their own; the same scores as each alone."""
    asked = [LINEAR, get_protocol("knn"), HEADS, get_protocol("retrieval"), dataclasses.replace(HEADS, name="again")]
    alone = [judge(model_of(), store_of(), SPLIT, each) for each in asked]
    calls: list[bool] = []

    def counted(*arguments: object, **words: object) -> dict[str, Tensor]:
        calls.append(arguments[3] is not None)
        return extract(*arguments, **words)  # type: ignore[arg-type]

    monkeypatch.setattr("methods.training.predictors.extract", counted)
    model, store, shared = model_of(), store_of(), {}
    together = [judge(model, store, SPLIT, each, shared=shared) for each in asked]
    assert calls == [True, False]
    assert [t.scores for t in together] == [a.scores for a in alone]
    judge(model, store, SPLIT, LINEAR, on="validation", shared=shared)
    assert calls == [True, False, True], "of other clips"


def test_retrieval_is_the_label_of_the_nearest() -> None:
    found = judge(model_of(use=("bone",)), store_of(), SPLIT, get_protocol("retrieval"))
    both = [*sorted(TRAIN + VALIDATION), *TEST]
    train = len(both) - len(TEST)
    settled = torch.as_tensor(both[:train])
    z = extract(model_of(use=("bone",)), store_of(), torch.as_tensor(both), settled)["bone"].numpy().astype(np.float64)
    right = 0
    for i in range(train, len(both)):
        cosines = [float(z[i] @ z[j]) / math.sqrt(float(z[i] @ z[i]) * float(z[j] @ z[j])) for j in range(train)]
        nearest = both[max(range(train), key=lambda j, cosines=cosines: cosines[j])]
        right += CLIPS.labels[nearest] == CLIPS.labels[both[i]]
    assert found.scores[0].top1 == (pytest.approx(right / len(TEST)),)
    assert (found.labelled, found.clips) == (train, len(TEST))


@pytest.mark.parametrize("method", ["cmcs", "crossclr", "skeletonclr", "skeletonbyol"])
@pytest.mark.parametrize("protocol", [HEADS, dataclasses.replace(HEADS, heads="mean"), TUNED], ids=lambda p: p.name)
def test_every_kind_of_method(method: str, protocol: Protocol) -> None:
    model = model_of(method)
    before = copy_state(model)
    told: list[Progress] = []
    found = judge(model, store_of(), SPLIT, protocol, tell=told.append)
    assert [s.stream for s in found.scores] == ["joint", "bone", FUSED]
    assert all(0 <= s.top1[0] <= 1 and math.isfinite(s.loss[0]) for s in found.scores)
    assert same(copy_state(model), before)
    assert [p.epoch for p in told] == list(range(1, protocol.training.epochs + 1))
    assert found.epoch_rule == f"last epoch ({protocol.training.epochs})"


def test_a_single_stream_has_no_fused_row() -> None:
    found = judge(model_of(use=("bone",)), store_of(), SPLIT, dataclasses.replace(HEADS, heads="mean"))
    assert [s.stream for s in found.scores] == ["bone"]
    assert found.weights == ((1.0,),)


# --- sides ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "fuse"),
    [(LINEAR, "fitted"), (HEADS, "fitted"), (HEADS, "equal"), (TUNED, "equal")],
    ids=lambda x: getattr(x, "name", x),
)
def test_validation_reads_nothing_of_the_test_side(protocol: Protocol, fuse: str) -> None:
    fusion = parse_fusion(fuse, ("joint", "bone"))
    found = [
        judge(MODEL, store, SPLIT, protocol, on="validation", fusion=fusion)
        for store in (store_of(), changed(data=TEST, labels=TEST))
    ]
    assert plain(found[0]) == plain(found[1])


def test_the_scored_labels_touch_nothing_but_the_score() -> None:
    """Also fitted and searched weights are the same whatever the test labels are; and so is every prediction."""
    for protocol in (LINEAR, HEADS):
        for fuse in ("fitted", "searched"):
            fusion = parse_fusion(fuse, ("joint", "bone"))
            right, wrong = (
                judge(MODEL, store, SPLIT, protocol, fusion=fusion) for store in (store_of(), changed(labels=TEST))
            )
            assert right.weights == wrong.weights
            assert right.scores[2].top1[0] + wrong.scores[2].top1[0] <= 1


def test_searched_weights_come_of_validation_alone() -> None:
    """Heads fitted on the training subjects, weights of the most accurate mixture on the validation subjects."""
    protocol = LINEAR
    found = judge(MODEL, store_of(), SPLIT, protocol, fusion=Fusion("searched"))
    predictor = Predictor(MODEL, store_of(), SPLIT, protocol, on="test", report="last", seed=0)
    seen = predictor.predict((np.array(TRAIN), np.array(VALIDATION)), Progress("linear", 1, 1, "", 0))
    labels = torch.as_tensor(CLIPS.labels[VALIDATION])
    assert found.fusion == "searched"
    assert found.weights[0] == search_fusion([seen.streams["joint"], seen.streams["bone"]], labels)
    assert judge(MODEL, changed(labels=TEST), SPLIT, protocol, fusion=Fusion("searched")).weights == found.weights
    for on, fusion in (("validation", Fusion("searched")), ("validation", Fusion("fitted"))):
        with pytest.raises(InputError, match=r"--fuse|weigh"):
            judge(MODEL, store_of(), SPLIT, TUNED, on=on, fusion=fusion)


def test_finetuned_streams_are_weighed_on_the_validation_subjects() -> None:
    told: list[Progress] = []
    found = judge(MODEL, store_of(), SPLIT, TUNED, fusion=Fusion("fitted"), tell=told.append)
    assert [p.what for p in told] == ["", "", "for the fusion", "for the fusion"]
    assert sum(found.weights[0]) == pytest.approx(1) and found.weights[0] != (0.5, 0.5)
    assert judge(MODEL, changed(labels=TEST), SPLIT, TUNED, fusion=Fusion("fitted")).weights == found.weights


def test_folds_are_trained_in_turn() -> None:
    told: list[Progress] = []
    found = judge(MODEL, store_of(), FOLDED, TUNED, on="validation", fusion=Fusion("fitted"), tell=told.append)
    assert [p.what for p in told][::2] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    used = [clip for clip, fold in zip(FOLDED.train, FOLDED.folds, strict=True) if fold >= 0]
    assert found.clips == len(used)
    assert sum(found.weights[0]) == pytest.approx(1)
    with pytest.raises(InputError, match="--fuse searched"):
        judge(MODEL, store_of(), FOLDED, LINEAR, on="validation", fusion=Fusion("searched"))


def test_what_cannot_be_asked() -> None:
    empty = dataclasses.replace(SPLIT, test=np.array([], dtype=int), validation=np.array([], dtype=int))
    with pytest.raises(InputError) as caught:
        judge(MODEL, store_of(), empty, HEADS, on="tset", report="bset", draws=0)
    assert len(caught.value.faults) == 3
    for on in ("test", "validation"):
        with pytest.raises(InputError, match=f"no {on} clip"):
            judge(MODEL, store_of(), empty, HEADS, on=on)


# --- epochs and draws -----------------------------------------------------------------------------------------------


def test_the_best_epoch_is_marked_and_never_worse() -> None:
    wild = dataclasses.replace(SHORT, epochs=8, lr=2.0, evaluate_every=2)
    for protocol in (dataclasses.replace(HEADS, training=wild), dataclasses.replace(HEADS, training=wild, heads="sum")):
        last, best = (judge(MODEL, store_of(), SPLIT, protocol, report=report) for report in ("last", "best"))
        assert best.epoch_rule == "best epoch on test, as published; not comparable"
        assert last.epoch_rule == "last epoch (8)"
        assert {e for s in last.scores for e in s.epochs} == {8}
        streams = [FUSED] if protocol.heads == "sum" else ["joint", "bone"]
        for a, b in zip(last.scores, best.scores, strict=True):
            if a.stream in streams:
                assert b.top1[0] >= a.top1[0]
        # by hand: train as long as each look is, and take the best of them
        looks = {}
        for epochs in (2, 4, 6, 8):
            cut = dataclasses.replace(protocol, training=dataclasses.replace(wild, epochs=epochs))
            looks[epochs] = judge(MODEL, store_of(), SPLIT, cut).scores
        for place, score in enumerate(best.scores):
            if score.stream in streams:
                expected = max(looks, key=lambda e, place=place: (looks[e][place].top1[0], -e))
                assert (score.epochs, score.top1) == ((expected,), looks[expected][place].top1)
    on = judge(MODEL, store_of(), SPLIT, HEADS, on="validation", report="best")
    assert on.epoch_rule == "best epoch on validation; not comparable"


def test_the_last_epoch_is_looked_at_whatever_the_interval() -> None:
    protocol = dataclasses.replace(HEADS, training=dataclasses.replace(SHORT, epochs=3, evaluate_every=2))
    best = judge(MODEL, store_of(), SPLIT, protocol, report="best")
    assert {e for s in best.scores for e in s.epochs} <= {2, 3}
    never = dataclasses.replace(HEADS, training=dataclasses.replace(SHORT, epochs=3, evaluate_every=9))
    last, best = (judge(MODEL, store_of(), SPLIT, never, report=report) for report in ("last", "best"))
    assert plain(last) == plain(best)


def test_draws_have_a_mean_and_a_spread() -> None:
    few = dataclasses.replace(TUNED, labels=0.2, draws=3)
    found = judge(MODEL, store_of(), SPLIT, few)
    assert found.draws == 3 and len(found.weights) == 3
    score = found.scores[0]
    assert len(score.top1) == 3
    assert score.mean == pytest.approx(sum(score.top1) / 3)
    assert score.spread == pytest.approx(statistics.stdev(score.top1))
    again = judge(MODEL, store_of(), SPLIT, few, draws=1)
    assert again.scores[0].top1 == score.top1[:1] and again.scores[0].spread is None
    assert judge(MODEL, store_of(), SPLIT, few, draws=1, seed=1).scores[0].loss != score.loss[:1]
    assert judge(MODEL, store_of(), SPLIT, get_protocol("knn"), draws=4).draws == 1  # there is no chance in it


def test_few_labels_are_balanced_parts_of_the_training_side() -> None:
    few = dataclasses.replace(TUNED, labels=0.25)
    predictor = Predictor(MODEL, store_of(), SPLIT, few, on="test", report="last", seed=0)
    whole = np.sort(TRAIN + VALIDATION)
    parts = [predictor.labelled(whole, draw) for draw in range(3)]
    for part in parts:
        assert set(part) <= set(whole)
        for label in range(4):
            count = (CLIPS.labels[whole] == label).sum()
            assert (CLIPS.labels[part] == label).sum() == int(count * 0.25 + 0.5)
    assert not np.array_equal(parts[0], parts[1])
    tenth = dataclasses.replace(few, labels=0.1)
    smaller = Predictor(MODEL, store_of(), SPLIT, tenth, on="test", report="last", seed=0).labelled(whole, 0)
    assert set(smaller) < set(parts[0])
    # and of the other clips nothing but that balance is looked at
    rest = sorted(set(whole) - set(parts[0]))
    a, b = (judge(MODEL, store, SPLIT, few) for store in (store_of(), changed(data=rest)))
    assert plain(a) == plain(b) and a.labelled == len(parts[0])


def test_few_labels_weigh_no_streams() -> None:
    few = dataclasses.replace(TUNED, labels=0.25)
    for rule in ("fitted", "searched"):
        with pytest.raises(InputError, match="more labels than the protocol has"):
            judge(MODEL, store_of(), SPLIT, few, fusion=Fusion(rule))
    found = judge(model_of(fuse="fitted"), store_of(), SPLIT, few)
    assert found.fusion == "equal" and "count equally" in found.notes[0]


def test_a_draw_that_diverges_is_told_and_counts_for_nothing() -> None:
    wild = dataclasses.replace(TUNED, training=dataclasses.replace(SHORT, lr=1e30), draws=2)
    found = judge(MODEL, store_of(), SPLIT, wild)
    assert found.scores == () and len(found.failed) == 2
    assert found.failed[1].startswith("draw 2 of 2 diverged at step")


# --- fusion ---------------------------------------------------------------------------------------------------------


def test_published_weights_go_by_name() -> None:
    aimclr = lasting(get_protocol("linear_aimclr"), 2)
    assert judge(MODEL, store_of(), SPLIT, aimclr).weights[0] == (0.5, 0.5)
    motion = model_of(use=("motion", "joint"))
    assert judge(motion, store_of(), SPLIT, aimclr).weights[0] == pytest.approx((0.4, 0.6))
    given = judge(motion, store_of(), SPLIT, aimclr, fusion=Fusion("given", (0.9, 0.1)))
    assert given.weights[0] == (0.9, 0.1) and given.fusion == "given"


def test_raw_logits_and_log_probabilities_fuse_alike() -> None:
    """AimCLR adds raw logits: a clip's log-sum-exp is one number for all classes, so the answers are the same."""
    logits = [torch.randn(50, 6) * 3 for _ in range(3)]
    weights = (0.6, 0.6, 0.4)
    raw = sum(w * z for w, z in zip(weights, logits, strict=True))
    fused = fuse_streams([z.log_softmax(1) for z in logits], weights)
    assert torch.equal(raw.argmax(1), fused.argmax(1))
    torch.testing.assert_close(fused, raw.log_softmax(1))


def test_heads_trained_together_take_no_weights() -> None:
    together = dataclasses.replace(HEADS, heads="sum")
    found = judge(MODEL, store_of(), SPLIT, together, fusion=Fusion("given", (0.9, 0.1)))
    assert found.fusion == TOGETHER and "does not apply" in found.notes[0]
    assert plain(found) == plain(judge(MODEL, store_of(), SPLIT, together))


def slow_search(logs: list[Tensor], labels: Tensor) -> float:
    """The best accuracy of all mixtures in steps of 0.05 of three streams."""
    best = 0.0
    for a in range(21):
        for b in range(21 - a):
            mixed = a * logs[0] + b * logs[1] + (20 - a - b) * logs[2]
            best = max(best, float((mixed.argmax(1) == labels).float().mean()))
    return best


def test_search_finds_the_most_accurate_mixture() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    hot = torch.nn.functional.one_hot(labels, 3).float()
    logs = [(hot * s + torch.randn(90, 3, generator=rng)).log_softmax(1) for s in (0.2, 1.0, 0.6)]
    weights = search_fusion(logs, labels)
    assert sum(weights) == pytest.approx(1)
    right = float((fuse_streams(logs, weights).argmax(1) == labels).float().mean())
    assert right == pytest.approx(slow_search(logs, labels))
    alike = [logs[1], logs[1]]
    assert search_fusion(alike, labels, steps=2) in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0))


@pytest.mark.parametrize(
    ("text", "rule", "weights"),
    [
        ("equal", "equal", (1 / 3,) * 3),
        ("fitted", "fitted", None),
        ("searched", "searched", None),
        ("0.6,0.6,0.4", "given", (0.375, 0.375, 0.25)),
        (" 1, 0 ,1", "given", (0.5, 0.0, 0.5)),
        ("motion=0.4,joint=0.6,bone=1", "given", (0.3, 0.2, 0.5)),
    ],
)
def test_fusion_from_the_command_line(text: str, rule: str, weights: tuple[float, ...] | None) -> None:
    found = parse_fusion(text, ("joint", "motion", "bone"))
    assert found.rule == rule
    assert found.weights == (None if weights is None else pytest.approx(weights))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("even", "one weight a stream"),
        ("1,2", "2 weights for 3 streams"),
        ("1,-1,1", "not negative"),
        ("0,0,0", "all zero"),
        ("nan,1,1", "finite"),
        ("joint=1,motoin=1,bone=1", "did you mean 'motion'"),
        ("joint=1,bone=1", "no weight for motion"),
        ("joint=1,joint=1,motion=2,bone=1", "named twice"),
        ("joint=x,motion=1,bone=1", "one weight a stream"),
        ("", "one weight a stream"),
    ],
)
def test_fusion_that_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_fusion(text, ("joint", "motion", "bone"))


# --- views and other data -------------------------------------------------------------------------------------------


def test_views() -> None:
    clips = torch.randn(4, 3, 20, 15, 1)
    clips[1, :, 10:] = 0  # ten valid frames
    rng = torch.Generator().manual_seed(0)
    assert make_view(BUSH15)(clips, rng) is clips
    middle = make_view(BUSH15, None, 0.5)(clips, rng)
    kept = torch.nn.functional.interpolate(
        clips[:1, :, 5:15].flatten(3), (20, 15), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(middle[:1].flatten(3), kept)  # joints are not mixed: as many come out as went in
    assert not torch.equal(middle[1, :, 10:], torch.zeros(3, 10, 15, 1))  # stretched from its own middle
    both = make_view(BUSH15, AugmentConfig(crop=0, shear=0.5), 0.5)
    assert torch.equal(both(clips, None), middle)
    assert not torch.equal(both(clips, rng), middle)


def test_other_data_gets_the_bodies_of_pretraining() -> None:
    store = fitting_store(store_of(), BUSH15, 3, 2)
    taken = store.take(torch.arange(5))
    assert taken.shape == (5, 3, 8, 15, 2)
    assert torch.equal(taken[..., :1], store_of().take(torch.arange(5))) and not taken[..., 1].any()
    same_size = store_of()
    assert fitting_store(same_size, BUSH15, 3, 1) is same_size
    features = extract(MODEL, store, torch.arange(5), None)
    assert features["joint"].shape[0] == 5


def test_other_joints_are_refused() -> None:
    renamed = dataclasses.replace(BUSH15, name="mine")
    check_fit(CLIPS, renamed, 3)  # a name is only a name
    with pytest.raises(InputError, match=r"ntu25, 25 joints.*bush15, 15 joints; joint 0 is 'joint0'"):
        check_fit(CLIPS, NTU25, 3)
    hung = dataclasses.replace(BUSH15, parents=(3, 3, 3, 7, 3, 7, 5, -1, 7, 8, 9, 9, 8, 12, 12), parts={})
    with pytest.raises(InputError) as caught:
        check_fit(CLIPS, hung, 2)
    assert len(caught.value.faults) == 2
    assert "another tree" in caught.value.faults[0] and "2 coordinates" in caught.value.faults[1]
