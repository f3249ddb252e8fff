"""Where the curves of a simulation come from: journals of searches, or a factory of the user's own."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from methods.errors import InputError, did_you_mean
from tuning.engine.choices import METHOD, Choices
from tuning.engine.curves import Record, ReplayedCurves, SurrogateCurves, record
from tuning.engine.journal import FORMAT, replay
from tuning.engine.ladder import Ladder
from tuning.engine.simulator import Curves, Point
from tuning.engine.state import JournalState
from tuning.engine.surrogate import Surrogate, Trust

SAMPLER, RECORDED, EPOCH = "sampler", "recorded", "epoch"
FEW = 20  # recorded trials of a method below which a surrogate is hardly more than a guess
_HOOK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

Factory = Callable[[Choices, tuple[int, ...]], Curves]


@dataclass(frozen=True)
class Own:
    """Curves of the user's own: ``factory`` makes those of one search. ``cost``: ``epoch``, or theirs."""

    name: str
    choices: Choices
    factory: Factory
    cost: str = RECORDED

    def curves(self, rungs: tuple[int, ...]) -> Curves:
        """Fresh ones for one search. Raises ``InputError`` for whatever the factory raises."""
        try:
            made = self.factory(self.choices, rungs)
        except InputError:
            raise
        except Exception as error:  # a stranger's
            raise InputError(f"--curves {self.name}: {type(error).__name__}: {error}") from error
        if not callable(getattr(made, "point", None)):
            raise InputError(
                f"--curves {self.name} gave {type(made).__name__}, which has no point(trial, draws, epoch)"
            )
        return _EverySecond(made) if self.cost == EPOCH else made

    def fault(self, ladder: Ladder) -> str:
        """Why they cannot be asked at these rungs: never, they say so themselves."""
        return ""

    def notes(self, ladder: Ladder) -> list[str]:
        """What to be wary of at these rungs."""
        return []


class _EverySecond:
    """Curves on which every epoch takes a second."""

    def __init__(self, inner: Curves) -> None:
        self._inner = inner

    def point(self, trial: int, draws: Mapping[str, Any], epoch: int) -> Point:
        return dataclasses.replace(self._inner.point(trial, draws, epoch), seconds=1.0)


@dataclass(frozen=True)
class Journals:
    """Curves out of journals. ``choices``: of the space, without methods that were never tried.

    ``propose``: ``sampler`` (a surrogate answers) or ``recorded``. ``cost``: of an epoch, ``epoch`` (a second) or
    ``recorded`` (the method's mean). ``never``: the methods left out of ``choices``.
    """

    names: tuple[str, ...]
    choices: Choices
    record: Record
    propose: str = SAMPLER
    cost: str = RECORDED
    never: tuple[str, ...] = ()

    @cached_property
    def surrogate(self) -> Surrogate:
        """Fitted once, for all searches."""
        return Surrogate(self.choices, self.record.rungs, self.record.observed())

    @cached_property
    def trust(self) -> list[Trust]:
        """How far the surrogate is right about trials that it is not told of."""
        return self.surrogate.trust()

    def curves(self, rungs: tuple[int, ...]) -> SurrogateCurves | ReplayedCurves:
        """Fresh ones for one search."""
        seconds = dict.fromkeys(self.choices.methods, 1.0) if self.cost == EPOCH else self.record.seconds()
        if self.propose == RECORDED:
            return ReplayedCurves(self.record, self.surrogate, seconds)
        return SurrogateCurves(self.surrogate, seconds)

    def fault(self, ladder: Ladder) -> str:
        """Why nothing is known about these rungs; empty where something is."""
        low, high = self.record.rungs[0], self.record.rungs[-1]
        outside = [str(rung) for rung in ladder.rungs if not low <= rung <= high]
        if not outside:
            return ""
        many = "s" if len(outside) > 1 else ""
        return (
            f"nothing was recorded about rung{many} {', '.join(outside)}: scores are there from {low} to {high} epochs"
        )

    def notes(self, ladder: Ladder) -> list[str]:
        """What to be wary of at these rungs."""
        between = [str(rung) for rung in ladder.rungs if rung not in self.record.rungs]
        found = []
        if between:
            found.append(f"nothing was scored at {', '.join(between)} epochs: read off between the recorded rungs")
        if ladder.top < self.record.rungs[-1]:
            found.append(
                f"a full run of {ladder.top} epochs is read off curves of {self.record.rungs[-1]}, whose schedules are "
                "longer"
            )
        return found

    def told(self) -> list[str]:
        """What was left out of the journals, and what is thin."""
        rec = self.record
        notes = []
        if rec.left:
            notes.append("left out: " + ", ".join(f"{count} {why}" for why, count in rec.left))
        if rec.skipped:
            skipped = ", ".join(map(str, rec.skipped))
            notes.append(f"scores at {skipped} epochs are left out: another journal begins later")
        notes += [f"method '{method}' was never tried: it is not proposed" for method in self.never]
        if self.propose == SAMPLER:
            notes += [
                f"{method}: {rec.count(method)} recorded trials; below {FEW} a surrogate is hardly more than a guess"
                for method in self.choices.methods
                if rec.count(method) < FEW
            ]
        borrowed: dict[str, list[str]] = {}
        for one in self.trust:
            if one.error is None and one.epochs > rec.rungs[0]:
                borrowed.setdefault(one.method, []).append(str(one.epochs))
        notes += [
            f"{method}: too few trials were scored at {' and '.join(epochs)} epochs; it is taken to gain there what "
            "all methods gain"
            for method, epochs in borrowed.items()
        ]
        return notes


