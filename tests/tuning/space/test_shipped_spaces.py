"""Every shipped search space: valid, in step with the methods, honest about what it leaves out."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from methods.api import clips_of
from methods.base import JointMethod
from methods.data.synthetic import SyntheticConfig, write_synthetic
from methods.fields import field_table
from methods.registry import BUILT_IN, get_method
from methods.training.config import TrialConfig, published
from methods.training.pretrain import pretrain, start
from tuning.config.schema import HoldOut, SamplerSpec, SearchSpec
from tuning.resources import find_space, shipped
from tuning.space import Space, check_text, load_search
from tuning.space.domains import Fixed, same
from tuning.space.explain import FEWEST_STEPS, explain, warnings
from tuning.space.export import dump
from tuning.space.shipped import shipped_files, write
from tuning.space.shipped_facts import DATASETS, OWN, TITLES
from tuning.stock_words import refused

FOLDER = shipped("search_spaces")
FILES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml"))
SETS = {data.folder: data for data in DATASETS}
ON_DATA = [name for name in FILES if name.split("/")[0] in SETS]
OF_ONE = [name for name in ON_DATA if not name.endswith("compare.yaml")]
SMALL = [name for name in FILES if name.startswith("small/")]
every_file = pytest.mark.parametrize("name", FILES)
every_file_on_data = pytest.mark.parametrize("name", ON_DATA)


@cache
def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def loaded(name: str) -> tuple[SearchSpec, Space]:
    return load_search(FOLDER / name)


def comments(name: str) -> str:
    return " ".join(line.partition("# ")[2] for line in text_of(name).splitlines())


def said_at(name: str, parameter: str, method: str = "") -> list[str]:
    """The comments at the lines of a parameter, with the lines that they go on in; ``method``: in its branch alone."""
    found, open_, inside, branch = [], False, not method, 0
    for line in text_of(name).splitlines():
        key = re.match(r"( *)(\w+):", line)
        if method and key and (key[2] in BUILT_IN or len(key[1]) < branch):
            inside, branch = key[2] == method, len(key[1])
        here = inside and re.search(rf"(?<![\w]){parameter}: ", line.partition("#")[0])
        goes_on = open_ and line.lstrip().startswith("#")
        if here:
            found.append(line.partition("# ")[2])
        elif goes_on:
            found[-1] += " " + line.partition("# ")[2]
        open_ = bool(here) or goes_on
    return found


# --- what is there ----------------------------------------------------------------------------------------------------


def test_every_method_has_its_file_for_every_dataset_and_a_small_one():
    assert SETS.keys() == {"ntu60", "ntu120", "pku1", "pku2", "nw_ucla"}
    for folder in (*SETS, "small"):
        there = {Path(name).stem for name in FILES if name.startswith(f"{folder}/")}
        assert there == {*BUILT_IN, "compare"}
        for method in BUILT_IN:
            assert loaded(f"{folder}/{method}.yaml")[1].methods == (method,)


def test_comparisons_are_over_every_method_that_fits():
    for folder in SETS:
        spec, space = loaded(f"{folder}/compare.yaml")
        assert set(space.methods) == {m for m in BUILT_IN if not get_method(m).cls.only_streams}
        assert {branch.base.streams.use for branch in space.branches} == {("joint", "motion", "bone")}
        assert spec.sampler.startup_trials >= len(space.methods)
    assert set(loaded("small/compare.yaml")[1].methods) == set(BUILT_IN)


def test_the_files_are_what_is_written(tmp_path):
    """Where this fails after a change to a method: ``python -m tuning.space.shipped search_spaces``."""
    stale = [name for name, text in shipped_files().items() if not (FOLDER / name).is_file() or text_of(name) != text]
    assert not stale, f"run python -m tuning.space.shipped search_spaces; stale: {', '.join(stale)}"
    strangers = {"quickstart.yaml", "utd_mhad/compare.yaml"}
    assert set(FILES) == {*shipped_files(), *strangers}
    assert {str(path.relative_to(tmp_path)) for path in write(tmp_path)} == set(FILES) - strangers
    assert (tmp_path / "ntu60/cmd.yaml").read_text(encoding="utf-8") == text_of("ntu60/cmd.yaml")


@every_file
def test_it_is_found_by_name_and_reads_well(name):
    spec, _ = loaded(name)
    assert find_space(name.removesuffix(".yaml")) == FOLDER / name
    assert f"skeltune search {name.removesuffix('.yaml')}" in text_of(name) or name == "quickstart.yaml"
    assert spec.name == re.sub(r"[/_]", "-", name.removesuffix(".yaml"))
    for line in text_of(name).splitlines():
        assert (len(line) <= 120 and line == line.rstrip()) or name.startswith("utd_mhad/"), line


def test_no_two_share_a_run_folder():
    names = [loaded(name)[0].name for name in FILES]
    assert len(set(names)) == len(names)


@every_file
def test_every_engine_may_run_it_and_ours_at_its_best(name):
    """Rule and sampler are the default's; methods are compared within themselves where one learns slower."""
    spec, space = loaded(name)
    asha = spec.schedule.asha
    assert (asha.rule, spec.sampler) == ("promote", SamplerSpec(startup_trials=spec.sampler.startup_trials))
    if len(space.methods) > 1 and name not in ("quickstart.yaml", "small/compare.yaml"):
        assert asha.ladder == "per_method"
        assert spec.sampler.startup_trials >= asha.eta * len(space.methods)
        return
    assert refused(spec, "stock") == []


