"""Proposers that lean on Optuna's samplers: one scale for all rungs, draws inside the space, the same for one state."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from methods.errors import InputError
from tuning.engine.choices import METHOD, Choices
from tuning.engine.journal import Events
from tuning.engine.objectives import Objectives
from tuning.engine.sampler import proposers
from tuning.engine.sampler.flat import missing, on_one_scale, require_packages, thinned
from tuning.engine.sampler.model import Model
from tuning.engine.sampler.shares import likely_method
from tuning.engine.state import Report
from tuning.space.domains import Draw

ROOT = Path(__file__).parents[3]
RUNGS = (1, 3, 9)
SHARED = (Draw("x", "float", 0.0, 1.0), Draw("y", "float", -2.0, 3.0))
OWN = (
    Draw("m/lr", "float", 1e-5, 1e-1, log=True),
    Draw("m/depth", "int", 1, 4),
    Draw("m/word", "categorical", choices=("a", "b", 3, True)),
    Draw("m/fixed", "float", 2.0, 2.0),
    Draw("m/only", "categorical", choices=("it",)),
)
SPACES = {
    "one method": Choices((("m", (*SHARED, *OWN)),)),
    "two methods": Choices((("m", (*SHARED, *OWN)), ("n", SHARED))),
    "one number": Choices((("m", SHARED[:1]),)),
    "words only": Choices((("m", (OWN[2], OWN[4])),)),
    "nothing to draw": Choices((("m", ()),)),
}
NAMES = ["tpe", "cmaes", "gp"]
TWO = ("top1", "gpu_seconds")
CASES = [(name, space, two) for name in ("tpe", "cmaes") for space in SPACES for two in (False, True)]
CASES += [
    ("gp", "two methods", False),
    ("gp", "words only", False),
    ("gp", "one number", True),
]  # an ask takes a second


def needed(name):
    if missing(name):
        pytest.skip(f"no {', '.join(missing(name))} here")


def height(draws):
    """Best at x = 0.8 and y = 1, whatever else was drawn; better in method m."""
    return 0.8 - (draws.get("x", 0.8) - 0.8) ** 2 - 0.05 * (draws.get("y", 1) - 1) ** 2 - 0.3 * (draws[METHOD] != "m")


def searched(choices, count, seed=0, two=False):
    """A model of trials drawn from the prior: the best third goes on, and of these the best; every tenth diverges."""
    events = Events(clock=lambda: 0.0)
    rng = np.random.default_rng(seed)
    drawn = [choices.sample(rng) for _ in range(count)]
    place = {n: i for i, n in enumerate(sorted(range(count), key=lambda n: -height(drawn[n])))}
    for number, draws in enumerate(drawn):
        events.ask(draws, "random")
        if number % 10 == 9:
            events.end(number, "diverged")
            continue
        for epoch in RUNGS[: 1 + (place[number] < count / 3) + (place[number] < count / 9)]:
            seconds = 1.0 + draws.get("x", 0.0)
            events.report(number, Report(epoch, True, height(draws) - 0.1 / epoch, 1.0, seconds))
    cost = Objectives(TWO, 9).cost if two else None
    return Model(choices, RUNGS, events.state, cost=cost)


# --- every proposer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "space", "two"), CASES)
def test_draws_are_in_the_space_and_the_same_for_one_state(name, space, two):
    needed(name)
    choices = SPACES[space]
    propose = proposers.make(name, searched(choices, 40, two=two), two)
    again = proposers.make(name, searched(choices, 40, two=two), two)
    seeds = range(1) if name == "gp" else range(12)
    found = [propose(seed) for seed in seeds]
    assert found == [again(seed) for seed in reversed(seeds)][::-1]
    for draws in found:
        asked = choices.draws(draws[METHOD])
        assert list(draws) == [METHOD, *(draw.name for draw in asked)]
        for draw in asked:
            draw.check(draws[draw.name])
            assert isinstance(draws[draw.name], int) or draw.kind != "int"
    if any(draw.kind == "float" and draw.high > draw.low for draw in choices.draws("m")):
        assert len({str(draws) for draws in found}) == len(found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_little_is_known(name, count):
    needed(name)
    choices = SPACES["two methods"]
    draws = proposers.make(name, searched(choices, count))(3)
    for draw in choices.draws(draws[METHOD]):
        draw.check(draws[draw.name])


@pytest.mark.parametrize("name", ["cmaes", "gp"])
def test_proposals_are_better_than_those_that_were_learnt_from(name):
    needed(name)
    model = searched(SPACES["one method"], 60)
    before = statistics.fmean(height(model.draws(o)) for o in model.ranked())
    seeds = range(2) if name == "gp" else range(20)
    propose = proposers.make(name, model)
    assert statistics.fmean(height(propose(seed)) for seed in seeds) > before + 0.1


# --- one scale -------------------------------------------------------------------------------------------------------


def scale(rows, most=99):
    """``rows``: scores by rung, or how a trial ended."""
    choices = SPACES["one number"]
    events = Events(clock=lambda: 0.0)
    for number, scores in enumerate(rows):
        events.ask({METHOD: "m", "x": number / 10}, "x")
        if isinstance(scores, str):
            events.end(number, scores)
            continue
        for epoch, top1 in zip(RUNGS, scores, strict=False):
            events.report(number, Report(epoch, True, top1, 1.0, 1.0))
    return on_one_scale(Model(choices, RUNGS, events.state, enough=1), "m", most)


def test_a_higher_rung_stands_before_a_lower_one_and_the_faulty_last():
    found = scale([(0.9,), (0.1, 0.2), "diverged", (0.1, 0.3), (), (0.5,), "cancelled", "failed"])
    assert [o.trial for o, _ in found] == [3, 1, 0, 5, 2, 7]  # 4 is at work, 6 says nothing of its configuration
    normal = statistics.NormalDist()
    want = [normal.inv_cdf(p) for p in (11 / 12, 9 / 12, 7 / 12, 5 / 12, 2 / 12, 2 / 12)]
    assert [value for _, value in found] == pytest.approx(want)


def test_only_faulty_ones_are_all_alike():
    assert [value for _, value in scale(["diverged", "failed"])] == [0.0, 0.0]


def test_a_long_history_is_thinned_to_its_best_half_and_a_spread():
    rows = [(o, 0.0) for o in range(1000)]
    found = [o for o, _ in thinned(rows, 20)]
    assert found[:10] == list(range(10))
    assert found[-1] == 999
    assert len(set(found)) == 20
    gaps = np.diff(found[10:])
    assert gaps.max() - gaps.min() <= 1
    assert thinned(rows[:20], 20) == rows[:20]


def test_methods_get_shares_of_the_best_and_none_is_left_out():
    model = searched(SPACES["two methods"], 60)  # nearly all of the best are of m
    rng = np.random.default_rng(0)
    drawn = [likely_method(model, rng) for _ in range(300)]
    assert 0 < drawn.count("n") < 60
    empty = searched(SPACES["two methods"], 0)
    assert 100 < [likely_method(empty, rng) for _ in range(300)].count("n") < 200


# --- CMA-ES ----------------------------------------------------------------------------------------------------------


def test_cmaes_draws_from_the_distribution_of_the_best_tenth():
    """The best are two at x = 0.2 and 0.4: mean 0.3, and the method's prior 0.1 beside their own spread of 0.1."""
    needed("cmaes")
    choices = Choices((("m", (Draw("x", "float", 0.0, 1.0), Draw("w", "categorical", choices=("a", "b", "c")))),))
    events = Events(clock=lambda: 0.0)
    for number in range(20):
        best = number < 2
        x = 0.2 * (number + 1) if best else 0.5 + 0.02 * number
        events.ask({METHOD: "m", "x": x, "w": "c" if best else "a"}, "x")
        events.report(number, Report(1, True, 0.9 if best else 0.1, 1.0, 1.0))
    propose = proposers.make("cmaes", Model(choices, RUNGS, events.state))
    drawn = [propose(seed) for seed in range(200)]
    x = [d["x"] for d in drawn]
    assert statistics.fmean(x) == pytest.approx(0.3, abs=0.02)
    assert statistics.stdev(x) == pytest.approx(0.02**0.5, abs=0.02)
    words = [d["w"] for d in drawn]
    assert words.count("c") / 200 == pytest.approx((2 + 1 / 3) / 3, abs=0.06)
    assert words.count("a") / 200 == pytest.approx(1 / 9, abs=0.05)


# --- packages --------------------------------------------------------------------------------------------------------


def test_a_missing_package_is_named_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(InputError) as caught:
        proposers.make("cmaes", searched(SPACES["one number"], 0))
    assert caught.value.faults == ("sampler cmaes needs the package cmaes: pip install 'skeltune[samplers]'",)
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert missing("gp") == ["scipy"]
    with pytest.raises(InputError, match=r"needs the packages scipy and torch: pip install 'skeltune\[samplers\]'"):
        require_packages("gp")
    require_packages("tpe")


def test_the_engine_needs_no_torch_but_for_a_gaussian_process_of_optunas():
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "tuning" / "engine").rglob("*.py")
    )
    assert "tuning.engine.sampler.flat" in modules
    script = f"""
import sys
{chr(10).join(f"import {module}" for module in modules)}
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_samplers import SPACES, missing, proposers, searched
for name in ("tpe", "cmaes"):
    if not missing(name):
        proposers.make(name, searched(SPACES["two methods"], 30))(0)
print("torch" in sys.modules, "ray" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "False"], done.stderr
