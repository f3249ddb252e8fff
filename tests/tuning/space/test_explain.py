"""What `explain` says, and what it warns of."""

from __future__ import annotations

import pytest

from methods.errors import InputError
from tuning.config.schema import SearchSpec
from tuning.engine.noise import LEAST_REPEATS
from tuning.space import Space, cautions, check_text
from tuning.space.explain import Facts, explain, warnings

HEAD = "format: 1\nname: a\ndata: {set: synthetic}\n"
SMALL = HEAD + (
    "search:\n"
    "  method:\n"
    "    one_of:\n"
    "      skeletonclr:\n"
    "        temperature: {log: [0.1, 0.5]}\n"
    "        momentum: {near_one: [0.9, 0.999]}\n"
    "        queue: {choice: [256, 1024]}\n"
    "      skeletonbyol: {momentum: 0.9}\n"
    "  optim: {batch: 64}\n"
    "schedule: {max: 27, asha: {min: 9}}\n"
)


def said(text: str, n_train: int | None) -> list[str]:
    return warnings(*check_text(text), n_train)


def test_the_table_has_a_line_for_each_parameter(bound: tuple[SearchSpec, Space]) -> None:
    lines = explain(*bound, Facts(n_train=640, seconds={"skeletonclr": 1.25}))
    rows = {tuple(line.split()[:2]): " ".join(line.split()) for line in lines}
    assert rows["temperature", "skeletonclr"] == "temperature skeletonclr log [0.05, 0.5] 0.07 yes"
    assert rows["queue", "skeletonclr"] == "queue skeletonclr = 512 32768 fixed elsewhere"
    assert rows["augment.strength", "all"] == "augment.strength all methods uniform [0.2, 1.4] 1 yes"
    assert rows["encoder.width", "skeletonbyol"] == "encoder.width skeletonbyol choice [8, 16] 16 yes"
    text = "\n".join(lines)
    assert "skeletonclr: 7 free dimensions" in text
    assert "ladder: probed after 3, 9, 27 epochs" in text
    assert "skeletonclr: steps 30, 90, 270; 1.2 s an epoch" in text
    assert "conclusions hold for batch 64" in text
    assert all(line == line.rstrip() for line in lines)


def test_explain_needs_no_data(bound: tuple[SearchSpec, Space]) -> None:
    assert not any("steps" in line for line in explain(*bound))


@pytest.mark.parametrize(
    ("optim", "says"),
    [
        ("{name: sgd}", "is the learning rate of that stream's branch (SGD);"),
        ("{name: adam}", "is nothing under Adam;"),
        ("{name: {choice: [sgd, adam]}}", "(under SGD) and nothing under Adam;"),
    ],
)
def test_a_loss_weight_between_streams_that_share_nothing_is_named(optim: str, says: str) -> None:
    text = HEAD + (
        "search: {method: skeletonclr, optim: " + optim + ", "
        "streams: {use: [joint, bone], loss: {simplex: [joint, bone]}}}\n"
    )
    assert any(says in line for line in explain(*check_text(text)))
    equal = text.replace("{simplex: [joint, bone]}", "equal")
    assert not any("shares nothing" in line for line in explain(*check_text(equal)))


def test_warnings_of_a_small_set() -> None:
    assert said(SMALL, 640) == [
        "asha.repeats: 5 x 9 epochs are 12 % of the search, to measure noise alone",
        "skeletonclr: the published temperature, 0.07, lies outside log [0.1, 0.5]",
        "skeletonclr: the published queue, 32768, lies outside choice [256, 1024]",
        "skeletonclr: the first rung comes after 90 steps; under 200 it says little (asha.min of 20 would reach them)",
        "skeletonclr: at momentum 0.999 the slow copy remembers 1,000 steps, and a full run has 270: "
        "that end of the range barely moves",
        "skeletonclr: a queue of 1,024 is longer than the data (640 clips), so a clip meets its own older copies "
        "among the negatives",
        "skeletonbyol: the first rung comes after 90 steps; under 200 it says little (asha.min of 20 would reach them)",
    ]


