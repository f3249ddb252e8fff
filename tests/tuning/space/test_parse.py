"""What a user can get wrong under `search`, and how it is said: golden messages, every word, all faults at once."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from methods.errors import InputError
from tuning.config.errors import ConfigError
from tuning.space import check_text, load, load_search, locate_data

HEAD = "format: 1\nname: a\ndata: {set: synthetic}\n"

# The example of the design document, as a whole file.
DESIGN = """\
format: 1
name: ntu60-xsub-compare
data: {set: ntu60}
search:
  method:
    one_of:
      skeletonclr:
        temprature: {log: [0.04, 0.5]}
"""


def faults(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(ConfigError) as caught:
        check_text(text, "f.yaml")
    return [(f.line, f.col, f.message) for f in caught.value.where]


def clr(settings: str) -> str:
    """A file whose line 4 holds the settings of skeletonclr, after 32 characters."""
    return HEAD + f"search: {{method: {{skeletonclr: {{{settings}}}}}}}\n"


def test_the_message_of_the_design_document() -> None:
    with pytest.raises(ConfigError) as caught:
        check_text(DESIGN, "compare.yaml")
    assert str(caught.value) == (
        "compare.yaml:8:9: unknown parameter 'temprature' of method 'skeletonclr'; did you mean 'temperature'?\n"
        "    8 |         temprature: {log: [0.04, 0.5]}\n"
        "      |         ^^^^^^^^^^"
    )


def test_all_faults_of_a_file_in_one_run() -> None:
    text = """\
format: 1
name: .a
data: {set: synthetic, preprocess: [trimm]}
seed: x
search:
  method:
    one_of:
      skeletonclr: {temprature: 1, queue: [1, 2], projection: {int: [0, 4]}}
      skeltonbyol: {}
  augment: {stregth: 1}
  streams: {use: [joint, bones]}
  frames: 3
