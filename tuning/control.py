"""Acting on a running search: the verbs drop commands into the run folder's inbox, the driver takes them in.

The driver holds the journal, so a verb writes a small file by rename, named by time and chance, and leaves it alone. At
its next turn the driver takes it in: into the journal first, then it acts, then the file goes. Killed between any two
of these it repeats harmlessly: a command is known by its file's name, and what is done is what the journal says. What
lies there is strict JSON, read as if a stranger had written it; what makes no sense is moved to ``inbox/refused``.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from methods.errors import InputError, did_you_mean
from tuning.config.schema import Section
from tuning.engine.choices import METHOD, Choices
from tuning.engine.journal import Events
from tuning.engine.state import JournalState
from tuning.files import write_text
from tuning.run_files import JOURNAL_FILE, trial_key
from tuning.space.domains import Draw, same

if TYPE_CHECKING:
    from tuning.engine.engine import Engine

INBOX, REFUSED = "inbox", "refused"
LARGEST = 64 * 1024  # bytes of one command
AT_ONCE = 100  # files that one turn looks at
EVERY_S = 1.0
LONGEST_LINE = 300
_NAME = re.compile(r"\d{20}-[0-9a-f]{8}\.json", re.ASCII)
_TRIAL = re.compile(r"t?(\d{1,9})", re.ASCII)

Numbers = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=5000)]


# --- what is asked --------------------------------------------------------------------------------------------------


class StopAsked(Section):
    """End the search soon, to be continued later; ``now``: at once."""

    verb: Literal["stop"] = "stop"
    now: bool = False


class CancelAsked(Section):
    """End trials, whatever might have become of them."""

    verb: Literal["cancel"] = "cancel"
    trials: Numbers


class PruneAsked(Section):
    """Cull trials: those named, or all that wait behind the best of their rung."""

    verb: Literal["prune"] = "prune"
    trials: Numbers | None = None
    waiting: bool = False

    @model_validator(mode="after")
    def _one(self) -> PruneAsked:
        if (self.trials is None) is not self.waiting:
            raise ValueError("either trials or waiting")
        return self


class EnqueueAsked(Section):
    """Ask for these draws next."""

    verb: Literal["enqueue"] = "enqueue"
    draws: dict[str, bool | int | float | str | None]


Asked = StopAsked | CancelAsked | PruneAsked | EnqueueAsked
_ASKED: TypeAdapter[Asked] = TypeAdapter(Annotated[Asked, Field(discriminator="verb")])


def parse(raw: bytes) -> Asked:
    """What a file asks for. Raises ``InputError`` with one line for everything else."""
    if len(raw) > LARGEST:
        raise InputError(f"more than {LARGEST} bytes")
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"no JSON of ours ({error})") from error
    try:
        return _ASKED.validate_python(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(": ".join([*(str(part) for part in first["loc"]), first["msg"]])) from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def printable(text: str) -> str:
    """Text that a stranger may have chosen, as one line for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)[:LONGEST_LINE]