def read_curves(texts: Sequence[str], choices: Choices, propose: str, cost: str, runs: Path) -> Journals | Own:
    """What ``--curves`` names, for this space. Raises ``InputError`` with a line for every source that is none."""
    own = [text for text in texts if _HOOK.fullmatch(text) and not Path(text).exists()]
    if own:
        if len(texts) > 1:
            raise InputError(f"--curves {own[0]}: curves of your own stand alone, without journals beside them")
        if propose == RECORDED:
            raise InputError(f"--propose {RECORDED} replays journals; {own[0]} is none")
        return Own(own[0], choices, _factory(own[0]), cost)
    states: dict[str, JournalState] = {}
    faults: list[str] = []
    for text in texts:
        try:
            path = find_journal(text, runs)
            states.setdefault(str(path), replayed(path))
        except InputError as error:
            faults += (f"--curves {text}: {fault}" for fault in error.faults)
        except OSError as error:  # a folder that may not be entered, a name too long
            faults.append(f"--curves {text}: cannot be read ({error.strerror})")
    if faults:
        raise InputError(*faults)
    try:
        found = record(choices, states)
    except InputError as error:
        raise InputError(*(f"--curves {', '.join(texts)}: {fault}" for fault in error.faults)) from None
    never = tuple(method for method in choices.methods if not found.count(method))
    kept = Choices(
        tuple(branch for branch in choices.branches if branch[0] not in never),
        tuple(start for start in choices.starts if dict(start)[METHOD] not in never),
    )
    return Journals(tuple(states), kept, found, propose, cost, never)


def find_journal(text: str, runs: Path) -> Path:
    """The journal of a run folder, of a run by its name, or the file itself. Raises ``InputError`` for neither."""
    from tuning.run_files import JOURNAL_FILE

    for path in (Path(text), runs / text):
        if path.is_file():
            return path
        if (path / JOURNAL_FILE).is_file():
            return path / JOURNAL_FILE
    known = [path.parent.name for path in runs.glob(f"*/{JOURNAL_FILE}")]
    raise InputError(f"there is no journal{did_you_mean(text, known)}")


def replayed(path: Path) -> JournalState:
    """The state of a journal, or ``InputError`` for a file that is none."""
    try:
        state = replay(path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # whole lines, but not of a search
        raise InputError(f"{path}: this is no journal of a search ({error!r})") from error
    if state.header.get("format", FORMAT) != FORMAT:
        raise InputError(f"{path}: journal format {state.header.get('format')}, this version reads {FORMAT}")
    if not state.trials:
        raise InputError(f"{path}: there is no trial in it")
    return state


def _factory(text: str) -> Factory:
    """``module:object``, imported from where Python looks or from the working directory."""
    name, _, attributes = text.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(name)
    except Exception as error:  # a stranger's module may raise anything
        raise InputError(f"--curves {text}: {type(error).__name__}: {error}") from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise InputError(
                f"--curves {text}: there is no '{attribute}' in {name}{did_you_mean(attribute, dir(found))}"
            )
        found = getattr(found, attribute)
    if not callable(found):
        raise InputError(f"--curves {text} is no factory: it must be called with the choices and the rungs")
    return found  # type: ignore[no-any-return]
