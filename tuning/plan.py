"""A search before it starts: everything read and checked that can be, its folder, and the wish to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.data import Split
from methods.errors import InputError
from methods.training.probe import ProbeConfig, check_subset
from tuning.config.schema import SearchSpec
from tuning.control import forget_stops
from tuning.datasets import DataSource, source_of
from tuning.engine.journal import Journal
from tuning.engine.ladder import Ladder, make_ladder
from tuning.files import write_text
from tuning.run_files import JOURNAL_FILE, SPACE_FILE
from tuning.space import Space, load_search
from tuning.space.explain import warnings
from tuning.storage.patience import patiently


@dataclass(frozen=True)
class Plan:
    """A checked search, before anything has been started or written."""

    spec: SearchSpec
    space: Space
    text: str
    source: DataSource
    split: Split
    ladder: Ladder
    folder: Path
    notes: tuple[str, ...]  # what the split did, then everything to be wary of

    @property
    def probe(self) -> ProbeConfig:
        return probe_config(self.spec)


def probe_config(spec: SearchSpec) -> ProbeConfig:
    """The probe of a search as ``methods`` takes it."""
    return ProbeConfig(**spec.probe.model_dump())


def plan_search(space_file: Path, runs: Path, data_from: str = "") -> Plan:
    """Read and check everything that can be checked without starting: space, data, split, sizes.

    ``data_from``: from where the nodes of a cluster copy the dataset.
    Raises ``InputError`` (``ConfigError`` with places for what stands in the file).
    """
    spec, space = load_search(space_file)
    source = source_of(spec, data_from)
    split = source.split()
    check_subset(spec.probe.subset, source.dataset().num_classes)
    notes = (split.note, *space.start_notes, *warnings(spec, space, len(split.train)))
    _build_arrays(space, source)
    text = space_file.read_text(encoding="utf-8")
    return Plan(spec, space, text, source, split, make_ladder(spec.schedule), runs / spec.name, notes)


def _build_arrays(space: Space, source: DataSource) -> None:
    """Build the array of every T that the space can draw at its ends: better a fault now than in the fifth trial."""
    for branch in space.branches:
        drawn = [slot.domain.extremes() for slot in branch.slots if (slot.part, slot.field) == ("", "frames")]
        for frames in drawn[0] if drawn else (branch.base.frames,):
            source.clips(frames, branch.base.preprocess)


def open_run(plan: Plan, engine: str, say: Callable[[str], None] = print) -> Journal:
    """Make or reopen the run folder. Raises ``InputError`` when it is another search's or cannot be written."""
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(
            plan.folder / JOURNAL_FILE,
            {
                "space": plan.spec.space_hash(),
                "data": plan.source.fingerprint,
                "name": plan.spec.name,
                "engine": engine,
            },
            lambda call: patiently(call, what=f"{plan.folder / JOURNAL_FILE}", say=say, root=plan.folder),
        )
    except OSError as error:
        raise InputError(f"{plan.folder}: the run folder cannot be written ({error.strerror})") from error
    write_text(plan.folder / SPACE_FILE, plan.text)
    forget_stops(plan.folder)
    return journal


class Stop:
    """Set by the first Ctrl-C: no new trial begins, running ones end at their next report and stay resumable."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGINT)

        def first(*_: Any) -> None:
            self.asked = True
            print("\nstopping: running trials end at their next epoch; the same command goes on", file=sys.stderr)
            signal.signal(signal.SIGINT, signal.default_int_handler)

        signal.signal(signal.SIGINT, first)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
