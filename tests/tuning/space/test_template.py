"""`skeltune new` writes a space that loads, with every parameter of every method in it."""

from __future__ import annotations

import dataclasses

import pytest
from typer.testing import CliRunner

from methods.errors import InputError
from methods.fields import Range, field_table
from methods.registry import get_method, list_methods
from methods.training.config import published
from tuning.cli import app
from tuning.space import load_search
from tuning.space.cautions import schedule_warnings
from tuning.space.explain import explain
from tuning.space.lines import WIDTH, Line, block, drawn, flow, remark
from tuning.space.template import template


@pytest.mark.parametrize("chosen", [[], ["pstl", "cmd", "scdnet"], ["cmcs", "cmd"], *([m] for m in list_methods())])
def test_it_loads(chosen):
    text = template(chosen, data="data/mine", name="mine")
    spec, space = load_search(text)
    assert set(space.methods) == set(chosen or list_methods())
    assert (spec.name, spec.data.set) == ("mine", "data/mine")
    assert all(len(line) <= WIDTH and line == line.rstrip() for line in text.splitlines())
    assert explain(spec, space)
    for branch in space.branches:
        written = {(slot.part, slot.field) for slot in branch.slots}
        entry = get_method(branch.method)
        assert {("params", name) for name in field_table(entry.config)} <= written
        assert {("encoder", f.name) for f in dataclasses.fields(entry.recipe.encoder)} <= written
        assert space.free[branch.method] > 1


@pytest.mark.parametrize("chosen", [[], ["pstl", "cmd"], ["pstl"]])
def test_its_budget_suits_its_ladder(chosen):
    """Every word is written, and none is warned of, however many methods there are."""
    spec, space = load_search(template(chosen))
    assert schedule_warnings(spec, len(space.methods)) == []
    assert spec.schedule.asha.model_fields_set == set(type(spec.schedule.asha).model_fields)
    assert spec.sampler.model_fields_set == set(type(spec.sampler).model_fields)
    assert spec.schedule.asha.ladder == ("shared" if len(space.methods) == 1 else "per_method")
    assert spec.budget.trials is not None and spec.budget.trials >= 9 * len(space.methods)


def test_the_published_configuration_is_inside():
    _, space = load_search(template())
    assert len(space.start_draws()) == len(list_methods())
    assert space.start_notes == ()  # nothing had to be moved into a range
    for config in map(space.resolve, space.start_draws()):
        at_home = published(config.method, config.epochs)
        assert (config.params, config.encoder, config.frames) == (at_home.params, at_home.encoder, at_home.frames)
        assert config.streams.use == at_home.streams.use
        assert (config.optim.lr, config.optim.batch) == (at_home.optim.lr, at_home.optim.batch)


def test_unknown_methods_are_named():
    with pytest.raises(InputError, match="did you mean 'skeletonclr'"):
        template(["skeletonclear"])


@pytest.mark.parametrize(
    ("arguments", "methods"),
    [
        (["--method", "pstl", "--method", "cmd"], ("pstl", "cmd")),
        (["--methods", "pstl, cmd"], ("pstl", "cmd")),
        (["--method", "pstl,cmd", "--method", "pstl"], ("pstl", "cmd")),
        ([], list_methods()),
    ],
)
def test_the_verb_takes_several_methods(arguments, methods):
    shown = CliRunner().invoke(app, ["new", *arguments])
    assert shown.exit_code == 0
    assert load_search(shown.output)[1].methods == tuple(methods)


def test_streams_suit_the_methods():
    """Written where all methods are published with the same ones; otherwise each keeps its own."""
    assert load_search(template(["pstl", "aimclr"]))[1].branches[0].base.streams.use == ("joint",)
    together = load_search(template(["cmcs", "cmd"]))[1]
    assert all(branch.base.streams.fuse == "fitted" for branch in together.branches)
    assert "streams/loss/0" in together.draw_names
    mixed = load_search(template(["pstl", "cmd"]))[1]
    assert [branch.base.streams.use for branch in mixed.branches] == [("joint",), ("joint", "motion", "bone")]


# --- lines ------------------------------------------------------------------------------------------------------------

LONG = "a comment of many words " * 8


def test_comments_stand_in_a_column_and_go_on_below():
    written = block([Line("a", "1", "short"), Line("longer_name", "{choice: [1, 2]}", LONG), Line("b", "2")], 4)
    columns = {line.index("# ") for line in written if "#" in line}
    assert len(columns) == 1 and len(written) > 3
    assert " ".join(line.partition("# ")[2] for line in written if "#" in line) == f"short {LONG}".strip()
    assert written[-1] == "    b: 2"
    assert all(len(line) <= WIDTH for line in written)


def test_a_comment_without_room_beside_stands_above():
    line = Line("queue", "{choice: [" + ", ".join(map(str, range(1000, 1018))) + "]}", LONG)
    *above, last = block([line], 8)
    assert above == remark(LONG, 8)
    assert last == f"        queue: {line.value}"


def test_a_long_section_begins_on_the_next_line():
    settings = {f"parameter_{i}": "{uniform: [0, 1]}" for i in range(6)}
    head, *rest = flow("encoder", settings, 2)
    assert head == "  encoder:" and len(rest) > 1
    assert all(len(line) <= WIDTH for line in rest)
    assert " ".join(line.strip() for line in rest) == "{" + ", ".join(f"{k}: {v}" for k, v in settings.items()) + "}"
    assert flow("optim", {"lr": "0.1"}, 2, "why") == ["  optim: {lr: 0.1}   # why"]


def test_the_published_value_stands_beside_the_domain():
    field = field_table(get_method("skeletonclr").config)["momentum"]
    line = drawn(field, 0.999, Range("near_one", (0.9, 0.99)), "why")
    assert (line.name, line.value, line.comment) == ("momentum", "{near_one: [0.9, 0.99]}", "published 0.999; why")
