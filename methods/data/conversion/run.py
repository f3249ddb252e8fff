"""Any source of the field to a dataset folder: one way for all readers.

The reader plans (methods.data.reading.sources); the items are read in chunks by as many processes as wanted; each
chunk is kept in a file; when all are there they are put together in the order of the plan, so the result does not
depend on the number of processes. The work lies in a hidden folder beside the target: killed at any instant, the same
command goes on with the chunks that are there. Memory holds a few chunks, whatever the size of the source.
"""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from methods.data.conversion.chunks import ChunkFacts, Job, jobs_of, make_chunk, read_facts, read_frames
from methods.data.formats import reader, recognise
from methods.data.reading.sources import ReadOptions, Skipped, Source, Splits, table_of
from methods.data.skeletons import TEST, TRAIN, SkeletonDataset, open_dataset
from methods.data.writer import DatasetWriter, move_into_place, replace_splits, target_faults
from methods.errors import InputError, WorkFailed

try:
    import fcntl
except ImportError:  # pragma: no cover  no such locks there: two conversions to one target are then not kept apart
    fcntl = None  # type: ignore[assignment]

SKIPPED_FILE = "skipped.tsv"
_MOST_FAULTS = 20
_AHEAD = 3  # chunks handed out per process before the first comes back


@dataclass(frozen=True)
class Progress:
    """How far a conversion is: items of the plan, clips kept and left out, seconds so far and (estimated) to go."""

    done: int
    items: int
    clips: int
    skipped: int
    seconds: float
    remaining: float | None


@dataclass(frozen=True)
class Conversion:
    """What came of a conversion; ``lines()`` says it in plain text.

    ``why`` says by what the format was recognised (empty where it was given). ``skipped`` is everything that was left
    out, ``mended`` counts what was put right, ``published`` the official (train, test) counts of a split.
    """

    dataset: SkeletonDataset
    format: str
    why: str
    skipped: tuple[Skipped, ...]
    mended: Mapping[str, int]
    remarks: tuple[str, ...]
    published: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The summary: what was read, what was left out and why, and each split beside its official counts."""
        data = self.dataset
        out = [f"format     {self.format}" + (f" ({self.why})" if self.why else "")]
        out.append(
            f"kept       {len(data):,} clips, {len(data.frames):,} frames, {data.num_classes} classes, layout "
            f"{data.layout.name} ({data.layout.num_joints} joints)"
        )
        if self.skipped:
            out.append(f"left out   {len(self.skipped):,}, each listed in {data.path / SKIPPED_FILE}")
            for reason, count in Counter(skip.reason for skip in self.skipped).most_common():
                first = next(skip for skip in self.skipped if skip.reason == reason)
                out.append(f"           {count:,} x {reason}, e.g. {first.name}" + _colon(first.detail))
        else:
            out.append("left out   nothing")
        out += [f"mended     {count:,} x {what}" for what, count in self.mended.items()]
        for name, table in data.splits.items():
            train, test = int((table == TRAIN).sum()), int((table == TEST).sum())
            beside = self.published.get(name)
            text = f"   (official: {beside[0]:,} and {beside[1]:,})" if beside else ""
            out.append(f"split      {name}: {train:,} train, {test:,} test{text}")
        if not data.splits:
            out.append("split      none is stored; a search space can name one, e.g. split: {test_subjects: [2, 4]}")
        return [*out, *(f"note       {remark}" for remark in self.remarks)]


def _colon(detail: str) -> str:
    return f": {detail}" if detail else ""


def convert(
    source: str | Path,
    out: str | Path,
    format: str = "auto",
    options: ReadOptions | None = None,
    *,
    workers: int = 1,
    strict: bool = False,
    drop_duplicates: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Conversion:
    """Convert ``source`` into a new dataset folder ``out``, which appears only when all went well.

    ``format`` is a name of FORMATS, or 'auto' to recognise it. Clips that cannot be used are left out by rule and
    listed (``skipped.tsv`` in the dataset); with ``strict`` they are errors instead. ``drop_duplicates`` stores beside
    each split one named ``<split>_clean`` without the test clips that are copies of training clips. ``workers``
    processes read (1: this one alone). Called again after a kill, it goes on where it was.

    Raises InputError, all faults at once, for an unknown format, a missing or unrecognised source, a source of which
    nothing can be used, and an ``out`` that exists; WorkFailed for a full disk and when a reading process was killed
    (what is done is kept then, and the same call goes on).
    """
    source, out, options = Path(source), Path(out).absolute(), options or ReadOptions()
    faults = target_faults(out)
    if not source.exists():
        faults.append(f"{source}: no such file or folder")
    if faults:
        raise InputError(*faults)
    name, why = recognise(source, format)
    _check_options(name, options)
    work = out.parent / f".{out.name}.converting"
    with _alone(work):
        try:
            plan = reader(name).plan(source, options, work / "scratch")
            dataset, skipped, mended = _convert(plan, f"{name} {options!r}", work, workers, strict, progress)
            _describe(dataset, plan, name, source, skipped, mended)
            remarks = list(plan.remarks)
            if drop_duplicates:
                dataset, more = _with_clean_splits(dataset)
                remarks += more
            move_into_place(dataset.path, out)
        except InputError:
            shutil.rmtree(work, ignore_errors=True)  # nothing to go on with: the source must be mended first
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise WorkFailed(
                f"{work.parent}: {error.strerror}; what is done is kept in {work.name}: make room, and the same "
                "command goes on"
            ) from error
        shutil.rmtree(work, ignore_errors=True)
    return Conversion(open_dataset(out), name, why, skipped, mended, tuple(remarks), plan.published)


def _check_options(name: str, options: ReadOptions) -> None:
    known = reader(name).OPTIONS
    faults = [f"format {name} has no use for the option '{given}'" for given in options.given() if given not in known]
    if faults:
        raise InputError(*faults)


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Make the work folder and keep other conversions to the same target out; ends with the process."""
    try:
        (work / "scratch").mkdir(parents=True, exist_ok=True)
        lock: IO[bytes] = (work / "lock").open("ab")
    except OSError as error:
        raise InputError(f"{work.parent}: cannot write there: {error.strerror}") from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{work}: another conversion to the same target is running") from None
            except OSError:
                pass  # a file system without locks
        yield