def drop(folder: Path, asked: Sequence[Asked]) -> list[Path]:
    """Put commands into a run folder's inbox, to be taken in one after the other; the files."""
    texts = [json.dumps(one.model_dump(), allow_nan=False) for one in asked]
    if any(len(text) > LARGEST for text in texts):
        raise InputError(f"a command may have {LARGEST} bytes, this one has more; ask for less at once")
    inbox = folder / INBOX
    inbox.mkdir(exist_ok=True)
    now = time.time_ns()
    paths = [inbox / f"{now + k:020d}-{secrets.token_hex(4)}.json" for k in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    return paths


def _read(path: Path) -> bytes:
    """The bytes of a plain file, one more than allowed at most; what is no plain file is never waited for."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InputError("no plain file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(LARGEST + 1)
    finally:
        os.close(fd)


# --- the driver's side ----------------------------------------------------------------------------------------------


class Stopped(Protocol):
    """The wish to stop, as :class:`tuning.plan.Stop` keeps it."""

    asked: bool


def forget_stops(folder: Path) -> None:
    """Drop every ``stop`` in the inbox: whoever has just taken the journal is not who was to stop."""
    inbox = folder / INBOX
    for name in _names(inbox):
        with suppress(InputError, OSError):
            if isinstance(parse(_read(inbox / name)), StopAsked):
                (inbox / name).unlink()


def _names(inbox: Path) -> list[str]:
    """What lies in an inbox, the oldest first, but for what is being written."""
    try:
        return sorted(p.name for p in inbox.iterdir() if not p.name.startswith(".") and p.name != REFUSED)
    except OSError:  # most often there is none; a search does not die of a share that is away for a moment
        return []


class Inbox:
    """The commands of a run folder, carried out by the driver that holds its journal.

    ``engine``: the search's, or only its events where another engine decides, which knows ``stop`` alone. ``check``
    raises ``InputError`` for draws that no configuration can be made of.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine | Events,
        stop: Stopped,
        say: Callable[[str], None],
        *,
        check: Callable[[Mapping[str, Any]], object] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.stop, self.say, self.check = folder / INBOX, stop, say, check
        self.engine: Engine | None = None if isinstance(engine, Events) else engine
        self.events: Events = engine if isinstance(engine, Events) else engine.events
        self._clock, self._next = clock, -math.inf
        self._left: set[str] = set()  # cannot be moved or deleted, or wait for another engine: told once
        for command in self.events.state.commands.values():  # a driver that died had written them down, no more
            self._end_trials(command)

    def poll(self) -> None:
        """Carry out what was asked since the last call; looks at the disk once a second at most.

        Raises ``KeyboardInterrupt`` for ``stop --now``, as the second Ctrl-C does.
        """
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY_S
        for name in [name for name in _names(self.path) if name not in self._left][:AT_ONCE]:
            self._take(name)

    def _take(self, name: str) -> None:
        key = name.removesuffix(".json")
        if key in self.events.state.commands:
            self._remove(name)
            return
        try:
            verb, what, line = self._understood(name)
        except FileNotFoundError:  # somebody changed their mind
            return
        except (ValueError, TypeError, ArithmeticError, OSError) as error:
            self._refuse(name, error)
            return
        if self.engine is None and verb != "stop":
            self._left.add(name)
            self.say(f"inbox: `{verb}` waits in {name}: this engine knows `stop` alone")
            return
        self.events.command(key, verb, **what)
        self._act(self.events.state.commands[key])
        self.say(line)
        self._remove(name)
        if what.get("now"):
            raise KeyboardInterrupt

    def _understood(self, name: str) -> tuple[str, dict[str, Any], str]:
        """A file's verb, what the journal keeps of it, so that doing it twice is doing it once, and a line for people.

        Raises ``InputError`` for what makes no sense here.
        """
        if not _NAME.fullmatch(name):
            raise InputError("no name of ours")
        asked = parse(_read(self.path / name))
        if isinstance(asked, StopAsked):
            how = "everything ends now" if asked.now else "running trials end at their next epoch"
            return asked.verb, {"now": asked.now}, f"stop was asked for: {how}; the same command goes on"
        if self.engine is None:
            return asked.verb, {}, ""
        if isinstance(asked, EnqueueAsked):
            draws = checked(asked.draws, self.engine.choices)
            self.check(draws)
            return asked.verb, {"draws": draws}, f"enqueued: a configuration of {draws[METHOD]}, to be asked next"
        if asked.trials is not None:
            return asked.verb, *self._named(asked.verb, list(dict.fromkeys(asked.trials)))
        numbers = self.engine.behind()
        return asked.verb, {"trials": numbers}, f"prune --waiting was asked for: {_listed(numbers) or 'nobody to cull'}"

    def _named(self, verb: str, numbers: list[int]) -> tuple[dict[str, Any], str]:
        trials = self.events.state.trials
        unknown = [number for number in numbers if number not in trials]
        if unknown:
            raise InputError(f"there is no trial {_listed(unknown)}")
        over = [f"{trial_key(n)} had ended already ({trials[n].ended})" for n in numbers if trials[n].ended is not None]
        return {"trials": numbers}, "; ".join([f"{verb} was asked for: {_listed(numbers)}", *over])

    def _act(self, command: Mapping[str, Any]) -> None:
        if command["verb"] == "stop":
            self.stop.asked = True
        self._end_trials(command)  # what is enqueued the sampler finds in the journal

    def _end_trials(self, command: Mapping[str, Any]) -> None:
        """Idempotent: the end of a trial is written down once."""
        if self.engine is None or command["verb"] not in ("cancel", "prune"):
            return
        for number in command["trials"]:
            if command["verb"] == "cancel":
                self.engine.cancel(number, "cancelled by hand")
            else:
                self.engine.prune(number, "pruned by hand")

    def _refuse(self, name: str, error: Exception) -> None:
        why = (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)
        self.say(printable(f"inbox: {name[:80]} refused: {why}"))
        try:
            (self.path / REFUSED).mkdir(exist_ok=True)
            os.replace(self.path / name, self.path / REFUSED / name)
        except OSError:
            self._left.add(name)

    def _remove(self, name: str) -> None:
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError:
            self._left.add(name)


def checked(draws: Mapping[str, Any], choices: Choices) -> dict[str, Any]:
    """Whole draws of one method, each as a sampler would give it. Raises ``InputError`` for anything else."""
    method = draws.get(METHOD)
    if method not in choices.methods:
        raise InputError(f"method {method!r} is not in this space")
    needed = {draw.name: draw for draw in choices.draws(str(method))}
    wrong = (draws.keys() ^ needed.keys()) - {METHOD}
    if wrong:
        raise InputError(f"draw '{min(wrong)}' is missing or none of method '{method}'")
    return {METHOD: method, **{name: _as_drawn(draw, draws[name]) for name, draw in needed.items()}}


def _as_drawn(draw: Draw, value: Any) -> Any:
    try:
        draw.check(value)
    except OverflowError as error:
        raise InputError(f"draw '{draw.name}' is too large") from error
    if draw.kind == "categorical":
        return next(choice for choice in draw.choices if same(choice, value))
    inside = min(max(value, draw.low), draw.high)  # the check leaves room for rounding
    return int(inside) if draw.kind == "int" else float(inside)


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(trial_key(number) for number in numbers[:8])
    return f"{shown} and {len(numbers) - 8} more" if len(numbers) > 8 else shown


# --- the verbs' side ------------------------------------------------------------------------------------------------


def find_run(name: str, runs: Path) -> Path:
    """A run's folder, by folder or by name under ``runs``. Raises ``InputError`` with the names that are there."""
    for path in (runs / name, Path(name)):
        if (path / JOURNAL_FILE).is_file():
            return path
    known = [p.parent.name for p in runs.glob(f"*/{JOURNAL_FILE}")]
    raise InputError(f"no run '{name}' under {runs}{did_you_mean(name, known)}")


def is_running(folder: Path) -> bool:
    """Whether a driver holds the run's journal, on whichever machine sees this folder."""
    with (folder / JOURNAL_FILE).open("rb") as journal:
        try:
            fcntl.flock(journal, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two verbs do not take each other for a driver
        except (BlockingIOError, PermissionError):
            return True
        except OSError as error:
            raise InputError(f"{folder}: this file system does not say who holds a file ({error.strerror})") from error
    return False


def ask_stop(folder: Path, now: bool) -> str:
    """Have a running search stop; what to tell the user."""
    if not is_running(folder):
        return f"{folder.name}: no search is running"
    drop(folder, [StopAsked(now=now)])
    how = "everything ends at once" if now else "running trials end at their next epoch"
    return f"{folder.name}: asked to stop; {how}, and `skeltune search` goes on later"


def ask_cancel(folder: Path, words: Sequence[str], state: JournalState) -> str:
    """Have trials end that nobody wants any more; what to tell the user. Raises ``InputError`` with all wrong words."""
    _only_ours(folder, state)
    numbers = _trials(folder, words, state)
    drop(folder, [CancelAsked(trials=numbers)])
    return _told(folder, f"cancel {_listed(numbers)}", "whoever trains ends at the next epoch")


def ask_prune(folder: Path, words: Sequence[str], waiting: bool, state: JournalState) -> str:
    """Have trials culled; what to tell the user. Raises ``InputError`` unless it is said which, and for wrong words."""
    if bool(words) is waiting:
        raise InputError(
            "prune: say which: `skeltune prune RUN TRIAL...` culls those named, `--waiting` all that wait at a rung "
            "and are not among the best 1/eta there"
        )
    _only_ours(folder, state)
    if waiting and not any(trial.paused for trial in state.pending):
        raise InputError(f"{folder.name}: no trial waits at a rung")
    numbers = None if waiting else _trials(folder, words, state)
    drop(folder, [PruneAsked(trials=numbers, waiting=waiting)])
    whom = "all that wait behind the best of their rung" if numbers is None else _listed(numbers)
    return _told(folder, f"cull {whom}", "whoever trains ends at the next epoch")


def ask_enqueue(folder: Path, draws: Sequence[Mapping[str, Any]], trials: int | None, state: JournalState) -> list[str]:
    """Have configurations asked for next; what to tell the user. ``trials``: the budget's, where it counts them."""
    _only_ours(folder, state)
    drop(folder, [EnqueueAsked(draws=dict(one)) for one in draws])
    many = f"{len(draws)} configuration{'s' if len(draws) > 1 else ''}"
    lines = [_told(folder, f"try {many} next", "those enqueued come before the sampler's")]
    if trials is not None:
        room = max(0, trials - state.count)
        line = f"they count to budget.trials, of which {state.count} of {trials} were asked for"
        lines.append(
            line if room >= len(draws) else f"{line}: there is room for {room}; the others wait until it rises"
        )
    return lines


def _told(folder: Path, what: str, then: str) -> str:
    if is_running(folder):
        return f"{folder.name}: asked to {what}; {then}"
    return f"{folder.name}: no search is running; the wish to {what} waits in {folder / INBOX} for the next start"


def _only_ours(folder: Path, state: JournalState) -> None:
    engine = state.header.get("engine")
    if engine in ("stock", "random-asha"):
        raise InputError(f"{folder.name}: this run is one of --engine {engine}, which knows `skeltune stop` alone")


def _trials(folder: Path, words: Sequence[str], state: JournalState) -> list[int]:
    """The numbers of trials that have not ended, as people write them: t0007 or 7."""
    found: dict[int, None] = {}
    faults = []
    for word in words:
        match = _TRIAL.fullmatch(word)
        number = int(match[1]) if match else -1
        trial = state.trials.get(number)
        if match is None:
            faults.append(f"'{printable(word)}' names no trial; write t0007 or 7")
        elif trial is None:
            faults.append(f"{folder.name} has no trial {trial_key(number)}; {len(state.trials)} were asked for")
        elif trial.ended is not None:
            faults.append(f"{trial_key(number)} has ended already ({trial.ended})")
        else:
            found[number] = None
    if faults:
        raise InputError(*faults)
    return list(found)
