"""Engines through whatever may happen, over a real journal: after every step, what was written says all.

Workers report epoch by epoch, lose heartbeats, fail, vanish; people cancel and interrupt; the disk fills up; drivers
are killed, leave torn lines, and go on.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import random
import tempfile
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests_engine_helpers import TWO, Hand, again, picture, setting_of

from methods.errors import WorkFailed
from tuning.engine.journal import Journal, read_events
from tuning.engine.state import CANCELLED, COLLAPSED, DIVERGED, FAULTY, GO, PAUSE, REPEATED, TOP, Report
from tuning.engine.virtual import Setting

HEADER = {"space": "a" * 64, "data": "b" * 64, "name": "x"}
RUNGS = (1, 3, 5)
SCORES = st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, None, math.nan])
LOSSES = st.sampled_from([0.5, 1.0, None])

VARIANTS: dict[str, dict[str, Any]] = {
    "stop": {"rule": "stop"},
    "promote": {},
    "stop-methods": {"rule": "stop", "per_method": True, "eta": 3},
    "grow-repeats": {"grow": True, "repeats": 2},
    "brackets": {"brackets": 2, "per_method": True},
    "epochs": {"rule": "stop", "budget": {"epochs": 12}},
    "in-flight": {"budget": {"epochs": 14, "in_flight": "stop", "retries": 0}},
    "two": {"objectives": ("top1", "gpu_seconds")},
    "tpe": {"sampler": "tpe", "startup": 2},
    "portfolio": {"sampler": "portfolio", "startup": 2},
}
MODELS = ("tpe", "portfolio")  # these take their time


def setting_for(variant: str) -> Setting:
    return setting_of(**({"rungs": RUNGS, "eta": 2, "budget": {"trials": 12, "retries": 1}} | VARIANTS[variant]))


class Search(RuleBasedStateMachine):
    """One search from its first ask to its last end."""

    variant = ""

    @initialize(seed=st.integers(0, 999), turns=st.integers(0, 40))
    def begin(self, seed: int, turns: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.jsonl"
        self.sync = patch("os.fsync", lambda fd: None)  # 4 ms each, and no power is cut here
        self.sync.start()
        self.setting = setting_for(self.variant)
        self.stopping = False
        self.drivers = 0
        self.lucky: set[tuple[int, int]] = set()  # (trial, epoch): let on by the last chance, beyond any quota
        self.lost: dict[int, int] = {}  # trial -> a heartbeat that has not come
        self.journal: Journal | None = None
        self.open()
        self.work(seed, turns)

    def open(self) -> None:
        """A driver begins."""
        if self.journal is not None:
            self.journal.close()
        self.journal = Journal(self.path, HEADER)
        self.journal.drive()
        self.drivers += 1
        self.at_work: dict[int, int] = {}  # trial -> epochs that its worker has done
        self.stopping = False
        self.hand = Hand(self.setting, TWO, self.journal, interrupted=lambda: self.stopping)

    @property
    def state(self):
        return self.hand.state

    @property
    def tables(self) -> dict[Any, Any]:
        return deepcopy(picture(self.hand.engine, proposal=False)["tables"])

    def lines(self) -> list[dict[str, Any]]:
        return read_events(self.path)[0]

    def worker(self, pick: int) -> int:
        return list(self.at_work)[pick % len(self.at_work)]

    # --- what may happen ----------------------------------------------------------------------------------------------

    @rule(seed=st.integers(0, 999), turns=st.integers(1, 30))
    def work(self, seed: int, turns: int) -> None:
        """Many asks and reports in a row, or few trials would ever come far."""
        rng = random.Random(seed)
        for _ in range(turns):
            if len(self.at_work) < 3 and rng.random() < 0.5:
                self.ask()
            elif self.at_work:
                top1 = rng.choice([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, None])
                self.report(rng.randrange(4), top1, rng.choice([0.5, 1.0, None]), rng.randint(1, 9))

    @rule()
    def ask(self) -> None:
        copy = again(self.lines(), self.setting, TWO)
        copy.engine.busy |= self.hand.engine.busy
        room = self.hand.engine.rules.promotable()
        waiting = {t.trial for t in self.state.pending if t.paused}
        spent = self.hand.engine.budget.spent()
        count = len(self.state.trials)
        segment = self.hand.engine.ask()
        if self.stopping:
            assert segment is None
            return
        assert segment == copy.engine.ask()  # another driver would have done the same
        if segment is None:
            assert self.at_work or self.hand.engine.finished
            return
        number = segment.trial
        assert number not in self.at_work
        trial = self.state.trials[number]
        assert trial.ended is None
        assert not trial.paused
        assert segment.after == trial.epochs
        assert number == count or number < count
        if number == count:
            assert spent is None
        if number in waiting and (room != number or self.setting.ladder.rule == "stop"):
            assert not self.at_work  # nobody else may still come
            self.lucky.add((number, trial.epochs))
        self.at_work[number] = max(0, trial.epochs - 1)  # a checkpoint's result is given again

    @precondition(lambda self: self.at_work)
    @rule(pick=st.integers(0, 3), top1=SCORES, loss=LOSSES, seconds=st.integers(1, 9))
    def report(self, pick: int, top1: float | None, loss: float | None, seconds: int) -> None:
        number = self.worker(pick)
        epoch = self.at_work[number] + 1
        trial = self.state.trials[number]
        scored = epoch in RUNGS
        known = trial.ended is not None or epoch in trial.reports
        earlier = trial.verdicts.get(epoch)
        spent_before = self.hand.engine.budget.spent()
        size = self.path.stat().st_size
        given = Report(epoch, scored, top1 if scored else None, loss if scored else None, float(seconds))
        verdict = self.hand.engine.report(number, given)
        self.at_work[number] = epoch
        if not verdict.goes_on:
            del self.at_work[number]
        if known:
            assert self.path.stat().st_size == size
            if earlier is not None and trial.ended is None and not self.stopping:
                assert verdict.word == earlier
            return
        if scored:
            self.judge(number, epoch, verdict.word, spent_before)

    def judge(self, number: int, epoch: int, word: str, spent_before: str | None) -> None:
        """The word of a new score, against plain counting."""
        trial = self.state.trials[number]
        report = trial.reports[epoch]
        ladder = self.setting.ladder
        spent = self.hand.engine.budget.spent() is not None
        if report.top1 is None:
            assert word == trial.ended == DIVERGED
        elif trial.of is not None:
            assert word == trial.ended == REPEATED
        elif epoch == ladder.top:
            assert word == trial.ended == TOP
        elif epoch < ladder.first(trial.bracket):
            assert epoch not in trial.verdicts
        elif ladder.rule == "stop":
            rivals = self.rivals(number, epoch)
            quota = len(rivals) // ladder.eta
            want = PAUSE if quota == 0 else GO if number in rivals[:quota] else "culled"
            if want == GO and spent:
                want = PAUSE
            assert trial.ended == want if want == "culled" else trial.verdicts[epoch] == want
            assert word == want or self.stopping

    def rivals(self, number: int, epoch: int) -> list[int]:
        """Whom a trial is compared with at a rung, the best first."""
        ladder, me = self.setting.ladder, self.state.trials[number]
        found = []
        for trial in self.state.trials.values():
            if ladder.per_method and trial.draws["method"] != me.draws["method"]:
                continue
            report = trial.at(epoch)
            if report is not None:
                assert report.top1 is not None
                found.append((-report.top1, math.inf if report.loss is None else report.loss, trial.trial))
            elif trial.ended in FAULTY and epoch == next(r for r in RUNGS if trial.at(r) is None):
                found.append((math.inf, math.inf, trial.trial))
        return [n for *_, n in sorted(found)]

    @precondition(lambda self: any(e + 1 not in RUNGS for e in self.at_work.values()))
    @rule()
    def lose_a_heartbeat(self) -> None:
        number = next(n for n, e in self.at_work.items() if e + 1 not in RUNGS)
        self.at_work[number] += 1
        self.lost[number] = self.at_work[number]

    @precondition(lambda self: self.lost)
    @rule()
    def a_heartbeat_comes_late(self) -> None:
        number, epoch = self.lost.popitem()
        trial = self.state.trials[number]
        if trial.epochs > epoch:
            before = trial.ended, dict(trial.verdicts), self.tables
            self.hand.engine.report(number, Report(epoch, False, None, None, 1.0))
            assert before == (trial.ended, trial.verdicts, self.tables)

    @precondition(lambda self: self.state.order)
    @rule(pick=st.integers(0, 20), top1=SCORES)
    def say_it_again(self, pick: int, top1: float | None) -> None:
        """Another score for an epoch that is known, of a trial that nobody trains on."""
        number, epoch = self.state.order[pick % len(self.state.order)]
        if number in self.at_work:
            return
        size = self.path.stat().st_size
        word = self.hand.engine.report(number, Report(epoch, True, top1, 0.1, 1.0)).word
        assert self.path.stat().st_size == size
        trial = self.state.trials[number]
        if trial.ended is not None:
            assert word == trial.ended

    @precondition(lambda self: self.at_work)
    @rule(pick=st.integers(0, 3))
    def fail(self, pick: int) -> None:
        number = self.worker(pick)
        trial = self.state.trials[number]
        over, before = trial.ended is not None, len(trial.failures)
        retried = self.hand.engine.failed(number, "CUDA error")
        del self.at_work[number]
        assert retried == (not over and before < self.setting.budget.retries)
        assert len(trial.failures) == before + (not over)
        assert (trial.ended is None) == retried

    @precondition(lambda self: self.at_work)
    @rule(pick=st.integers(0, 3))
    def lose_a_worker(self, pick: int) -> None:
        number = self.worker(pick)
        self.hand.engine.dropped(number)
        del self.at_work[number]

    @precondition(lambda self: self.at_work)
    @rule(pick=st.integers(0, 3))
    def collapse(self, pick: int) -> None:
        number = self.worker(pick)
        self.hand.engine.ended(number, COLLAPSED, "spread 0.001")
        del self.at_work[number]
        assert self.state.trials[number].ended is not None

    @precondition(lambda self: self.state.running)
    @rule(pick=st.integers(0, 9))
    def cancel(self, pick: int) -> None:
        number = list(self.state.running)[pick % len(self.state.running)]
        self.hand.engine.cancel(number, "by hand")
        assert self.state.trials[number].ended == CANCELLED

    @rule()
    def interrupt(self) -> None:
        self.stopping = not self.stopping

    @rule(tail=st.sampled_from([b"", b'{"e":"rep', b"\0" * 40, b'{"e":"end","trial":0}\n', b"\r"]))
    def restart(self, tail: bytes) -> None:
        """The driver is killed, its workers with it; its last line may be torn."""
        whole = self.path.read_bytes()
        self.journal.close()
        self.path.write_bytes(whole + tail)
        self.journal = None
        self.open()
        assert self.journal.torn == bool(tail)
        assert self.path.read_bytes().startswith(whole)
        new = read_events(self.path)[0][whole.count(b"\n") :]
        assert [e["e"] for e in new] == ["drive"]  # and nothing was left to decide

    @precondition(lambda self: self.at_work)
    @rule(pick=st.integers(0, 3), top1=SCORES, left=st.integers(0, 400), cut=st.booleans())
    def fill_the_disk(self, pick: int, top1: float | None, left: int, cut: bool) -> None:
        """While a report is taken in; the driver ends and goes on. ``cut``: what was written cannot be undone."""
        number = self.worker(pick)
        epoch = self.at_work[number] + 1
        write, room, whole = os.write, [left], self.path.read_bytes()

        def full(fd: int, data: bytes) -> int:
            part = data[: room[0]]
            room[0] -= len(part)
            if not part:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(fd, part)

        stuck = patch("os.ftruncate", side_effect=OSError(errno.EIO, "stuck")) if cut else patch("os.sync")
        with patch("os.write", full), stuck, contextlib.suppress(WorkFailed):
            self.hand.engine.report(number, Report(epoch, epoch in RUNGS, top1, 0.3, 1.0))
        self.open()
        assert self.path.read_bytes().startswith(whole)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def the_journal_says_all(self) -> None:
        copy = again(self.lines(), self.setting, TWO)
        assert copy.events.lines == []
        cheap = self.variant not in MODELS  # of the others, what is asked for is compared
        assert picture(copy.engine, proposal=cheap) == picture(self.hand.engine, proposal=cheap)

    @invariant()
    def nothing_is_written_twice(self) -> None:
        seen = Counter[tuple[Any, ...]]()
        for line in self.lines():
            keys = {
                "ask": ("trial",),
                "report": ("trial", "epoch"),
                "end": ("trial",),
                "decide": ("trial", "epoch", "verdict"),
                "fail": ("trial", "number"),
                "grow": ("top",),
                "open": (),
            }.get(line["e"])
            if keys is not None:
                seen[line["e"], *(line[k] for k in keys)] += 1
        assert not {key: count for key, count in seen.items() if count > 1}

    @invariant()
    def nobody_leaves_a_rung_who_may_not(self) -> None:
        rules = self.hand.engine.rules
        for (_, _, epoch), table in rules.tables.items():
            assert all(table.known[n].minus < math.inf for n in table.went)
            if self.setting.ladder.rule == "promote":
                lucky = {n for n, e in self.lucky if e == epoch}
                assert len(table.went - lucky) <= len(table) // self.setting.ladder.eta
        repeats = {t.trial for t in self.state.trials.values() if t.of is not None}
        assert not any(repeats & set(table.known) for table in rules.tables.values())

    @invariant()
    def no_more_is_spent_than_there_was(self) -> None:
        budget = self.setting.budget
        if budget.trials is not None:
            assert self.state.count <= budget.trials
        if budget.epochs is not None:
            new = [e for e in self.lines() if e["e"] in ("ask", "report")]
            spent = [i for i, e in enumerate(new) if sum(x["e"] == "report" for x in new[:i]) >= budget.epochs]
            assert all(new[i]["e"] == "report" for i in spent)  # nobody begins when all is spent

    @invariant()
    def the_busy_are_those_at_work(self) -> None:
        assert self.hand.engine.busy == set(self.at_work)

    def teardown(self) -> None:
        """Led to its end, every search ends every trial once, and has a full run where one could be had."""
        if not hasattr(self, "path"):
            return
        try:
            self.finish()
        finally:
            self.journal.close()
            self.sync.stop()
            self.folder.cleanup()

    def finish(self) -> None:
        self.stopping = False
        for number in list(self.at_work):
            self.lose_a_worker(0)
            assert number not in self.at_work
        for _ in range(1000):
            self.ask()
            if not self.at_work:
                break
            (number,) = self.at_work
            self.report(0, 0.1 + (number * 37 % 80) / 100, 1.0, 1)
            while number in self.at_work:
                self.report(0, 0.1 + (number * 37 % 80) / 100, 1.0, 1)
        assert self.hand.engine.finished
        full = any(t.ended == TOP for t in self.state.trials.values())
        over = self.setting.budget.in_flight == "stop" and self.hand.engine.budget.spent() is not None
        assert full or over or not self.state.pending
        self.hand.engine.conclude()
        assert not self.state.pending
        assert len([e for e in self.lines() if e["e"] == "end"]) == len(self.state.trials)
        self.the_journal_says_all()
        self.nothing_is_written_twice()
        assert picture(again(self.lines(), self.setting, TWO).engine) == picture(self.hand.engine)


FEW = settings(
    max_examples=15,
    stateful_step_count=30,
    derandomize=True,
    deadline=None,
    phases=(Phase.generate,),  # a failure is told as it was found: to make it smaller takes minutes
    suppress_health_check=list(HealthCheck),
)
for name in VARIANTS:
    case = type(name, (Search,), {"variant": name}).TestCase
    case.settings = FEW if name not in MODELS else settings(FEW, max_examples=6)
    globals()[f"Test_{name}"] = case
del case  # or it would be collected once more
