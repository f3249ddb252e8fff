"""The sections that are not drawn: limits, faults at their line, defaults, and the hash of a space."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tuning.config.errors import ConfigError
from tuning.config.read import read_spec
from tuning.config.schema import SearchSpec
from tuning.config.yaml_source import parse_yaml

LEAST = "format: 1\nname: a\ndata: {set: synthetic}\nsearch: {method: skeletonclr}\n"


def read(text: str) -> SearchSpec:
    report, root = parse_yaml(text, "s.yaml")
    assert root is not None
    spec = read_spec(root, report)
    report.raise_if_any()
    assert spec is not None
    return spec


def faults(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [(f.line, f.col, f.message) for f in caught.value.where]


def test_defaults() -> None:
    spec = read(LEAST)
    assert (spec.seed, spec.schedule.max, spec.schedule.asha.min, spec.schedule.asha.eta) == (0, 27, 3, 3)
    assert (spec.budget.trials, spec.budget.parallel, spec.budget.per_trial.gpu) == (24, "auto", "one")
    assert (spec.sampler.name, spec.sampler.startup_trials, spec.sampler.random_share) == ("portfolio", 10, 0.2)
    assert (spec.probe.solver, spec.objectives, spec.warm_start) == ("lbfgs", ("top1",), ())
    asha = spec.schedule.asha
    assert (asha.rule, asha.ladder, asha.brackets, asha.grow, asha.repeats) == ("promote", "per_method", 1, False, 5)
    assert (spec.budget.in_flight, spec.budget.on_end, spec.budget.epochs, spec.budget.money) == (
        "finish",
        "finish",
        None,
        None,
    )
    assert (spec.data.split, spec.data.validate_on, spec.data.preprocess, spec.data.frames) == (
        "xsub",
        "auto",
        None,
        None,
    )
    assert spec.finish.rerun is not None and spec.finish.rerun.top == 3
    assert read(LEAST + "budget: {minutes: 5}\n").budget.trials is None  # one limit is written, so no other is made up
    assert read(LEAST + "budget: {retries: 0}\n").budget.trials == 24


def test_a_whole_spec_is_frozen_hashable_and_compared_by_value() -> None:
    one, two = read(LEAST), read("# with a comment\n" + LEAST)
    assert one == two and hash(one) == hash(two)
    with pytest.raises(AttributeError):
        one.seed = 3  # type: ignore[misc]


def test_splits_by_hand() -> None:
    text = LEAST.replace(
        "synthetic}", "synthetic, split: {test_subjects: [1, 2]}, validate_on: {held_out_subjects: [3]}}"
    )
    data = read(text).data
    assert not isinstance(data.split, str) and data.split.test_subjects == (1, 2)
    assert not isinstance(data.validate_on, str) and data.validate_on.held_out_subjects == (3,)


@pytest.mark.parametrize(
    ("line", "col", "message"),
    [
        ("sead: 3", 1, "unknown key 'sead' at the top of the file; did you mean 'seed'?"),
        ("seed: true", 7, "'seed' must be a whole number, got true"),
        ("seed: -1", 7, "'seed' must be at least 0, got -1"),
        ("seed: 1.0", 7, "'seed' must be a whole number, got 1.0"),
        ("probe: {kind: liner}", 15, "'probe.kind' must be linear or knn, got 'liner'; did you mean 'linear'?"),
        ("probe: {metric: test_top1}", 17, "'probe.metric' must be top1, got 'test_top1'; did you mean 'top1'?"),
        ("probe: {l2: -1}", 13, "'probe.l2' must be more than 0, got -1"),
        ("probe: {precision: fp16}", 20, "'probe.precision' must be fp32 or bf16, got 'fp16'; did you mean 'bf16'?"),
        ("probe: {subset: -1}", 17, "'probe.subset' must be at least 0, got -1"),
        (
            "probe: {precision: bf16, settle: false}",
            20,
            "bf16 needs `settle: true`: unsettled, clips can differ by less than bf16 keeps",
        ),
        ("probe: 3", 8, "'probe' must be a mapping, {...}, got 3"),
        ("schedule: {max: 9, asha: {min: 10}}", 32, "'asha.min' (10) is above 'max' (9)"),
        ("schedule: {asha: {eta: 1}}", 24, "'schedule.asha.eta' must be at least 2, got 1"),
        ("schedule: {asha: {etta: 3}}", 19, "unknown key 'etta' in 'schedule.asha'; did you mean 'eta'?"),
        ("schedule: {max: 0}", 17, "'schedule.max' must be at least 1, got 0"),
        ("schedule: {unit: step}", 18, "'schedule.unit' must be epoch, got 'step'"),
        ("sampler: {random_share: 1.5}", 25, "'sampler.random_share' must be at most 1, got 1.5"),
        ("budget: {trials: 0}", 18, "'budget.trials' must be at least 1, got 0"),
        ("budget: {gpu_hours: 0}", 21, "'budget.gpu_hours' must be more than 0, got 0"),
        ("budget: {parallel: no}", 20, "'budget.parallel' must be auto or a whole number of at least 1, got 'no'"),
        ("budget: {parallel: true}", 20, "'budget.parallel' must be auto or a whole number of at least 1, got True"),
        (
            "budget: {per_trial: {gpu: -1}}",
            27,
            "'budget.per_trial.gpu' must be one, auto or a number of at least 0, got -1",
        ),
        (
            "budget: {trials: null}",
            1,
            "a search needs an end: give at least one of trials, epochs, gpu_hours, minutes, money",
        ),
        ("budget: {epochs: 0}", 18, "'budget.epochs' must be at least 1, got 0"),
        ("budget: {money: 5}", 17, "'money' needs 'price', that of one GPU-hour"),
        ("budget: {price: 0, money: 5}", 17, "'budget.price' must be more than 0, got 0"),
        ("budget: {in_flight: wait}", 21, "'budget.in_flight' must be finish or stop, got 'wait'"),
        ("schedule: {asha: {rule: halve}}", 25, "'schedule.asha.rule' must be stop or promote, got 'halve'"),
        ("schedule: {asha: {brackets: 0}}", 29, "'schedule.asha.brackets' must be at least 1, got 0"),
        ("schedule: {asha: {repeats: -1}}", 28, "'schedule.asha.repeats' must be at least 0, got -1"),
        (
            "schedule: {asha: {grow: true, rule: stop}}",
            25,
            "a growing ladder lets trials go on later: it needs `rule: promote`",
        ),
        ("objectives: [gpu_seconds]", 13, "the first objective is top1; a second one is gpu_seconds or parameters"),
        (
            "objectives: [top1, gpu_seconds, parameters]",
            13,
            "the first objective is top1; a second one is gpu_seconds or parameters",
        ),
        (
            "sampler: {name: cmaess}",
            17,
            "'sampler.name' must be portfolio, tpe, rank_gp, random, gp or cmaes, got 'cmaess'; did you mean 'cmaes'?",
        ),
        ("finish: {rerun: {top: 0}}", 23, "'finish.rerun.top' must be at least 1, got 0"),
        ("objectives: []", 13, "'objectives' must be a list of at least one, got ()"),
        ("objectives: [top1, top1]", 13, "'objectives' must not name one twice"),
        ("objectives: top1", 13, "'objectives' must be a list, [...], got 'top1'"),
        ("warm_start: a", 13, "'warm_start' must be a list, [...], got 'a'"),
        ("provenance: 1", 13, "'provenance' must be a mapping, {...}, got 1"),
    ],
)
def test_a_wrong_section_is_reported_at_its_place(line: str, col: int, message: str) -> None:
    assert faults(LEAST + line + "\n") == [(5, col, message)]


@pytest.mark.parametrize(
    ("old", "new", "place", "says"),
    [
        ("format: 1", "format: 2", (1, 9), "this version reads format 1, got 2"),
        ("name: a", "name: ../a", (2, 7), "'../a' names the run's folder"),
        ("name: a", "name: .a", (2, 7), "no dot in front"),
        ("name: a", "name: 12", (2, 7), "must be a word (put it in quotes"),
        ("name: a\n", "", (1, 1), "the file needs 'name'"),
        ("set: synthetic", "sett: synthetic", (3, 8), "unknown key 'sett' in 'data'; did you mean 'set'?"),
        ("synthetic}", "synthetic, frames: 3}", (3, 32), "'data.frames' must be at least 4, got 3"),
        ("synthetic}", "synthetic, split: [1]}", (3, 31), "must be the name of a split"),
        ("synthetic}", "synthetic, split: {test_subjects: [a]}}", (3, 48), "must be a whole number, got 'a'"),
        ("synthetic}", "synthetic, split: {test_subjects: []}}", (3, 47), "a list of at least one"),
        ("synthetic}", "synthetic, split: {}}", (3, 24), "exactly one of test_subjects"),
        ("synthetic}", "synthetic, validate_on: atuo}", (3, 37), "must be auto, cv, {held_out_subjects"),
        ("synthetic}", "synthetic, preprocess: 3}", (3, 36), "must be a list"),
    ],
)
def test_a_wrong_head_is_reported_at_its_place(old: str, new: str, place: tuple[int, int], says: str) -> None:
    found = faults(LEAST.replace(old, new))
    assert any((line, col) == place and says in message for line, col, message in found), found


def test_several_faults_come_in_one_go_in_the_order_of_the_file() -> None:
    found = faults(LEAST.replace("name: a", "name: .a") + "seed: x\nprobe: {knd: linear}\nbudget: {trials: 0}\n")
    assert [line for line, _, _ in found] == [2, 5, 6, 7]


def test_the_hash_ignores_what_decides_nothing() -> None:
    base = read(LEAST).space_hash()
    for same in (
        LEAST.replace("name: a", "name: other"),
        "# a comment\n" + LEAST,
        LEAST + "budget: {trials: 500}\n",
        LEAST + "finish: {rerun: null}\n",
        LEAST + "start_from: [published]\n",
        LEAST + "seed: 0\n",
        LEAST + "probe: {l2: 0.001}\n",
        LEAST + "probe: {l2: 1e-3, knn_k: 20}\n",
        LEAST + "probe: {subset: 0, precision: fp32}\n",
        LEAST + "schedule: {asha: {eta: 3, min: 3}, max: 27}\n",
        LEAST.replace("method: skeletonclr", "method: {skeletonclr: {}}"),
        LEAST.replace("method: skeletonclr", "method: {one_of: {skeletonclr: }}"),
    ):
        assert read(same).space_hash() == base, same
    assert len(base) == 64


def test_words_that_came_later_changed_no_hash() -> None:
    """A run folder of before `probe.subset` and `probe.precision` goes on."""
    spec = read(LEAST)
    before = spec.probe.model_dump(exclude={"subset", "precision"})
    assert spec.probe.told() == before and list(before)[-1] == "settle"
    assert read(LEAST + "probe: {subset: 9}\n").probe.told() == before | {"subset": 9}


def test_the_hash_ignores_the_spelling_of_numbers_and_the_order_of_keys() -> None:
    one = LEAST.replace("skeletonclr}", "skeletonclr, optim: {lr: {log: [0.01, 1]}, batch: 64}}")
    two = LEAST.replace("skeletonclr}", "skeletonclr, optim: {batch: 0x40, lr: {log: [1e-2, 1.0]}}}")
    assert read(one).space_hash() == read(two).space_hash()


def test_the_hash_notices_what_decides_something() -> None:
    texts = [
        LEAST,
        LEAST + "seed: 1\n",
        LEAST + "probe: {l2: 0.01}\n",
        LEAST + "probe: {subset: 500}\n",
        LEAST + "probe: {precision: bf16}\n",
        LEAST + "schedule: {max: 81}\n",
        LEAST + "sampler: {name: random}\n",
        LEAST.replace("synthetic}", "synthetic, split: xview}"),
        LEAST.replace("skeletonclr}", "skeletonclr, optim: {batch: 64}}"),
        LEAST.replace("skeletonclr}", "skeletonclr, optim: {nesterov: true}}"),
    ]
    assert len({read(text).space_hash() for text in texts}) == len(texts)


def test_the_hash_notices_every_word_that_decides_who_goes_on() -> None:
    words = ("rule: stop", "ladder: shared", "brackets: 2", "grow: true", "repeats: 0", "eta: 2")
    texts = [LEAST, *(LEAST + f"schedule: {{asha: {{{word}}}}}\n" for word in words)]
    texts += [LEAST + "objectives: [top1, parameters]\n", LEAST + "sampler: {random_share: 0.5}\n"]
    assert len({read(text).space_hash() for text in texts}) == len(texts)
    ends = "budget: {epochs: 9, money: 3, price: 1, in_flight: stop}\n"
    assert read(LEAST + ends + "warm_start: [runs/a]\n").space_hash() == read(LEAST).space_hash()


def test_any_one_limit_is_an_end() -> None:
    for limit in ("epochs: 9", "minutes: 9", "gpu_hours: 9", "money: 9, price: 2"):
        assert read(LEAST + f"budget: {{{limit}}}\n").budget.trials is None
    assert read(LEAST + "budget: {price: 2}\n").budget.trials == 24  # a price is no limit


@pytest.mark.parametrize(
    ("top", "low", "eta", "rungs"),
    [
        (27, 3, 3, (3, 9, 27)),
        (243, 1, 3, (1, 3, 9, 27, 81, 243)),  # Ray's logarithm stops at 81
        (1000, 1, 10, (1, 10, 100, 1000)),
        (28, 3, 3, (3, 9, 28)),  # 27 would decide nothing
        (60, 3, 3, (3, 9, 27, 60)),
        (5, 5, 3, (5,)),
        (1, 1, 2, (1,)),
    ],
)
def test_rungs(top: int, low: int, eta: int, rungs: tuple[int, ...]) -> None:
    assert read(LEAST + f"schedule: {{max: {top}, asha: {{min: {low}, eta: {eta}}}}}\n").schedule.rungs() == rungs


def test_config_and_domains_come_without_torch() -> None:
    code = (
        "import sys; import tuning.config.read, tuning.space, tuning.space.explain, tuning.space.export;"
        "print([m for m in ('torch', 'ray', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
