"""What `explain` says, and what it warns of."""

from __future__ import annotations

import pytest

from methods.errors import InputError
from tuning.config.schema import SearchSpec
from tuning.space import Space, check_text
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


def test_a_batch_larger_than_the_data_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        said(SMALL, 50)
    assert caught.value.faults == (
        "skeletonclr: optim.batch up to 64, but there are only 50 clips to pretrain on; choose a batch of at most 50",
        "skeletonbyol: optim.batch up to 64, but there are only 50 clips to pretrain on; choose a batch of at most 50",
    )
