"""Where a warm start comes from: run folders, journals, Optuna studies, configs. Read here, fitted in the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from methods.errors import InputError
from tuning.config.schema import HoldOut, SearchSpec
from tuning.config.yaml_source import LARGEST_FILE, Leaf, Listing, Node, Report, Table, parse_node, read_file
from tuning.engine import studies
from tuning.engine.fitting import Entry, Key, settings_of
from tuning.engine.journal import FORMAT, replay
from tuning.engine.state import JournalState, TrialState
from tuning.engine.warm import Source, WarmStart, enter, together
from tuning.space.domains import Fixed
from tuning.space.load import check_text, load_search
from tuning.space.outline import read_outline
from tuning.space.space import METHOD, Space
from tuning.space.start import PUBLISHED

_FIRST_BYTES = 1 << 16  # of a file, to tell what it is


def read_warm(
    spec: SearchSpec, space: Space, *, fingerprint: str | None = None, runs: Path = Path("runs")
) -> WarmStart:
    """Everything that ``warm_start`` names, fitted onto ``space``.

    Paths are tried beside the YAML, in the working directory and under ``runs``. ``fingerprint``: that of the search's
    dataset, which is opened for it where it is not given and a journal is among the sources. Raises ``InputError`` with
    a line for every source that cannot be read.
    """

    @cache
    def data() -> str:
        if fingerprint is not None:
            return fingerprint
        from tuning.datasets import source_of

        return source_of(spec).fingerprint

    reader = _Reader(spec, space, data, runs)
    faults: list[str] = []
    found: list[WarmStart] = []
    for text in dict.fromkeys(spec.warm_start):
        try:
            found.append(enter(space, reader.read(text)))
        except InputError as error:
            faults += (f"warm_start {studies.hidden(text)}: {fault}" for fault in error.faults)
        except OSError as error:  # a folder that may not be entered, a name too long, a disk that is gone
            faults.append(f"warm_start {studies.hidden(text)}: cannot be read ({error.strerror})")
    if faults:
        raise InputError(*faults)
    return together(found)


class _Reader:
    """Reads one source after the other for the same search."""

    def __init__(self, spec: SearchSpec, space: Space, data: Callable[[], str], runs: Path) -> None:
        self.spec, self.space, self.data, self.runs = spec, space, data, runs
        self.roots = ([Path(spec.origin)] if spec.origin else []) + [Path.cwd()]
        self._read: set[Path] = set()

    def read(self, text: str) -> Source:
        if "://" in text:
            return _of_study(studies.hidden(text), studies.read_study(text, self.roots))
        path, study = self._find(text)
        if path in self._read and not study:
            raise InputError(f"named twice, as {path}")
        self._read.add(path)
        kind = _kind(path)
        if kind in (studies.SQLITE, studies.JOURNAL):
            return _of_study(text, studies.read_study_file(path, kind, study))
        if kind == "run":
            return self._of_journal(text, path)
        return Source(text, tuple(self._configs(path)), "configs have no scores here", "configs")

    def _find(self, text: str) -> tuple[Path, str]:
        """The file of a source, a run folder's journal, and what follows ``#``, where that is no part of the name."""
        from tuning.run_files import JOURNAL_FILE

        bare, _, study = text.partition("#")
        for name, rest in dict.fromkeys(((text, ""), (bare, study))):
            given = Path(name).expanduser()
            tried = [given] if given.is_absolute() else [root / given for root in (*self.roots, self.runs)]
            for path in tried:
                if not path.exists():
                    continue
                file = path / JOURNAL_FILE if path.is_dir() else path
                if not file.is_file():
                    raise InputError(f"{path} is no run folder: it holds no {JOURNAL_FILE}")
                return file.resolve(), rest
        raise InputError(f"there is nothing there; tried {', '.join(map(str, tried))}")

    def _of_journal(self, text: str, path: Path) -> Source:
        if path.parent == (self.runs / self.spec.name).resolve():
            raise InputError("this is the run folder of the search itself")
        state = _replayed(path)
        old = _old_search(path, state)
        apart = old if isinstance(old, str) else self._apart(old[0], str(state.header.get("data")))
        before = None if isinstance(old, str) else old[1]
        trials = [trial for trial in state.trials.values() if trial.of is None]  # a repeat only measures noise
        return Source(text, tuple(_of_trial(trial, before) for trial in trials), apart)

    def _apart(self, old: SearchSpec, data: str) -> str:
        """Why scores of that search are no values of this one; empty where they are."""
        here, there = self.spec.data, old.data
        seeded = not (isinstance(here.validate_on, HoldOut) and here.validate_on.held_out_share is None)
        reasons = {
            "another dataset": data != self.data(),
            "another split": here.split != there.split,
            "another validate_on": here.validate_on != there.validate_on,
            "another seed, which draws who validates": seeded and self.spec.seed != old.seed,
            "another probe": self.spec.probe != old.probe,
        }
        return ", ".join(reason for reason, holds in reasons.items() if holds)

    def _configs(self, path: Path) -> list[Entry]:
        """The configs of a YAML: an exported one, or a list of entries as ``start_from`` takes them."""
        if path.stat().st_size > 4 * LARGEST_FILE:
            raise InputError(f"{path}: too large for a YAML of configs, and neither a journal nor a study")
        text = read_file(path)
        report = Report(str(path), text)
        root = parse_node(text, report)
        if isinstance(root, Table) and root.get("search") is not None:
            return _exported(check_text(text, file=str(path), origin=str(path.parent))[1])
        items = root.items if isinstance(root, Listing) else (root,) if root is not None else ()
        entries = [entry for item in items for entry in self._config(item, report)]
        report.raise_if_any()
        return entries

    def _config(self, item: Node, report: Report) -> list[Entry]:
        """One entry of a list; ``published`` stands for one of each method."""
        if isinstance(item, Leaf) and item.value == PUBLISHED:
            return [Entry(method=method, settings={}) for method in self.space.methods]
        if not isinstance(item, Table):
            report.add(item.place, f"a config is the word {PUBLISHED}, or a mapping with its method and its values")
            return []
        if item.get(METHOD) is None and len(self.space.methods) == 1:
            at = item.place
            item = Table(at, ((METHOD, at, Leaf(at, self.space.methods[0])), *item.entries))
        before = len(report.faults)
        outline = read_outline(item, report, default_use=self.space.branches[0].base.streams.use)
        if len(outline.branches) > 1:
            report.add(item.key_place(METHOD), "a config is one method; write one entry for each")
        settings: dict[Key, Any] = {}
        for entry, _, own in outline.branches:
            for part, fields in (*outline.shared.items(), *own.items()):
                for name, written in fields.items():
                    if not isinstance(written.domain, Fixed):
                        report.add(written.place, f"'{name}': a config takes values, not domains")
                    settings[part, name] = written.domain.midpoint()
            if len(report.faults) == before:
                return [Entry(method=entry.name, settings=settings)]
        return []