start_from: [publishd]
"""
    with pytest.raises(ConfigError) as caught:
        check_text(text, "many.yaml")
    assert str(caught.value) == "\n".join(
        [
            "many.yaml:2:7: '.a' names the run's folder: use letters, digits, - _ and . (at most 100, no dot in front)",
            "    2 | name: .a",
            "      |       ^^",
            "many.yaml:4:7: 'seed' must be a whole number, got 'x'",
            "    4 | seed: x",
            "      |       ^",
            "many.yaml:8:21: unknown parameter 'temprature' of method 'skeletonclr'; did you mean 'temperature'?",
            "    8 |       skeletonclr: {temprature: 1, queue: [1, 2], projection: {int: [0, 4]}}",
            "      |                     ^^^^^^^^^^",
            "many.yaml:8:43: 'queue': a bare list does not say how to draw; write {int: [1, 2]} or {choice: [1, 2]}",
            "    8 |       skeletonclr: {temprature: 1, queue: [1, 2], projection: {int: [0, 4]}}",
            "      |                                           ^^^^^^",
            "many.yaml:8:70: hidden and projection must be at least 1",
            "    8 |       skeletonclr: {temprature: 1, queue: [1, 2], projection: {int: [0, 4]}}",
            "      |                                                                      ^",
            "many.yaml:9:7: unknown method 'skeltonbyol'; did you mean 'skeletonbyol'?",
            "    9 |       skeltonbyol: {}",
            "      |       ^^^^^^^^^^^",
            "many.yaml:10:13: unknown parameter 'stregth' of 'augment'; did you mean 'strength'?",
            "   10 |   augment: {stregth: 1}",
            "      |             ^^^^^^^",
            "many.yaml:11:26: unknown stream 'bones'; did you mean 'bone'?",
            "   11 |   streams: {use: [joint, bones]}",
            "      |                          ^^^^^",
            "many.yaml:12:3: unknown key 'frames' in 'search'; it belongs under 'data' or into a branch",
            "   12 |   frames: 3",
            "      |   ^^^^^^",
            "many.yaml:13:14: an entry of start_from is the word published, or a partial config of values",
            "   13 | start_from: [publishd]",
            "      |              ^^^^^^^^",
        ]
    )


@pytest.mark.parametrize(
    ("settings", "col", "message"),
    [
        (
            "temperature: [0.1, 1]",
            14,
            "'temperature': a bare list does not say how to draw; "
            "write {uniform: [0.1, 1]} or {log: [0.1, 1]} or {choice: [0.1, 1]}",
        ),
        (
            "temperature: [1, 2, 3]",
            14,
            "'temperature': a bare list does not say how to draw; write {choice: [1, 2, 3]}",
        ),
        (
            "queue: [256, 512]",
            8,
            "'queue': a bare list does not say how to draw; write {int: [256, 512]} or {choice: [256, 512]}",
        ),
        ("init_sync: [true]", 12, "'init_sync': a bare list does not say how to draw; write {choice: [true]}"),
        ("temperature: {lgo: [0.1, 1]}", 15, "'temperature': unknown word 'lgo'; did you mean 'log'?"),
        ("temperature: {log: [1, 0.1]}", 20, "'temperature': log: the lower bound comes first, got [1, 0.1]"),
        ("temperature: {log: [0, 1]}", 20, "'temperature': log needs bounds above 0, got 0"),
        ("temperature: {log: [0.1]}", 20, "'temperature': log takes [lowest, highest], got [0.1]"),
        ("temperature: {log: 0.1}", 20, "'temperature': log takes [lowest, highest], got 0.1"),
        ("temperature: {log: }", 19, "'temperature': log takes [lowest, highest], got nothing"),
        ("temperature: {log: [a, 1]}", 21, "'temperature: a bound of log' must be a number, got 'a'"),
        ("temperature: {log: [true, 1]}", 21, "'temperature: a bound of log' must be a number, got true"),
        (
            "temperature: {int: [1, 2]}",
            15,
            "'temperature' is not a whole number; for a number write {uniform: [...]} or {log: [...]}",
        ),
        ("temperature: {uniform: [0, 1]}", 25, "temperature must be positive, got 0.0"),
        ("temperature: -1", 14, "temperature must be positive, got -1.0"),
        ("temperature: hot", 14, "'temperature' must be a number, got 'hot'"),
        ("temperature: true", 14, "'temperature' must be a number, got true"),
        (
            "temperature: ",
            1,
            "'temperature' is empty; give it a value, or leave the line out to keep the published one",
        ),
        ("temperature: {simplex: [a, b]}", 15, "'temperature' is no set of weights; simplex does not fit it"),
        (
            "temperature: {one_of: {a: 1}}",
            15,
            "'temperature': one_of belongs to 'method' alone; among plain values write {choice: [...]}",
        ),
        ("temperature: {near_one: [0.9, 1]}", 25, "'temperature': near_one needs bounds inside (0, 1), got [0.9, 1]"),
        ("queue: {uniform: [1, 9]}", 9, "'queue' is a whole number; write {int: [...]} or {choice: [...]}"),
        ("queue: {int: [1, 2.5]}", 18, "'queue: a bound of int' must be a whole number, got 2.5"),
        ("queue: {int: [0, 8]}", 15, "queue must hold at least one key, got 0"),
        ("queue: 512.0", 8, "'queue' must be a whole number, got 512.0"),
        ("queue: true", 8, "'queue' must be a whole number, got true"),
        ("queue: {choice: []}", 17, "'queue': choice takes at least one option, got an empty list"),
        ("queue: {choice: [8, 8]}", 17, "'queue': choice names 8 twice"),
        ("queue: {choice: 8}", 17, "'queue': choice takes a list of options, got 8"),
        ("queue: {choice: [8, x]}", 21, "'queue: an option of choice' must be a whole number, got 'x'"),
        ("queue: {choice: [8, 0]}", 21, "queue must hold at least one key, got 0"),
        ("init_sync: yes", 12, "'init_sync' must be true or false, got 'yes'"),
        ("init_sync: 1", 12, "'init_sync' must be true or false, got 1"),
        ("init_sync: {uniform: [0, 1]}", 13, "'init_sync' is no number; write {choice: [...]}"),
        (
            "momentum_schedule: {choice: [constant, cosin]}",
            40,
            "momentum_schedule must be constant or cosine, got 'cosin'",
        ),
        ("frames: 3", 9, "frames must be at least 4 (the encoder strides time by 4), got 3"),
        ("frames: {int: [2, 64]}", 16, "frames must be at least 4 (the encoder strides time by 4), got 2"),
        ("streams: {use: [joint]}", 1, "'streams' belongs under 'search': it is one for all methods"),
        (
            "optim: {leaning_rate: 1}",
            9,
            "unknown parameter 'leaning_rate' of 'optim'; known: batch, lr, name, nesterov, order, schedule, "
            "sgd_momentum, step_at, step_factor, warmup, weight_decay",
        ),
        ("optim: 3", 1, "'optim' is a mapping of its parameters"),
        (
            "temperature: {log: [0.1, 1], int: [1, 2]}",
            14,
            "'temperature' takes a value or one word of uniform, log, int, near_one, choice, simplex with its list, "
            "as {log: [0.01, 0.3]}",
        ),
    ],
)
def test_each_wrong_setting_is_said_at_its_place(settings: str, col: int, message: str) -> None:
    assert faults(clr(settings)) == [(4, 32 + col, message)]


@pytest.mark.parametrize(
    ("search", "col", "message"),
    [
        ("{}", 9, "'search' needs 'method': a name, or {one_of: {...}}"),
        ("3", 1, "'search' is a mapping with at least 'method'"),
        ("{method: }", 10, "'method' is a name, or {one_of: {...}}"),
        ("{method: 3}", 10, "'method' is a name, or {one_of: {...}}"),
        ("{method: moco}", 18, None),
        ("{method: [a, b]}", 18, "'method': a bare list does not say how to draw; write {one_of: {a: {}, b: {}}}"),
        ("{method: {skeletonclr: , skeletonbyol: }}", 10, "'method' names 2 methods; put them under one_of"),
        ("{method: {one_of: [a]}}", 19, "one_of takes a mapping of methods, {skeletonclr: {...}, ...}"),
        ("{method: {one_of: {}}}", 19, "one_of takes a mapping of methods, {skeletonclr: {...}, ...}"),
        ("{method: {one_of: {skeletonclr: {}}, x: 1}}", 46, "'x' stands beside one_of; put it below"),
        ("{method: {skeletonclr: 3}}", 19, "method 'skeletonclr' takes a mapping of its parameters, or nothing"),
        ("{method: skeletonclr, augmnt: {}}", 31, "unknown key 'augmnt' in 'search'; did you mean 'augment'?"),
    ],
)
def test_each_wrong_method_is_said_at_its_place(search: str, col: int, message: str | None) -> None:
    found = faults(HEAD + f"search: {search}\n")
    assert [f[:2] for f in found] == [(4, col)]
    assert message is None or found[0][2] == message


@pytest.mark.parametrize(
    ("streams", "messages"),
    [
        ("use: joint", ["'use' is a list of streams; write [joint]"]),
        ("use: []", ["streams.use names no stream"]),
        ("use: [joint, joint]", ["streams.use names a stream twice: joint, joint"]),
        ("use: [joint, 3]", ["'use' must be a list of words, got [joint, 3]"]),
        ("use: [join]", ["unknown stream 'join'; did you mean 'joint'?"]),
        ("loss: equl", ["streams.loss must be equal or weights, got 'equl'"]),
        ("loss: fitted", ["streams.loss must be equal or weights, got 'fitted'"]),
        ("fuse: {simplex: [joint, bone]}", ["'fuse': stream 'bone' is not in use; known: joint"]),
        (
            "use: [joint, bone], fuse: [0.5, 0.5]",
            ["'fuse' goes by name: write {joint: 0.5, ...} or {simplex: [joint, ...]}"],
        ),
        ("use: [joint, bone], fuse: {joint: 1}", ["'fuse' gives no weight to bone, which 'use' lists"]),
        ("use: [joint, bone], fuse: {joint: 1, bone: x}", ["'fuse.bone' must be a number, got 'x'"]),
        (
            "use: [joint, bone], fuse: {joint: 1, bone: -1}",
            ["streams.fuse must be finite, not negative and not all zero, got (1.0, -1.0)"],
        ),
        (
            "use: [joint, bone], fuse: {joint: {uniform: [0, 1]}, bone: 1}",
            ["'fuse': weights are drawn together; write {simplex: [joint, bone]}"],
        ),
        (
            "use: [joint, bone], fuse: {simplx: [joint, bone]}",
            ["'fuse': unknown word 'simplx'; did you mean 'simplex'?"],
        ),
        (
            "use: [joint, bone, motion], fuse: {simplex: [bone, joint]}",
            ["'fuse': simplex leaves out motion, which 'use' lists"],
        ),
        (
            "use: {choice: [[joint], [joint, bone]]}, fuse: {simplex: [joint, bone]}",
            ["not supported by this version: weights in 'fuse' where 'use' is drawn; write equal"],
        ),
    ],
)
def test_streams(streams: str, messages: list[str]) -> None:
    assert [m for _, _, m in faults(HEAD + f"search: {{method: skeletonclr, streams: {{{streams}}}}}\n")] == messages


def test_limits_that_tie_two_parameters_together_are_met() -> None:
    def optim(text: str) -> list[tuple[int, str]]:
        found = faults(HEAD + f"search:\n  method: skeletonclr\n  optim: {{{text}}}\n")
        return [(col, message) for _, col, message in found]

    needs = "optim.nesterov needs an optim.sgd_momentum above 0"
    assert optim("nesterov: true, sgd_momentum: 0") == [(41, needs)]
    assert optim("sgd_momentum: 0, nesterov: true") == [(38, needs)]
    assert optim("nesterov: true, sgd_momentum: {uniform: [0, 0.9]}") == [(52, needs)]
    # Each end is fine beside the other's first option; only both together are not.
    both = optim("nesterov: {choice: [false, true]}, sgd_momentum: {choice: [0.9, 0.0]}")
    assert both == [(11, f"some draws of 'skeletonclr' are impossible: {needs}")]


def test_the_order_of_tied_parameters_does_not_matter() -> None:
    """Weights of three streams are wrong for the default one stream; `use` may stand below them."""
    text = HEAD + "search: {method: skeletonclr, streams: {fuse: {joint: 1, bone: 3}, use: [bone, joint]}}\n"
    _, space = check_text(text)
    assert space.resolve({}).streams.fuse == (3.0, 1.0)  # in the order of `use`


def test_preprocess_steps_are_checked() -> None:
    found = faults(clr("").replace("synthetic}", "synthetic, preprocess: [trimm]}"))
    assert found == [(3, 24, "unknown preprocessing step 'trimm'; did you mean 'trim'?")]


WORDS_OF_THE_SEARCH = """\
schedule: {asha: {rule: promote, ladder: per_method, brackets: 2, grow: true, repeats: 3}}
objectives: [top1, gpu_seconds]
warm_start: [old.jsonl, "sqlite:///old.db"]
budget: {epochs: 900, money: 20, price: 2.5, in_flight: stop}
"""


@pytest.mark.parametrize("sampler", ["portfolio", "tpe", "rank_gp", "random", "gp", "cmaes"])
def test_every_word_of_the_search_is_taken(monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda name: object())
    spec, _ = check_text(clr("temperature: {log: [0.1, 1]}") + WORDS_OF_THE_SEARCH + f"sampler: {{name: {sampler}}}\n")
    assert (spec.schedule.asha.brackets, spec.objectives, spec.sampler.name) == (2, ("top1", "gpu_seconds"), sampler)


@pytest.mark.parametrize(
    ("name", "there", "needs"),
    [
        ("cmaes", ("scipy", "torch"), "the package cmaes"),
        ("gp", ("cmaes", "torch"), "the package scipy"),
        ("gp", (), "the packages scipy and torch"),
    ],
)
def test_a_sampler_whose_packages_are_missing(
    monkeypatch: pytest.MonkeyPatch, name: str, there: tuple[str, ...], needs: str
) -> None:
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda package: object() if package in there else None)
    line = f"sampler: {{name: {name}}}\n"
    message = f"sampler {name} needs {needs}: pip install 'skeltune[samplers]'"
    assert faults(clr("temperature: {log: [0.1, 1]}") + line) == [(5, 17, message)]
    assert (5, 17, message) in faults(clr("temprature: 1") + line)  # with the others, in one go
    assert check_text(clr("") + line)[0].sampler.name == name  # an exported config is only trained
    assert check_text(clr("temperature: {log: [0.1, 1]}"))[0].sampler.name == "portfolio"  # which needs neither


def test_the_engine_needs_the_same_packages() -> None:
    from tuning.engine.sampler.flat import NEEDS

    assert NEEDS == load.SAMPLER_PACKAGES


def test_a_branch_wins_over_the_search_which_wins_over_the_recipe(bound) -> None:  # type: ignore[no-untyped-def]
    _, space = bound
    branch = space.branch("skeletonclr")
    assert branch.base.frames == 24 and space.branch("skeletonbyol").base.frames == 32
    assert branch.base.encoder.width == 16  # the shared choice is not drawn here
    names = [draw.name for draw in branch.draws]
    assert "method/skeletonclr/optim/lr" in names and "optim/lr" not in names
    assert "augment/strength" in names and "method/skeletonclr/augment/shear" in names  # merged field by field
    assert branch.base.optim.batch == 64 and branch.base.optim.schedule == "step"  # the recipe's


def test_load_search_tells_a_path_from_a_text(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "s.yaml"
    path.write_text(clr(""))
    assert load_search(path) == load_search(str(path)) == load_search(clr(""))
    assert load_search(path)[0].origin == str(tmp_path)
    with pytest.raises(InputError, match="there is no such file"):
        load_search("nowhere.yaml")


def test_data_is_looked_for_beside_the_file_and_under_skeltune_data(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    spec, _ = check_text(clr("").replace("set: synthetic", "set: mine"), origin=str(tmp_path / "here"))
    monkeypatch.setenv("SKELTUNE_DATA", str(tmp_path / "there"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no dataset 'mine'; tried"):
        locate_data(spec)
    (tmp_path / "there" / "mine").mkdir(parents=True)
    assert locate_data(spec) == tmp_path / "there" / "mine"
    (tmp_path / "here" / "mine").mkdir(parents=True)
    assert locate_data(spec) == tmp_path / "here" / "mine"
    assert locate_data(check_text(clr(""))[0]) is None


def survives(text: str) -> None:
    try:
        spec, space = check_text(text)
    except ConfigError as error:
        said = (error.where, str(error))
    else:
        said = (spec.space_hash(), space.methods)
    assert all(said)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=80))
def test_no_text_whatever_ends_in_anything_but_a_config_error(text: str) -> None:
    survives(text)
    survives(HEAD + "search: " + text)


WORDS = "null {} [] [1] -1 0 1e-3 yes true joint published one_of ~ *a &a !!int | > % @ ` ? 9999999999999999999 1.5"
PIECES = [
    *WORDS.split(" "),
    *("{a: 1}", "{log: [1, 2]}", "{simplex: [joint, bone]}", "{choice: [[joint], [bone]]}", "{int: [1, 2]}", "[[]]"),
    *("\n", "  ", "\t", ": ", "- ", "#", '"', "'", "{", "}", "[", "]", ",", "\x00", "\u2028", "é"),
]


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES)), min_size=1, max_size=3),
)
def test_no_mutilated_space_ends_in_anything_but_a_config_error(whole: str, cuts: list[tuple[float, int, str]]) -> None:
    text = whole
    for where, length, piece in cuts:
        at = int(where * len(text))
        text = text[:at] + piece + text[at + length :]
    survives(text)


def test_a_preset_takes_the_official_quirks() -> None:
    def params(preset: str):
        return check_text(HEAD + f"search: {{method: skeletonclr{preset}}}\n")[1].branches[0].base

    assert params("") == params(", preset: clean")
    assert params("").params.init_sync and not params(", preset: paper_code").params.init_sync


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("preset: paper-code", "'preset' is clean or paper_code, got 'paper-code'; did you mean 'paper_code'?"),
        ("preset: {a: 1}", "'preset' is clean or paper_code"),
    ],
)
def test_wrong_presets(text: str, says: str) -> None:
    found = faults(HEAD + f"search: {{method: skeletonclr, {text}}}\n")
    assert len(found) == 1 and says in found[0][2]


def test_a_stage_that_changes_what_is_probed_is_said() -> None:
    from tuning.space.explain import explain
    from tuning.space.stages import stages_at_rungs

    text = HEAD.replace("name: a", "name: crrl") + "search: {method: {crrl: {fuse_start: 0.5}}}\n"
    spec, space = check_text(text)
    found = stages_at_rungs(space.branches[0], spec.schedule.rungs())
    assert found[0] == ("contrast",) and found[-1] == ("fuse",)
    said = "from stage 'fuse' on (50% of the run) what is probed is"
    assert any(said in line for line in explain(spec, space))
