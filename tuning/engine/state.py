"""What a search knows: its trials, their reports, decisions and ends. A pure replay of the journal's events.

Every event but `drive` may come twice and changes nothing the second time: reports are kept by (trial, epoch),
decisions by (trial, epoch, verdict), ends by trial, jobs, facts and commands by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from methods.errors import InputError

CULLED = "culled"
TOP = "top"
FAILED = "failed"
DIVERGED = "diverged"
COLLAPSED = "collapsed"
CANCELLED = "cancelled"
REPEATED = "repeated"  # a repeat of another trial ends after its first rung
FAULTY = (DIVERGED, COLLAPSED, FAILED)  # ends that speak against the configuration

GO, PAUSE = "go", "pause"  # verdicts on a scored report; whoever is culled there ends

REPEAT = "repeat"  # the origin of a trial that repeats another one with a new seed


@dataclass(frozen=True)
class Report:
    """One epoch of one trial. ``top1`` and ``loss`` (the probe's) are there at rungs only; ``seconds`` is its cost.

    ``node``: the address of the machine that trained it, where it is known.
    """

    epoch: int
    rung: bool
    top1: float | None
    loss: float | None
    seconds: float
    logs: Mapping[str, Any] = field(default_factory=dict)
    node: str = ""


@dataclass(frozen=True)
class Failure:
    """A trial's worker failed on ``node`` when ``epochs`` were done; ``counted``: it speaks against the configuration.

    ``kind``: one of :mod:`tuning.engine.mishaps`.
    """

    error: str
    kind: str = "error"
    node: str = ""
    counted: bool = True
    epochs: int = 0


@dataclass
class TrialState:
    """What the journal knows of one trial: its draws, its reports by epoch, and how it ended (None: it has not).

    ``verdicts``: epoch of a rung -> ``pause`` or ``go`` (a paused trial may go on later). ``of``: the trial that this
    one repeats. ``bracket``: the rung of the ladder at which it is first decided on. ``failures``: its workers' so far.
    """

    trial: int
    draws: dict[str, Any]
    origin: str
    reports: dict[int, Report] = field(default_factory=dict)
    ended: str | None = None
    detail: str = ""
    bracket: int = 0
    of: int | None = None
    verdicts: dict[int, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0  # training and probing time, all epochs together
    epochs: int = 0  # done

    def at(self, rung: int) -> Report | None:
        """The scored report at ``rung`` epochs, if there is one."""
        report = self.reports.get(rung)
        return report if report is not None and report.rung and report.top1 is not None else None

    @property
    def last_rung(self) -> Report | None:
        """The scored report of the highest rung reached."""
        scored = [r for r in self.reports.values() if r.rung and r.top1 is not None]
        return max(scored, key=lambda r: r.epoch, default=None)

    @property
    def paused(self) -> bool:
        """Whether it waits at a rung for a decision to go on."""
        return self.ended is None and self.verdicts.get(self.epochs) == PAUSE


@dataclass
class JournalState:
    """The replayed journal.

    ``jobs``: results of the finish, by job name; ``facts``: other single entries by name; ``commands``: what people
    asked of the running search, by its id; ``before``: seconds that earlier drivers ran.
    """

    header: dict[str, Any] = field(default_factory=dict)
    trials: dict[int, TrialState] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    order: list[tuple[int, int]] = field(
        default_factory=list
    )  # (trial, epoch) of scored reports, as they came; no late ones
    top: int | None = None  # the highest rung that a growing ladder has come to, in epochs
    before: float = 0.0
    count: int = 0  # trials asked for; a repeat of another one is no trial of its own
    running: dict[int, None] = field(default_factory=dict)  # trials that have not ended, in order
    seconds: float = 0.0
    epochs: int = 0
    _at: float = 0.0

    @property
    def ended(self) -> list[TrialState]:
        return [t for t in self.trials.values() if t.ended is not None]

    @property
    def pending(self) -> list[TrialState]:
        return [self.trials[number] for number in self.running]

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take one event in. Repeated events change nothing. Raises ``InputError`` for an event that makes no sense."""
        kind = str(event.get("e"))
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise InputError(f"unknown event {kind!r}")
        handler(self, event)
        self._at = max(self._at, float(event.get("at", 0.0)))

    def _trial(self, event: Mapping[str, Any]) -> TrialState:
        trial = self.trials.get(int(event["trial"]))
        if trial is None:
            raise InputError(f"trial {event['trial']} was never asked for")
        return trial

    def _open(self, event: Mapping[str, Any]) -> None:
        self.header = dict(event)

    def _drive(self, event: Mapping[str, Any]) -> None:
        self.before, self._at = self.before + self._at, 0.0

    def _ask(self, event: Mapping[str, Any]) -> None:
        number = int(event["trial"])
        if number in self.trials:
            return
        self.trials[number] = TrialState(
            number,
            dict(event["draws"]),
            str(event["origin"]),
            bracket=int(event.get("bracket", 0)),
            of=event.get("of"),
        )
        self.running[number] = None
        self.count += event.get("of") is None

    def _report(self, event: Mapping[str, Any]) -> None:
        trial = self._trial(event)
        epoch = int(event["epoch"])
        if epoch in trial.reports:
            return
        report = Report(
            epoch,
            bool(event["rung"]),
            event["top1"],
            event["loss"],
            float(event["seconds"]),
            event.get("logs", {}),
            event.get("node", ""),
        )
        trial.reports[epoch] = report
        trial.seconds += report.seconds
        trial.epochs = max(trial.epochs, epoch)
        self.seconds += report.seconds
        self.epochs += 1
        if report.rung and report.top1 is not None and epoch == trial.epochs:  # a late one decides nothing
            self.order.append((trial.trial, epoch))

    def _decide(self, event: Mapping[str, Any]) -> None:
        trial, epoch = self._trial(event), int(event["epoch"])
        if trial.verdicts.get(epoch) != GO:  # nothing is taken back
            trial.verdicts[epoch] = str(event["verdict"])

    def _fail(self, event: Mapping[str, Any]) -> None:
        trial = self._trial(event)
        if int(event["number"]) == len(trial.failures):
            trial.failures.append(
                Failure(
                    str(event["error"]),
                    str(event.get("cause", "error")),
                    str(event.get("node", "")),
                    bool(event.get("counted", True)),
                    trial.epochs,
                )
            )

    def _end(self, event: Mapping[str, Any]) -> None:
        trial = self._trial(event)
        if trial.ended is None:
            trial.ended, trial.detail = str(event["reason"]), str(event.get("detail", ""))
            del self.running[trial.trial]

    def _grow(self, event: Mapping[str, Any]) -> None:
        self.top = max(self.top or 0, int(event["top"]))

    def _job(self, event: Mapping[str, Any]) -> None:
        self.jobs.setdefault(str(event["job"]), dict(event["result"]))

    def _fact(self, event: Mapping[str, Any]) -> None:
        self.facts.setdefault(str(event["name"]), dict(event["value"]))

    def _command(self, event: Mapping[str, Any]) -> None:
        self.commands.setdefault(str(event["id"]), dict(event))


_HANDLERS = {
    "open": JournalState._open,
    "drive": JournalState._drive,
    "ask": JournalState._ask,
    "report": JournalState._report,
    "decide": JournalState._decide,
    "fail": JournalState._fail,
    "end": JournalState._end,
    "grow": JournalState._grow,
    "job": JournalState._job,
    "fact": JournalState._fact,
    "command": JournalState._command,
}


def scored(state: JournalState) -> Iterator[tuple[TrialState, Report]]:
    """Scored reports in the order in which they came."""
    for trial, epoch in state.order:
        yield state.trials[trial], state.trials[trial].reports[epoch]