def test_warnings_of_momenta() -> None:
    fixed = HEAD + "search: {method: {skeletonclr: {momentum: 0.999, queue: 64}}, optim: {batch: 64}}\n"
    assert any("even at momentum 0.999 the slow copy remembers 1,000 steps" in w for w in said(fixed, 640))
    early = [w for w in said(fixed, 64 * 100) if "momentum" in w]
    assert early == [
        "skeletonclr: at momentum 0.999 the slow copy remembers 1,000 steps, and the first rung comes after 300: "
        "high values are judged early"
    ]
    assert said(fixed, 64 * 400) == []


def test_warnings_of_the_ladder() -> None:
    flat = SMALL.replace("{max: 27, asha: {min: 9}}", "{max: 9, asha: {min: 9}}")
    assert "nothing is ever stopped early" in said(flat, None)[0]
    near = SMALL.replace("{max: 27, asha: {min: 9}}", "{max: 10, asha: {min: 9}}")
    assert "rung 9 lies close below the top, 10" in said(near, None)[0]


FREE = HEAD + "search: {method: {one_of: {skeletonclr: {}, skeletonbyol: {}}}}\n"
FEW = "{} trials are fewer than eta * eta = 9{}: expect {}; more trials or a smaller eta let more of them reach the top"
TWO_REPEATS = "asha.repeats: 2 of them will be run, and fewer than 3 tell nothing of the noise; `repeats: 0` saves them"
GROW = (
    "grow: true changes nothing on 2 rungs: such a ladder begins with two, so it needs three; "
    "a lower asha.min gives more"
)
BRACKETS = "brackets: 4 on 3 rungs: 3 is the most that differ, and the last of them trains every trial in full"
PER_METHOD = (
    "ladder: per_method{} compares within a method: of {} each of 2 methods has {}, fewer than eta = 3; "
    "sampler.startup_trials of 6 would do"
)
EACH = " for each of 2 methods"
TWO_OBJECTIVES = (
    "two objectives, top1 and parameters: a front of trade-offs takes more trials to find than one best, and at a rung "
    "a cheap trial may take the place of a more accurate one"
)


def asha(words: str) -> str:
    return f"schedule: {{asha: {{{words}}}}}\n"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("", []),  # 24 trials of at most 27 epochs
        (asha("grow: true"), []),
        (asha("grow: true, min: 9, repeats: 0"), [GROW]),
        (asha("brackets: 3"), []),
        (asha("brackets: 4"), [BRACKETS]),
        ("budget: {trials: 9}\n" + asha("ladder: shared, repeats: 0"), []),
        ("budget: {trials: 8}\n" + asha("ladder: shared, repeats: 0"), [FEW.format(8, "", "1 full run")]),
        ("budget: {trials: 8}\n" + asha("ladder: shared, repeats: 0, min: 9"), [FEW.format(8, "", "2 full runs")]),
        ("budget: {trials: 18}\n" + asha("repeats: 0"), []),
        ("budget: {trials: 17}\n" + asha("repeats: 0"), [FEW.format(17, EACH, "1 full run")]),
        ("budget: {trials: 17}\n" + asha("repeats: 0, min: 9"), [FEW.format(17, EACH, "4 full runs")]),
        ("budget: {trials: 8}\n" + asha("repeats: 0, brackets: 3"), []),  # whose last bracket is of full runs
        (
            "budget: {epochs: 55}\n" + asha("ladder: shared, repeats: 0"),
            [FEW.format(7, "", "1 full run")],  # of 7 epochs on average
        ),
        ("budget: {minutes: 1}\n" + asha("repeats: 0"), []),
        (
            "budget: {trials: 17}\n" + asha("ladder: per_method, repeats: 0"),
            [FEW.format(17, EACH, "1 full run")],
        ),
        ("sampler: {startup_trials: 6}\n" + asha("ladder: per_method"), []),
        (
            "sampler: {startup_trials: 5}\n" + asha("ladder: per_method"),
            [PER_METHOD.format("", "5 start-up trials", 2)],
        ),
        ("sampler: {startup_trials: 6}", []),
        ("sampler: {startup_trials: 1}", [PER_METHOD.format(" (the default)", "1 start-up trial", 0)]),
        ("sampler: {startup_trials: 5}\n" + asha("ladder: shared"), []),
        (
            "sampler: {startup_trials: 1}\n" + asha("ladder: shared"),
            ["sampler.startup_trials is 1, below the 2 methods; each of them is tried once all the same"],
        ),
        (asha("repeats: 2"), [TWO_REPEATS]),
        (
            "budget: {trials: 10}\n" + asha("ladder: shared"),
            [TWO_REPEATS],  # of five that are asked for, ten trials have two
        ),
        (asha("repeats: 6"), ["asha.repeats: 6 x 3 epochs are 11 % of the search, to measure noise alone"]),
        (asha("repeats: 6, brackets: 2"), []),  # whose trials take more epochs
        (
            "budget: {epochs: 26}\n" + asha("repeats: 0"),
            ["budget.epochs of 26 are less than one full run of 27", FEW.format(3, EACH, "1 full run")],
        ),
        ("objectives: [top1, parameters]", [TWO_OBJECTIVES]),
    ],
)
def test_words_that_do_not_fit_together(lines: str, says: list[str]) -> None:
    assert said(FREE + lines + "\n", None) == says