def _kind(path: Path) -> str:
    """What a file is, by how it begins: ``run`` (our journal), ``sqlite``, ``journal`` (Optuna's), or ``yaml``."""
    with path.open("rb") as file:
        begin = file.readline(_FIRST_BYTES)
    if begin.startswith(b"SQLite format 3\0"):
        return studies.SQLITE
    if begin.startswith(b"{") and b'"op_code"' in begin:
        return studies.JOURNAL
    if path.suffix == ".jsonl" or (begin.startswith(b"{") and b'"crc":"' in begin):
        return "run"
    return "yaml"


def _replayed(path: Path) -> JournalState:
    try:
        state = replay(path)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # whole lines, but not of a search
        raise InputError(f"{path}: this is no journal of a search ({error!r})") from error
    if state.header and state.header.get("format") != FORMAT:
        raise InputError(f"{path}: journal format {state.header.get('format')}, this version reads {FORMAT}")
    return state


def _old_search(path: Path, state: JournalState) -> tuple[SearchSpec, Space] | str:
    """The search that a journal belongs to, from the file beside it, or why that is not known."""
    from tuning.run_files import SPACE_FILE

    file = path.parent / SPACE_FILE
    if not file.is_file():
        return f"no {SPACE_FILE} beside the journal says what its draws stood for"
    try:
        spec, space = load_search(file)
    except InputError as error:
        return f"its {SPACE_FILE} cannot be read by this version ({error.faults[0].splitlines()[0]})"
    if spec.space_hash() != state.header.get("space"):
        return f"its {SPACE_FILE} is not the one that it was searched with"
    return spec, space


def _of_trial(trial: TrialState, space: Space | None) -> Entry:
    """A trial by the config that it stood for; where that is not known, by the names of its draws."""
    scores = {r.epoch: (r.top1, r.loss) for r in trial.reports.values() if r.rung and r.top1 is not None}
    last = trial.last_rung
    quality = None
    if last is not None and last.top1 is not None:  # what came further is better, whatever its score was there
        quality = (float(last.epoch), last.top1, -last.loss if last.loss is not None else -float("inf"))
    entry = Entry(trial.draws, quality=quality, scores=scores, ended=trial.ended)
    if space is None:
        return entry
    try:
        config = space.resolve(trial.draws)
    except (ValueError, TypeError, ArithmeticError):
        return entry
    return dataclasses.replace(entry, method=config.method, settings=settings_of(config), whole=True)


def _of_study(name: str, study: studies.Study) -> Source:
    apart = "an Optuna study does not say how it was scored"
    return Source(name, study.entries, f"{apart}; {study.remark}" if study.remark else apart)


def _exported(space: Space) -> list[Entry]:
    """The configs of a search space with nothing left to draw. Raises ``InputError`` for one that draws."""
    free = [slot.label for branch in space.branches for slot in branch.slots if slot.domain.draws(slot.prefix)]
    if free:
        more = "" if len(free) <= 3 else ", ..."
        raise InputError(
            f"this is a search space that still draws {', '.join(free[:3])}{more}; warm_start takes exported configs, "
            f"lists of configs, run folders, journals and Optuna studies"
        )
    configs = [space.resolve({METHOD: method}) for method in space.methods]
    return [Entry(method=c.method, settings=settings_of(c), whole=True) for c in configs]


__all__ = ["read_warm"]
