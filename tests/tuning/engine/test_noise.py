"""Probe noise: the bits of a result, standard errors that hold for new people, repeats, and the width of a tie."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.engine import noise
from tuning.engine.journal import Journal, replay
from tuning.engine.noise import (
    NoiseMeter,
    Probed,
    clips_mark,
    decode_correct,
    encode_correct,
    noise_lines,
    paired_se,
    paired_width,
    repeat_pairs,
    seed_sd,
)
from tuning.engine.rungs import Table
from tuning.engine.state import JournalState, Report, TrialState

SIZES = np.random.default_rng(5).integers(10, 60, 30)
SUBJECTS = np.repeat(np.arange(30), SIZES)


def drawn(rng, models=2, shared=0.15, own=0.1, seed=0.0):
    """Correctness (models, n) on new people: who is hard for everybody, who is for one model, and a model's seed."""
    ease = 0.6 + shared * rng.standard_normal(30) + own * rng.standard_normal((models, 30))
    ease = ease + seed * rng.standard_normal((models, 1))
    return rng.random((models, len(SUBJECTS))) < ease[:, SUBJECTS]


# --- bits -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=40))
def test_bits_come_back(bits):
    text = encode_correct(np.array(bits, dtype=bool))
    assert json.loads(json.dumps(text)) == text
    assert decode_correct(text, len(bits)).tolist() == bits


def test_bits_are_small_and_of_so_many_clips():
    assert len(encode_correct(np.ones(6000, dtype=bool))) == 1000
    assert encode_correct(np.array([True] + [False] * 7 + [True])) == "gIA="
    with pytest.raises(ValueError, match="2 bytes are not the correctness of 17 clips"):
        decode_correct("gIA=", 17)
    with pytest.raises(ValueError, match="base64"):
        decode_correct("no text of ours!", 9)


def test_the_mark_is_of_the_set_of_clips():
    assert clips_mark(np.array([3, 1, 2])) == clips_mark(np.array([1, 2, 3], dtype=np.int32))
    assert clips_mark(np.array([1, 2, 3])) != clips_mark(np.array([1, 2, 4]))


# --- standard errors ------------------------------------------------------------------------------------------------


def test_the_error_is_that_of_new_people():
    """Over 400 sets of 30 new people; the bootstrap by clip, which takes clips for independent, is far off."""
    rng = np.random.default_rng(1)
    pairs = [drawn(rng) for _ in range(400)]
    true = np.std([a.mean() - b.mean() for a, b in pairs])
    by_subject = math.sqrt(np.mean([paired_se(a, b, SUBJECTS) ** 2 for a, b in pairs]))
    by_clip = math.sqrt(np.mean([paired_se(a, b, np.arange(len(a))) ** 2 for a, b in pairs]))
    assert by_subject == pytest.approx(true, rel=0.15)
    assert by_clip < 0.8 * true


def test_few_subjects_are_not_taken_for_many():
    """Three people: without the correction for resampling so few, the error would be 18 % too small."""
    subjects = np.repeat(np.arange(3), 4)
    a = np.repeat([True, True, False], 4)
    b = np.repeat([False, True, True], 4)
    found = paired_se(a, b, subjects, draws=20_000)
    assert found == pytest.approx(1 / math.sqrt(3), rel=0.02)  # of the differences 1, 0, -1: sd 1, by the root of 3


def test_pairing_takes_out_what_both_models_share():
    """Both fail with the same people: the difference is surer than the two accuracies."""
    rng = np.random.default_rng(2)
    a, b = drawn(rng, shared=0.3, own=0.0)
    nothing = np.zeros_like(a)
    alone = math.hypot(paired_se(a, nothing, SUBJECTS), paired_se(b, nothing, SUBJECTS))
    assert paired_se(a, b, SUBJECTS) < 0.5 * alone
    assert paired_se(a, a, SUBJECTS) == 0.0


@pytest.mark.parametrize("subjects", [np.zeros(200, dtype=np.int64), np.arange(200)])
def test_without_two_subjects_clips_are_resampled(subjects):
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 200)) < 0.6
    difference = a.astype(float) - b
    drawn = [rng.choice(difference, 200).mean() for _ in range(4000)]
    assert paired_se(a, b, subjects) == pytest.approx(np.std(drawn), rel=0.05)


def test_the_same_question_has_the_same_answer():
    a, b = drawn(np.random.default_rng(4))
    assert paired_se(a, b, SUBJECTS) == paired_se(b, a, SUBJECTS) == paired_se(a, b, SUBJECTS * 7 + 2)
    assert paired_se(a, b, SUBJECTS, seed=1) != paired_se(a, b, SUBJECTS)
    assert paired_se(a[:1], b[:1], SUBJECTS[:1]) == 0.0


