"""What `--engine stock` and `random-asha` refuse of a search space, and what they say they go without."""

from __future__ import annotations

import pytest

from tuning.space import check_text
from tuning.stock_words import ignored, refused

HEAD = (
    "format: 1\nname: a\ndata: {set: synthetic}\nsearch: {method: {skeletonclr: {temperature: {log: [0.05, 0.5]}}}}\n"
)
TWO = "format: 1\nname: a\ndata: {set: synthetic}\nsearch: {method: {one_of: {skeletonclr: {}, skeletonbyol: {}}}}\n"


@pytest.mark.parametrize("engine", ["stock", "random-asha"])
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("schedule: {asha: {rule: promote}}", "schedule.asha.rule: promote"),
        ("schedule: {asha: {ladder: per_method}}", "schedule.asha.ladder: per_method"),
        ("schedule: {asha: {brackets: 2}}", "schedule.asha.brackets: 2"),
        ("schedule: {asha: {grow: true}}", "schedule.asha.grow: true"),
        ("sampler: {name: portfolio}", "sampler.name: portfolio"),
        ("sampler: {name: rank_gp}", "sampler.name: rank_gp"),
        ("objectives: [top1, parameters]", "objectives: [top1, parameters]"),
        ("warm_start: [a, b]", "warm_start: 2 of them"),
        ("budget: {in_flight: stop}", "budget.in_flight: stop"),
    ],
)
def test_a_word_of_our_engine_is_refused(engine: str, line: str, word: str) -> None:
    spec, _ = check_text(HEAD + line + "\n")
    assert refused(spec, engine) == [
        f"--engine {engine} does not know `{word}`; leave it out, or use --engine skeltune"
    ]
    assert refused(spec, "skeltune") == []


def test_all_of_them_at_once() -> None:
    spec, _ = check_text(HEAD + "schedule: {asha: {rule: promote, brackets: 3}}\nwarm_start: [a]\n")
    assert [fault.split("`")[1] for fault in refused(spec, "stock")] == [
        "schedule.asha.rule: promote",
        "schedule.asha.brackets: 3",
        "warm_start: 1 of them",
    ]


def test_defaults_are_each_engines_own() -> None:
    """A file that says nothing of rule, ladder and sampler runs with every engine, and is told what it gets."""
    spec, _ = check_text(TWO)
    stops = "ends a trial at a rung where it is not among the best, as `rule: stop` does"
    shares = "compares all methods at every rung, as `ladder: shared` does"
    assert refused(spec, "stock") == refused(spec, "random-asha") == []
    assert ignored(spec, "stock") == [
        f"--engine stock {stops}",
        f"--engine stock {shares}",
        "--engine stock proposes by Optuna's TPE, as `sampler: {name: tpe}` does",
    ]
    assert ignored(spec, "random-asha") == [f"--engine random-asha {stops}", f"--engine random-asha {shares}"]
    assert ignored(spec, "skeltune") == []


@pytest.mark.parametrize("text", [HEAD, TWO + "schedule: {asha: {ladder: shared}}\n"])
def test_of_one_method_or_a_shared_ladder_nothing_is_lost(text: str) -> None:
    spec, _ = check_text(text)
    for engine in ("stock", "random-asha"):
        assert refused(spec, engine) == []
        assert not any("ladder" in note for note in ignored(spec, engine))


def test_what_is_written_and_ignored_is_said() -> None:
    text = "schedule: {asha: {rule: stop, repeats: 3}}\nsampler: {name: tpe, random_share: 0.5}\n"
    spec, _ = check_text(HEAD + text)
    assert refused(spec, "stock") == []
    repeats, share = (
        "repeats no trial: `schedule.asha.repeats` is ignored",
        "knows no `sampler.random_share`: it is ignored",
    )
    assert ignored(spec, "stock") == [f"--engine stock {repeats}", f"--engine stock {share}"]
    assert ignored(spec, "random-asha") == [
        f"--engine random-asha {repeats}",
        "--engine random-asha draws at random: `sampler.name: tpe` is ignored",
        f"--engine random-asha {share}",
    ]
    nothing, _ = check_text(
        HEAD + "schedule: {asha: {rule: stop, repeats: 0}}\nsampler: {name: tpe, random_share: 0}\n"
    )
    assert ignored(nothing, "stock") == []