# --- what `check` and `explain` say -----------------------------------------------------------------------------------


STAGE = re.compile(r"(?P<method>\w+): what stage '(?P<stage>\w+)' does")
OUTSIDE = re.compile(r"(?P<method>\w+): the published (?P<label>[\w.]+), (?P<value>\S+), lies outside")
START = re.compile(r"start_from: (?P<method>\w+) (?P<label>[\w.]+): the published (?P<value>\S+) lies outside")


@every_file
def test_every_warning_is_explained_in_a_comment(name):
    """A stage is named, a published value that lies outside stands at its line."""
    spec, space = loaded(name)
    for text in (*space.start_notes, *warnings(spec, space, None)):
        found = STAGE.match(text) or OUTSIDE.match(text) or START.match(text)
        assert found, f"a warning of a new kind: {text}"
        if "stage" in found.groupdict():
            assert f"{found['method']}: {found['stage']} " in comments(name), text
            continue
        parameter = found["label"].rpartition(".")[2]
        beside = said_at(name, parameter, found["method"]) or said_at(name, parameter)
        assert any(found["value"] in comment.replace(",", "") for comment in beside), text


@every_file
def test_explain_has_something_to_say(name):
    lines = explain(*loaded(name))
    assert any(line.startswith("ladder: probed after") for line in lines)
    for branch in loaded(name)[1].branches:
        assert any(line.startswith(f"{branch.method}: {len(branch.draws)} free") for line in lines)


# --- the published configuration --------------------------------------------------------------------------------------


def moved(config: TrialConfig, base: TrialConfig) -> list[tuple[str, str]]:
    """(part, field) of everything in which a config is not the published one."""
    found = [("", n) for n in ("frames", "epochs") if getattr(config, n) != getattr(base, n)]
    for part in ("params", "encoder", "augment", "optim", "streams"):
        here, there = getattr(config, part), getattr(base, part)
        found += [
            (part, f.name)
            for f in dataclasses.fields(here)
            if not same(getattr(here, f.name), getattr(there, f.name))
            and not (f.name in ("loss", "fuse") and all_equal(getattr(here, f.name)))
        ]
    return found


def all_equal(weights: object) -> bool:
    return isinstance(weights, tuple) and np.allclose(weights, 1 / len(weights))


