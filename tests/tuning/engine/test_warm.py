"""Warm starts: earlier draws in a changed space, what is a value and what a prior, and the line that says so."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.engine.fitting import Entry, Fitted, settings_of
from tuning.engine.warm import (
    Known,
    Prior,
    Source,
    WarmStart,
    best_priors,
    enter,
    fitting,
    from_plain,
    ranks,
    to_plain,
    together,
)
from tuning.space import Space, check_text
from tuning.space.domains import Int

HEAD = "format: 1\nname: a\ndata: {set: synthetic}\nsearch:\n"
OLD = """\
  method:
    one_of:
      skeletonclr: {temperature: {log: [0.05, 0.5]}, queue: 512, optim: {lr: {log: [0.01, 0.1]}}}
      skeletonbyol: {momentum: {near_one: [0.9, 0.999]}, hidden: {int: [32, 64]}}
  augment: {strength: {uniform: [0.2, 1.4]}}
  encoder: {width: {choice: [8, 16]}}
  optim: {lr: {log: [0.01, 0.3]}}
  streams: {use: [joint, motion, bone], fuse: {simplex: [joint, motion, bone]}}
"""


def space(text: str = OLD) -> Space:
    return check_text(HEAD + text)[1]


BOUND = space()
LIST_SPACE = space("  method: skeletonclr\n  streams: {use: {choice: [[joint], [joint, bone]]}}\n")
CLR = {
    "method": "skeletonclr",
    "method/skeletonclr/temperature": 0.4,
    "method/skeletonclr/optim/lr": 0.02,
    "augment/strength": 0.5,
    "encoder/width": 8,
    "streams/fuse/0": 0.25,
    "streams/fuse/1": 0.75,
}
BYOL = {
    "method": "skeletonbyol",
    "method/skeletonbyol/momentum/gap": 0.05,
    "method/skeletonbyol/hidden": 40,
    "augment/strength": 0.5,
    "encoder/width": 16,
    "optim/lr": 0.2,
    "streams/fuse/0": 0.0,
    "streams/fuse/1": 1.0,
}


def entry(draws: dict[str, Any], of: Space = BOUND, **rest: Any) -> Entry:
    """As a run folder gives a trial."""
    config = of.resolve(draws)
    return Entry(draws, config.method, settings_of(config), whole=True, **rest)


def scored(draws: dict[str, Any], top1: float, **rest: Any) -> Entry:
    return entry(draws, quality=(9.0, top1, 0.0), scores={9: (top1, 1.0)}, **rest)


def fitted(new: Space, one: Entry) -> Fitted:
    found = fitting(new, one)
    assert isinstance(found, Fitted), found
    return found


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_draws_come_back_the_same_from_the_same_space(seed: int, by_name: bool) -> None:
    """Bit for bit, by way of the config or by their names alone: what a model learns from is what was trained."""
    rng = np.random.default_rng(seed)
    for bound in (BOUND, LIST_SPACE):
        draws = bound.sample(rng)
        found = fitted(bound, Entry(draws) if by_name else entry(draws, bound))
        assert dict(found.draws) == draws
        assert found.share == 1.0 and not (found.filled or found.fixed or found.unknown)


@given(st.integers(0, 2**32 - 1), st.floats(0.06, 0.2), st.floats(1.5, 3))
@settings(max_examples=60, deadline=None)
def test_a_narrower_range_keeps_what_is_inside_and_fills_the_rest(seed: int, low: float, factor: float) -> None:
    new = space(OLD.replace("log: [0.05, 0.5]", f"log: [{low!r}, {low * factor!r}]"))
    draws = CLR | {"method/skeletonclr/temperature": float(np.random.default_rng(seed).uniform(0.05, 0.5))}
    found = fitted(new, entry(draws))
    inside = low <= draws["method/skeletonclr/temperature"] <= low * factor
    middle = 0.07 if low <= 0.07 <= low * factor else pytest.approx((low * low * factor) ** 0.5)
    assert dict(found.draws) == draws | ({} if inside else {"method/skeletonclr/temperature": middle})
    assert [label for label, _ in found.filled] == ([] if inside else ["temperature"])
    new.resolve(dict(found.draws))


def test_outside_is_filled_with_the_published_value_not_clipped() -> None:
    """0.4 is near the bound 0.3, and yet nothing is known of 0.3: the published 0.07 is as good a guess."""
    new = space(OLD.replace("log: [0.05, 0.5]", "log: [0.05, 0.3]"))
    found = fitted(new, entry(CLR))
    assert dict(found.draws) == {**CLR, "method/skeletonclr/temperature": 0.07}
    assert found.filled == (("temperature", "outside log [0.05, 0.3]"),)
    assert found.share == pytest.approx(5 / 6)


def test_a_parameter_is_found_under_another_word_and_place() -> None:
    """`lr` moved from the branch to all, `momentum` from 1 - m to m, `hidden` from int to choice."""
    new = space(
        "  method:\n    one_of:\n"
        "      skeletonclr: {temperature: {uniform: [0.05, 0.5]}, queue: 512}\n"
        "      skeletonbyol: {momentum: {uniform: [0.9, 1]}, hidden: {choice: [40, 80]}}\n"
        "  augment: {strength: {uniform: [0.2, 1.4]}}\n"
        "  encoder: {width: {choice: [8, 16]}}\n"
        "  optim: {lr: {log: [0.01, 0.3]}}\n"
        "  streams: {use: [joint, motion, bone], fuse: {simplex: [joint, motion, bone]}}\n"
    )
    for one in (entry(BYOL), Entry(BYOL)):
        found = fitted(new, one)
        draws = dict(found.draws)
        assert draws["method/skeletonbyol/momentum"] == pytest.approx(0.95)
        assert draws["method/skeletonbyol/hidden"] == 40
        assert found.share == 1.0 and not found.filled and not found.unknown
    for one in (entry(CLR), Entry(CLR)):
        assert dict(fitted(new, one).draws)["optim/lr"] == 0.02


def test_weights_follow_their_streams() -> None:
    """In another order of `use` each stream keeps its weight; with other streams there are none to keep."""
    turned = space(OLD.replace("use: [joint, motion, bone]", "use: [bone, joint, motion]"))
    before = BOUND.resolve(CLR).streams
    found = fitted(turned, entry(CLR))
    after = turned.resolve(dict(found.draws)).streams
    assert dict(zip(after.use, after.fuse, strict=True)) == pytest.approx(
        dict(zip(before.use, before.fuse, strict=True))
    )
    assert found.fixed == ("streams.use",)
    two = space(OLD.replace("use: [joint, motion, bone]", "use: [joint, motion]").replace(", bone]}}", "]}}"))
    assert fitted(two, entry(CLR)).filled == (("streams.fuse", "outside simplex [joint, motion]"),)


def test_what_is_fixed_otherwise_is_named_and_bars_its_score() -> None:
    new = space(OLD.replace("queue: 512", "queue: 1024"))
    found = fitted(new, entry(CLR))
    assert found.fixed == ("queue",) and dict(found.draws) == CLR
    here = enter(new, Source("a", (scored(CLR, 0.5), scored(BYOL, 0.6))))
    assert [dict(p.draws) for p in here.priors] == [CLR]
    assert [dict(k.draws) for k in here.values] == [BYOL]
    assert here.notes == (
        "warm_start a: 2 of 2 trials used (1 as values, 1 as priors); fixed otherwise here: queue for 1",
    )


def test_less_than_half_reached_is_left_out() -> None:
    new = space("  method: {skeletonclr: {temperature: {log: [0.05, 0.5]}, queue: {int: [8, 999]}}}\n")
    half = Entry({"method/skeletonclr/temperature": 0.1})
    assert fitted(new, half).filled == (("queue", "not drawn there"),)
    assert fitting(new, Entry({"x": 1.0})) == "of skeletonclr that reach less than half of what is drawn here"
    assert fitting(new, Entry({"method/skeletonclr/temperature": 9.0, "x": 1.0})) == (
        "of skeletonclr that reach less than half of what is drawn here"
    )


def test_a_method_that_is_not_here_is_left_out() -> None:
    new = space("  method: {skeletonclr: {temperature: {log: [0.05, 0.5]}}}\n")
    assert fitting(new, entry(BYOL)) == "of method skeletonbyol, which this space does not have"
    assert fitting(BOUND, Entry({"augment/strength": 0.5})) == "that do not say their method"


def test_what_the_config_refuses_is_left_out() -> None:
    """A limit that no single domain knows of: each value lies inside, and yet there is no such config."""
    branch = space("  method: {skeletonclr: {queue: {int: [8, 999]}}}\n").branch("skeletonclr")
    wide = dataclasses.replace(branch.slots[0], domain=Int(-9, 999))
    new = Space((dataclasses.replace(branch, slots=(wide,)),))
    assert dict(fitted(new, Entry({"method/skeletonclr/queue": 9})).draws)["method/skeletonclr/queue"] == 9
    refused = Entry({"method/skeletonclr/queue": -9})
    assert fitting(new, refused) == "of skeletonclr whose values do not go together here"


@pytest.mark.parametrize(
    "draws",
    [
        {"method/skeletonclr/temperature": "hot"},
        {"method/skeletonclr/temperature": float("nan")},
        {"method/skeletonclr/temperature/gap": "x"},
        {"method/skeletonclr/temperature": None, "streams/fuse/0": 7.0, "streams/fuse/9999": 0.5},
        {"method/skeletonclr": 1, "method/": 1, "": 1, "/": 0.5, "a/b/c/d": []},
        {"streams/fuse/0": "x", "streams/fuse/²": 1},
        {"method": ["skeletonclr"]},
    ],
)
def test_nonsense_never_gets_in(draws: dict[str, Any]) -> None:
    """A study may hold anything; what enters are draws of this space."""
    found = fitting(BOUND, Entry({"method": "skeletonclr", **draws}))
    if isinstance(found, Fitted):
        BOUND.resolve(dict(found.draws))
        assert found.draws[0] == ("method", "skeletonclr")


def test_indices_of_lists_are_checked() -> None:
    assert dict(fitted(LIST_SPACE, Entry({"streams/use": 1})).draws)["streams/use"] == 1
    for wrong in (2, -1, True, "joint"):
        assert isinstance(fitting(LIST_SPACE, Entry({"streams/use": wrong})), str)


def test_ranks() -> None:
    assert ranks([(1.0,), (3.0,), (2.0,)]) == [0.0, 1.0, 0.5]
    assert ranks([(2.0,), (2.0,), (1.0,)]) == [1.0, 1.0, 0.0]
    assert ranks([(5.0,)]) == [1.0]
    assert ranks([(), ()]) == [1.0, 1.0]
    assert ranks([]) == []


def test_ranks_are_within_a_method_and_count_what_is_left_out() -> None:
    """The best that fits here was third there, and says so."""
    narrow = space("  method: {skeletonclr: {temperature: {log: [0.05, 0.5]}, optim: {lr: {log: [0.01, 0.03]}}}}\n")
    outside = {**CLR, "method/skeletonclr/temperature": 0.05, "method/skeletonclr/optim/lr": 0.1}
    trials = [scored(BYOL, 0.9), *(scored({**CLR, "augment/strength": s}, s) for s in (0.2, 0.3, 0.4))]
    here = enter(narrow, Source("a", (*trials, scored(outside, 0.8))))
    assert [p.rank for p in here.priors] == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0])
    assert "left out: 1 of method skeletonbyol, which this space does not have" in here.notes[0]


def test_another_source_never_gives_values() -> None:
    """With a reason to keep it apart, not even an exact fit of a scored trial is a value."""
    source = Source("b", (scored(CLR, 0.5), scored(BYOL, 0.9)), apart="another dataset")
    here = enter(BOUND, source)
    assert here.values == () and len(here.priors) == 2
    assert here.notes == ("warm_start b: 2 of 2 trials used, as priors: another dataset",)


def test_failures_are_values_or_nothing() -> None:
    """Where they count they teach the model what to avoid; as a prior they would be proposed again."""
    died = entry(CLR, quality=None, ended="diverged")
    late = scored(BYOL, 0.9, ended="collapsed")
    begun = entry(CLR, quality=None)
    here = enter(BOUND, Source("a", (died, late, begun)))
    assert [(k.scores, k.rank, k.ended) for k in here.values] == [
        ({}, 0.0, "diverged"),
        ({9: (0.9, 1.0)}, 0.0, "collapsed"),
    ]
    assert here.priors == ()
    assert here.notes == ("warm_start a: 2 of 3 trials used, as values; left out: 1 without a score",)
    there = enter(BOUND, Source("a", (died, late), apart="another probe"))
    assert there == WarmStart(
        notes=("warm_start a: 0 of 2 trials used; left out: 2 that diverged, collapsed or failed",)
    )


def test_the_note_says_everything_in_one_line() -> None:
    new = space(
        "  method:\n    one_of:\n      skeletonclr: {temperature: {log: [0.05, 0.3]}, queue: 1024}\n"
        "  augment: {strength: {uniform: [0.2, 1.4]}}\n"
    )
    named = Entry({**CLR, "method/skeletonclr/momentumm": 1, "bad\n\x1b[31m": 2})
    cool = entry({**CLR, "method/skeletonclr/temperature": 0.1})
    here = enter(new, Source("runs/a", (entry(CLR), cool, entry(BYOL), named), apart="another split"))
    assert here.notes == (
        "warm_start runs/a: 3 of 4 trials used, as priors: another split; "
        "left out: 1 of method skeletonbyol, which this space does not have; "
        "temperature filled for 2: outside log [0.05, 0.3]; "
        "fixed otherwise here: encoder.width for 3, optim.lr for 3, streams.fuse for 3, queue for 2, "
        "streams.use for 2; "
        "no parameter here: method/skeletonclr/momentumm for 1, bad??[31m for 1",
    )


def test_a_partial_config_takes_the_rest_as_published() -> None:
    one = Entry(method="skeletonclr", settings={("params", "temperature"): 0.2, ("params", "queue"): 7})
    found = fitted(BOUND, one)
    draws = dict(found.draws)
    assert draws["method/skeletonclr/temperature"] == 0.2
    assert draws["method/skeletonclr/optim/lr"] == 0.1 and draws["augment/strength"] == 1.0
    assert found.filled == () and found.fixed == ("queue",) and found.share == 1.0


def test_the_best_to_begin_with() -> None:
    def draws(method: str, x: float) -> tuple[tuple[str, Any], ...]:
        return (("method", method), ("x", x))

    warm = WarmStart(
        priors=(
            Prior(draws("a", 1), 0.5, "s"),
            Prior(draws("a", 2), 1.0, "s"),
            Prior(draws("a", 2), 0.9, "t"),
            Prior(draws("b", 3), 0.2, "s"),
            Prior(draws("a", 4), 1.0, "t"),
        ),
        values=(
            Known(draws("a", 5), {3: (0.5, None)}, 1.0, "k"),
            Known(draws("b", 6), {}, 0.0, "k", "diverged"),
            Known(draws("b", 7), {3: (0.5, None)}, 1.0, "k", "failed"),
        ),
    )
    assert [(d["method"], d["x"]) for d in best_priors(warm, 3)] == [("a", 5), ("b", 3), ("a", 2), ("a", 4)]
    assert [(d["method"], d["x"]) for d in best_priors(warm, 1)] == [("a", 5), ("b", 3)]
    assert [d["x"] for d in best_priors(warm, 9) if d["method"] == "a"] == [5, 2, 4, 1]
    assert best_priors(warm, 0) == [] and best_priors(WarmStart(), 3) == []


def test_sources_stand_in_their_order_and_survive_json() -> None:
    first = enter(BOUND, Source("a", (scored(CLR, 0.5, ended="top"), scored(BYOL, 0.5))))
    second = enter(BOUND, Source("b", (scored(CLR, 0.4),), apart="another dataset"))
    warm = together([first, second])
    assert [k.source for k in warm.values] == ["a", "a"] and [p.source for p in warm.priors] == ["b"]
    assert len(warm.notes) == 2
    assert from_plain(json.loads(json.dumps(to_plain(warm), allow_nan=False))) == warm