def test_the_width_is_the_median_of_the_five_pairs_at_the_cut():
    rng = np.random.default_rng(6)
    masks = list(drawn(rng, models=12))
    errors = [paired_se(a, b, SUBJECTS) for a, b in zip(masks, masks[1:], strict=False)]
    assert len(set(errors)) == 11
    assert paired_width(masks, 4, SUBJECTS) == pytest.approx(np.median(errors[1:6]))
    assert paired_width(masks, 1, SUBJECTS) == pytest.approx(np.median(errors[:5]))
    assert paired_width(masks[:3], 2, SUBJECTS) == pytest.approx(np.median(errors[:2]))
    assert paired_width(masks[:1], 1, SUBJECTS) == 0.0


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_seeds_from_repeats():
    assert seed_sd([(0.5, 0.52), (0.6, 0.58), (0.7, 0.72)]) == pytest.approx(0.02 / math.sqrt(2))
    assert seed_sd([(0.5, 0.52), (0.6, 0.58)]) is None
    rng = np.random.default_rng(0)
    assert seed_sd([tuple(pair) for pair in rng.normal(0.5, 0.01, (2000, 2))]) == pytest.approx(0.01, rel=0.05)


def search(results, rung=9):
    """A state of trials (number, top1, mask, of) scored at ``rung``; the mask may be missing."""
    state = JournalState()
    for number, top1, mask, of in results:
        logs = {} if mask is None else {"correct": encode_correct(mask), "probed": MARK}
        trial = TrialState(number, {}, "repeat" if of is not None else "sampler", of=of)
        trial.reports[rung] = Report(rung, True, top1, 1.0, 1.0, logs)
        state.trials[number] = trial
    return state


MARK = clips_mark(np.arange(len(SUBJECTS)))
PROBED = Probed(MARK, SUBJECTS)


def table(state, rung=9):
    made = Table()
    for trial in state.trials.values():
        if trial.of is None:
            made.add(trial.trial, trial.at(rung).top1, 1.0)
    return made


def test_a_repeat_is_compared_at_its_own_first_rung():
    state = search([(0, 0.5, None, None), (1, 0.7, None, None), (2, 0.52, None, 0), (3, 0.6, None, 99)])
    state.trials[0].reports[3] = Report(3, False, None, None, 1.0)
    state.trials[0].reports[27] = Report(27, True, 0.8, 1.0, 1.0)
    state.trials[2].reports[3] = Report(3, True, 0.1, 1.0, 1.0)
    state.trials[4] = TrialState(4, {}, "repeat", of=1)  # not scored yet
    assert repeat_pairs(state) == [(0.5, 0.52)]


# --- the width of a tie ---------------------------------------------------------------------------------------------


def ladder(models=12, skip=()):
    """Twelve trials in order of merit, number 0 the best; no bits from those in ``skip``."""
    masks = drawn(np.random.default_rng(7), models)
    masks = masks[np.argsort(-masks.mean(axis=1))]
    return masks, search([(i, float(m.mean()), None if i in skip else m, None) for i, m in enumerate(masks)])


def test_clips_alone():
    masks, state = ladder()
    meter = NoiseMeter(state, 3, PROBED)
    assert meter.tie_width(table(state), 9) == pytest.approx(paired_width(list(masks), 4, SUBJECTS))
    assert 0.005 < meter.tie_width(table(state), 9) < 0.05


def test_seeds_alone_and_both_in_quadrature():
    masks, state = ladder()
    alone = search([(i, float(m.mean()), None, None) for i, m in enumerate(masks)])
    for both in (state, alone):
        repeats = [(20 + i, both.trials[i].at(9).top1 + 0.02, None, i) for i in range(3)]
        both.trials |= search(repeats).trials
    seeds = math.sqrt(2) * 0.02 / math.sqrt(2)  # of a difference of two scores
    assert NoiseMeter(alone, 3, PROBED).tie_width(table(alone), 9) == pytest.approx(seeds)
    assert NoiseMeter(alone, 3).tie_width(table(alone), 9) == pytest.approx(seeds)
    clips = paired_width(list(masks), 4, SUBJECTS)
    assert NoiseMeter(state, 3, PROBED).tie_width(table(state), 9) == pytest.approx(math.hypot(clips, seeds))