@every_file_on_data
def test_the_published_configuration_is_tried_first(name):
    """Each method once, at its published values; what is otherwise is named at its line, published value included."""
    spec, space = loaded(name)
    first = [space.resolve(draws) for draws in space.start_draws()[: len(space.methods)]]
    assert [config.method for config in first] == list(space.methods)
    for config in first:
        recipe = published(config.method, config.epochs)
        for part, field in moved(config, recipe):
            if (part, field) == ("streams", "use"):
                assert name.endswith("compare.yaml")
                continue
            where = config.method if name.endswith("compare.yaml") and part == "params" else ""
            assert any("published" in comment for comment in said_at(name, field, where)), (config.method, part, field)
    assert spec.search.get("preset") is None


@every_file_on_data
def test_ranges_contain_the_published_value(name):
    """But for the queue on few clips, whose line says why."""
    for branch in loaded(name)[1].branches:
        for slot in branch.slots:
            if isinstance(slot.domain, Fixed) or slot.domain.contains(slot.published):
                continue
            assert (name.split("/")[0], slot.field) == ("nw_ucla", "queue")
            assert all(str(k) in " ".join(said_at(name, "queue", branch.method)) for k in (slot.published, "820"))


@pytest.mark.parametrize("name", OF_ONE)
def test_every_field_of_the_method_is_drawn_or_said_to_be_as_published(name):
    (branch,) = loaded(name)[1].branches
    written = {slot.field: slot for slot in branch.slots if slot.part == "params"}
    drawn = {field for field, slot in written.items() if slot.domain.draws("")}
    assert drawn >= set(OWN[branch.method])
    config = get_method(branch.method).config
    for field in field_table(config):
        assert field in drawn or re.search(rf"\b{field} ", comments(name)), field
    for part in ("encoder", "optim"):
        held = {slot.field for slot in branch.slots if slot.part == part}
        for f in dataclasses.fields(getattr(branch.base, part)):
            assert f.name in held or f.name == "name" or re.search(rf"\b{f.name} ", comments(name)), f.name


@pytest.mark.parametrize("name", OF_ONE)
def test_the_codes_quirks_are_a_word_away(name):
    """What the comment says: `preset: paper_code` in place, `preprocess` out."""
    method = Path(name).stem
    text = re.sub(r"\n  preprocess: .*\n(?: +#.*\n)*", "\n", text_of(name), count=1)
    text = re.sub(r"\n  # (preset: paper_code) .*", r"\n  \1", text)
    _, space = check_text(text)
    quirks = published(method, space.branches[0].base.epochs, "paper_code")
    free = {(slot.part, slot.field) for slot in space.branches[0].slots if slot.domain.draws("")}
    kept = [pair for pair in moved(space.branches[0].base, quirks) if pair not in free]
    assert not [pair for pair in kept if pair[0] in ("params", "encoder", "augment")]
    assert space.branches[0].base.preprocess == quirks.preprocess


# --- data, ladder, round trip -----------------------------------------------------------------------------------------


@every_file_on_data
def test_ladders_begin_late_enough_and_end_with_the_run(name):
    spec, space = loaded(name)
    data, rungs = SETS[name.split("/")[0]], spec.schedule.rungs()
    assert len(rungs) == 3 and rungs[-1] == spec.schedule.max and rungs[0] >= spec.schedule.max // 9
    assert all(2 <= later / rung <= 4 for rung, later in zip(rungs, rungs[1:], strict=False))
    for branch in space.branches:
        largest = max(slot_values(branch, "optim", "batch"))
        assert data.clips // largest * rungs[0] >= FEWEST_STEPS, branch.method
        assert not [text for text in warnings(spec, space, data.clips) if "the slow copy" in text]


def slot_values(branch, part: str, field: str) -> tuple:
    found = [slot.domain.extremes() for slot in branch.slots if (slot.part, slot.field) == (part, field)]
    return found[0] if found else (getattr(getattr(branch.base, part), field),)


@every_file_on_data
def test_splits_and_hold_outs_are_the_datasets(name):
    spec, _ = loaded(name)
    folder = name.split("/")[0]
    assert spec.data.set == f"data/{folder}"
    assert spec.data.split == ("xview" if folder == "nw_ucla" else "xsub")
    by_chance = HoldOut(held_out_share=0.15)
    assert spec.data.validate_on == (by_chance if folder == "pku1" else "auto")