def _convert(
    plan: Source,
    identity: str,
    work: Path,
    workers: int,
    strict: bool,
    progress: Callable[[Progress], None] | None,
) -> tuple[SkeletonDataset, tuple[Skipped, ...], dict[str, int]]:
    jobs = jobs_of(plan, identity, work)
    _clear(work, keep={Path(job.path).name for job in jobs})
    found = _make_all(jobs, workers if plan.parallel else 1, len(plan.skipped), progress)
    skipped = [*plan.skipped, *(skip for facts in found for skip in facts.skipped)]
    dataset, twice = _put_together(plan, jobs, found, work / "dataset")
    skipped += twice
    faults = [_colon_line(skip) for skip in skipped if not skip.asked]
    if strict and faults:
        raise InputError(*_shortened(faults))
    if dataset is None:
        reasons = Counter(skip.reason for skip in skipped)
        told = ", ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common()) or "it holds no clip"
        raise InputError(f"not one clip can be used ({told})", *_shortened(faults))
    mended = Counter(clip["mended"] for facts in found for clip in facts.clips if clip["mended"])
    return dataset, tuple(skipped), dict(mended)


def _colon_line(skip: Skipped) -> str:
    return f"{skip.name}: {skip.reason}" + _colon(skip.detail)


def _shortened(faults: Sequence[str]) -> list[str]:
    more = [f"and {len(faults) - _MOST_FAULTS:,} more"] if len(faults) > _MOST_FAULTS else []
    return [*faults[:_MOST_FAULTS], *more]


def _clear(work: Path, keep: set[str]) -> None:
    """Remove what an earlier try left behind and this one has no use for."""
    for path in work.iterdir():
        if path.is_dir() and path.name != "scratch":
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file() and path.name != "lock" and path.name not in keep:
            path.unlink()


class _Meter:
    """Counts what is done and tells it; the estimate rests on what this session did, not on what it found done."""

    def __init__(self, items: int, skipped: int, tell: Callable[[Progress], None] | None) -> None:
        self.items, self.skipped, self.tell = items, skipped, tell
        self.done = self.fresh = self.clips = 0
        self.start = time.monotonic()

    def add(self, job: Job, facts: ChunkFacts, fresh: bool) -> None:
        self.done += len(job.items)
        self.fresh += len(job.items) if fresh else 0
        self.clips += len(facts.clips)
        self.skipped += len(facts.skipped)
        if self.tell is not None:
            seconds = time.monotonic() - self.start
            remaining = seconds / self.fresh * (self.items - self.done) if self.fresh else None
            self.tell(Progress(self.done, self.items, self.clips, self.skipped, seconds, remaining))


def _make_all(
    jobs: Sequence[Job], workers: int, skipped: int, tell: Callable[[Progress], None] | None
) -> list[ChunkFacts]:
    """Make the chunks that are not there yet; returns what all of them say, in order."""
    meter = _Meter(sum(len(job.items) for job in jobs), skipped, tell)
    found: dict[int, ChunkFacts] = {}
    for index, job in enumerate(jobs):
        facts = read_facts(Path(job.path))
        if facts is not None:
            found[index] = facts
            meter.add(job, facts, fresh=False)
    missing = [index for index in range(len(jobs)) if index not in found]
    made = _in_this_process if min(workers, len(missing)) <= 1 else _in_processes
    for index, facts in made(jobs, missing, workers):
        found[index] = facts
        meter.add(jobs[index], facts, fresh=True)
    return [found[index] for index in range(len(jobs))]