def test_where_nothing_is_known_only_equal_scores_tie():
    _, state = ladder()
    assert NoiseMeter(state, 3).tie_width(table(state), 9) == 0.0  # whose clips they are was never said
    assert NoiseMeter(state, 3, Probed(MARK + 1, SUBJECTS)).tie_width(table(state), 9) == 0.0  # other clips
    assert NoiseMeter(state, 3, PROBED).tie_width(Table(), 9) == 0.0
    _, without = ladder(skip=range(1, 12))
    assert NoiseMeter(without, 3, PROBED).tie_width(table(without), 9) == 0.0  # one result has no neighbour


def test_trials_without_bits_are_passed_over():
    masks, state = ladder(skip=(3, 4))
    entries = table(state)
    entries.add(50, None, None)  # diverged: in the table, and without a report
    state.trials[50] = TrialState(50, {}, "sampler")
    rest = [m for i, m in enumerate(masks) if i not in (3, 4)]
    found = NoiseMeter(state, 3, PROBED).tie_width(entries, 9)
    assert found == pytest.approx(paired_width(rest, 3, SUBJECTS))


def test_the_cost_does_not_grow_with_the_table(monkeypatch):
    """It is asked at every report of a rung: only the few results around the cut are unpacked."""
    read = []
    monkeypatch.setattr(noise, "decode_correct", lambda text, n: read.append(n) or decode_correct(text, n))
    for models in (30, 300):
        _, state = ladder(models)
        read.clear()
        assert NoiseMeter(state, 3, PROBED).tie_width(table(state), 9) > 0
        assert len(read) == 6


def test_the_width_covers_new_people_and_new_seeds():
    """Two equal configurations, 40 repeats: never too narrow, and too wide by no more than sqrt(2)."""
    rng = np.random.default_rng(8)
    new = [drawn(rng, seed=0.02) for _ in range(1000)]
    true = np.std([a.mean() - b.mean() for a, b in new])
    found = []
    for _ in range(20):
        masks = drawn(rng, models=82, seed=0.02)  # one set of people
        runs = [(i, float(m.mean()), m, None) for i, m in enumerate(masks[:42])]
        again = [(100 + i, float(m.mean()), None, i) for i, m in enumerate(masks[42:])]
        state = search(runs + again)
        found.append(NoiseMeter(state, 3, PROBED).tie_width(table(state), 9))
    assert true < np.sqrt(np.mean(np.square(found))) < math.sqrt(2) * true


# --- journal and report ---------------------------------------------------------------------------------------------


def test_the_journal_is_all_that_a_report_needs(tmp_path):
    path = tmp_path / "journal.jsonl"
    masks, given = ladder()
    with Journal(path, {"space": "a", "data": "b"}) as journal:
        journal.fact(noise.FACT, PROBED.plain())
        for mask in masks:
            logs = {"correct": encode_correct(mask), "probed": MARK}
            number = journal.ask({}, "sampler")
            journal.report(number, Report(9, True, float(mask.mean()), 1.0, 1.0, logs))
        for i in range(3):
            number = journal.ask({}, "repeat", of=i)
            journal.report(number, Report(9, True, float(masks[i].mean()) - 0.01 * math.sqrt(2), 1.0, 1.0))
    state = replay(path)
    width = NoiseMeter(given, 3, PROBED).tie_width(table(given), 9)
    assert NoiseMeter(state, 3).neighbours(table(state), 9) == width
    first = f"probe noise at epoch 9: {100 * width:.1f} points between neighbours (30 subjects), seeds 1.0 (3 repeats)"
    assert noise_lines(state, (9, 27), 3) == [first]


def test_lines_say_only_what_was_measured():
    masks, state = ladder()
    assert noise_lines(JournalState(), (9, 27), 3) == []
    assert noise_lines(state, (9, 27), 3) == []  # without the fact
    clips = np.arange(len(SUBJECTS))
    state.facts[noise.FACT] = Probed(MARK, clips).plain()
    width = paired_width(list(masks), 4, clips)
    told = f"({len(SUBJECTS)} clips, each for itself)"
    assert noise_lines(state, (3, 9), 3) == [
        f"probe noise at epoch 9: {100 * width:.1f} points between neighbours {told}"
    ]
    del state.facts[noise.FACT]
    for i in range(3):
        again = TrialState(20 + i, {}, "repeat", of=i)
        again.reports[9] = Report(9, True, state.trials[i].at(9).top1 + 0.01 * math.sqrt(2), 1.0, 1.0)
        state.trials[again.trial] = again
    assert noise_lines(state, (9, 27), 3) == ["probe noise at epoch 9: seeds 1.0 (3 repeats)"]