def test_one_method_needs_no_ladder_of_its_own() -> None:
    alone = HEAD + "search: {method: {skeletonclr: {temperature: {log: [0.05, 0.5]}}}}\nsampler: {startup_trials: 0}\n"
    assert said(alone + asha("ladder: per_method"), None) == []
    (line,) = [t for t in explain(*check_text(alone + asha("ladder: per_method"))) if t.startswith("ladder:")]
    assert "about one in 3 goes on" in line


def test_one_rung_compares_nobody_within_a_method() -> None:
    text = FREE + "sampler: {startup_trials: 5}\n" + asha("min: 27, repeats: 0")
    assert said(text, None) == ["the first rung is the last (27 epochs): nothing is ever stopped early"]


def test_the_fewest_repeats_are_the_engines() -> None:
    assert cautions.FEWEST_REPEATS == LEAST_REPEATS


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "about one in 3 of each method goes on, the others wait and may go on later"),
        ("rule: stop", "about one in 3 of each method goes on, the others end there"),
        ("ladder: shared", "about one in 3 goes on, the others wait and may go on later"),
        ("ladder: shared, rule: stop", "about one in 3 goes on, the others end there"),
        ("brackets: 9", "may go on later; 3 brackets, each a rung later than the one before"),
        ("grow: true", "may go on later; the highest rung in use rises only while the order of the best changes"),
        ("min: 27", "probed after 27 epochs; every trial is a full run"),
    ],
)
def test_the_ladder_is_told(words: str, says: str) -> None:
    (line,) = [t for t in explain(*check_text(FREE + asha(words))) if t.startswith("ladder:")]
    assert line.endswith(says)


@pytest.mark.parametrize(
    ("probe", "says"),
    [
        ("", []),
        ("probe: {l2: 0.1}\n", []),
        ("probe: {subset: 2000}\n", ["below the top rung fitted on 2,000 training clips", "the top rung on all"]),
        ("probe: {precision: bf16}\n", ["features in bf16, after batch norm was settled in full precision"]),
    ],
)
def test_a_cheaper_probe_is_told(probe: str, says: list[str]) -> None:
    told = [line for line in explain(*check_text(SMALL + probe)) if line.startswith("probe:")]
    assert len(told) == bool(says)
    assert all(word in told[0] for word in says)


def test_a_batch_larger_than_the_data_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        said(SMALL, 50)
    assert caught.value.faults == (
        "skeletonclr: optim.batch up to 64, but there are only 50 clips to pretrain on; choose a batch of at most 50",
        "skeletonbyol: optim.batch up to 64, but there are only 50 clips to pretrain on; choose a batch of at most 50",
    )