def _in_this_process(jobs: Sequence[Job], missing: Sequence[int], _: int) -> Iterator[tuple[int, ChunkFacts]]:
    for index in missing:
        yield index, make_chunk(jobs[index])


def _in_processes(jobs: Sequence[Job], missing: Sequence[int], workers: int) -> Iterator[tuple[int, ChunkFacts]]:
    # Spawned, not forked: the caller may have threads (torch, Ray), and a fork of those can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(missing)), mp_context=context, initializer=_begin_worker)
    waiting = list(reversed(missing))
    running: dict[Future[ChunkFacts], int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < _AHEAD * workers:
                index = waiting.pop()
                running[pool.submit(make_chunk, jobs[index])] = index
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise WorkFailed(
            "a process that was reading has ended (out of memory? a script without `if __name__ == '__main__':`?); "
            "what is done is kept, the same command goes on, with fewer --workers if memory was short"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: an orphan would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            wait_for([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _put_together(
    plan: Source, jobs: Sequence[Job], found: Sequence[ChunkFacts], path: Path
) -> tuple[SkeletonDataset | None, list[Skipped]]:
    """Write the chunks in order as one dataset; the second clip of a name is left out. None where there is no clip."""
    clips = [clip for facts in found for clip in facts.clips]
    if not clips:
        return None, []
    people = max(len(clip["subjects"]) for clip in clips)
    rows: dict[str, list[object]] = {key: [] for key in ("labels", "subjects", "cameras", "setups", "names", "sides")}
    seen: set[str] = set()
    twice = []
    with DatasetWriter(path, plan.layout, plan.class_names, plan.persons, channels=plan.channels) as writer:
        for job, facts in zip(jobs, found, strict=True):
            frames = read_frames(Path(job.path)) if facts.clips else None
            start = 0
            for clip in facts.clips:
                end, name = start + clip["length"], clip["name"]
                if name and name in seen:
                    twice.append(Skipped(name, "second clip of one name", f"among {job.items[0].key} and after"))
                elif frames is not None:
                    subjects = (*clip["subjects"], *[-1] * (people - len(clip["subjects"])))
                    writer.append(
                        frames[start:end],
                        clip["label"],
                        subjects,
                        camera=clip["camera"],
                        setup=clip["setup"],
                        name=name,
                    )
                    seen.add(name)
                    values = (clip["label"], subjects, clip["camera"], clip["setup"], name, clip["sides"])
                    for row, value in zip(rows.values(), values, strict=True):
                        row.append(value)
                start = end
        sides = _sides(rows.pop("sides"))
        return writer.finish({**plan.splits(table_of(rows)), **sides}), twice


def _sides(rows: Sequence[object]) -> Splits:
    """The sides that clips carry, as one table a split; a clip that does not name a split is in none of its sides."""
    dicts = [row for row in rows if isinstance(row, dict)]
    names = sorted({name for row in dicts for name in row})
    found: dict[str, NDArray[np.int8]] = {}
    for name in names:
        found[name] = np.array([row.get(name, 0) for row in dicts], dtype=np.int8)
    return found


def _describe(
    dataset: SkeletonDataset,
    plan: Source,
    name: str,
    source: Path,
    skipped: Sequence[Skipped],
    mended: Mapping[str, int],
) -> None:
    """Record in the dataset where it comes from, by which rules, and what was left out."""
    file = dataset.path / "meta.json"
    meta = json.loads(file.read_text(encoding="utf-8"))
    meta["source"] = {
        "converter": name,
        "file": source.name,
        "steps": [],
        **plan.notes,
        "left_out": dict(Counter(skip.reason for skip in skipped)),
        "mended": dict(mended),
    }
    file.write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    if skipped:
        lines = (
            "\t".join(" ".join(text.split()) for text in (skip.name, skip.reason, skip.detail)) for skip in skipped
        )
        (dataset.path / SKIPPED_FILE).write_text("\n".join(["name\treason\tdetail", *lines]) + "\n", encoding="utf-8")


def _with_clean_splits(dataset: SkeletonDataset) -> tuple[SkeletonDataset, list[str]]:
    """Store beside each split one without leaks, and say how the counts changed."""
    from methods.data.inspection.duplicates import clean_splits

    clean = clean_splits(dataset)
    tables = {**dataset.splits, **{f"{name}_clean": table for name, table in clean.splits.items()}}
    return replace_splits(dataset.path, tables), clean.lines()