def test_the_length_of_a_run_is_the_published_one_where_there_is_one():
    lengths = {name: loaded(name)[0].schedule.max for name in OF_ONE}
    for method in BUILT_IN:
        assert lengths[f"ntu60/{method}.yaml"] == get_method(method).recipe.epochs
    assert [lengths[f"{data}/cmcs.yaml"] for data in ("ntu60", "ntu120", "pku1", "pku2")] == [100, 80, 150, 250]
    starts = {data: loaded(f"{data}/cmcs.yaml")[1] for data in ("ntu120", "pku1", "pku2")}
    crossing = {data: space.resolve(space.start_draws()[1]).params.cross_start for data, space in starts.items()}
    assert crossing == {"ntu120": 40 / 80, "pku1": pytest.approx(100 / 150, abs=1e-4), "pku2": 200 / 250}
    assert lengths["pku2/cmd.yaml"] == 1001


def test_streams_that_share_nothing_have_no_weights_in_the_loss():
    for name in ON_DATA:
        for branch in loaded(name)[1].branches:
            alone = not issubclass(get_method(branch.method).cls, JointMethod)
            assert not alone or branch.base.streams.loss == "equal"


@every_file
def test_what_is_drawn_comes_back_from_an_export(name):
    spec, space = loaded(name)
    rng = np.random.default_rng(0)
    for method in space.methods[:: max(1, len(space.methods) // 2)]:
        draws = {"method": method} | {draw.name: draw.sample(rng) for draw in space.branch(method).draws}
        config = space.resolve(draws)
        _, again = check_text(dump(spec, config))
        assert again.resolve({}) == config
        assert space.resolve(space.invert(config)) == config


# --- the small ones run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few_clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "data"
    write_synthetic(path, SyntheticConfig(clips_per_cell=1, subjects=3, cameras=1, max_frames=40))
    from methods.data import open_dataset

    return open_dataset(path)


@pytest.mark.parametrize("name", [name for name in SMALL if not name.endswith("compare.yaml")])
def test_the_small_ones_train(name, few_clips):
    """Three draws of each, two epochs of a step: the second lies at half of the run, past nearly every stage's start.

    In batches of 8 from 12 clips: only the sizes of the networks are the file's.
    """
    _, space = loaded(name)
    clips = clips_of(few_clips, space.branches[0].base.frames, space.branches[0].base.preprocess)
    rng = np.random.default_rng(1)
    for seed in range(3):
        drawn = space.resolve(space.sample(rng))
        config = dataclasses.replace(drawn, epochs=2, optim=dataclasses.replace(drawn.optim, batch=8))
        run = start(config, clips, np.arange(12), seed=seed)
        epochs = list(pretrain(run))
        assert run.step == 2 and all(np.isfinite(epoch.loss) and epoch.spread > 0.05 for epoch in epochs)


def test_the_small_comparison_has_the_same_branches():
    """What is run above one by one is what the comparison draws from."""
    _, space = loaded("small/compare.yaml")
    for branch in space.branches:
        (alone,) = loaded(f"small/{branch.method}.yaml")[1].branches
        assert (alone.base.params, alone.base.encoder, alone.base.optim) == (
            branch.base.params,
            branch.base.encoder,
            branch.base.optim,
        )
        assert alone.base.streams.use == branch.base.streams.use == get_method(branch.method).recipe.use
        own = [[s.label for s in b.slots if s.part != "augment" and s.domain.draws("")] for b in (alone, branch)]
        assert own[0] == own[1]


# --- the page about them ----------------------------------------------------------------------------------------------


def test_the_page_names_every_method_and_its_example_is_valid():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"METHOD is any of `([^`]+)`", page)
    assert listed and listed[1].split() == list(TITLES)
    assert set(TITLES) == set(BUILT_IN)
    for folder in SETS:
        assert f"`{folder}/METHOD`" in page
    assert f"`random_share` of the trials ({SamplerSpec().random_share})" in page
    _, space = check_text(page.partition("```yaml\n")[2].partition("```")[0])
    assert space.methods == ("skeletonclr", "skeletonbyol")
