"""The one way from any source to a dataset: chunks, processes, kills, skips, strictness, clean splits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import STICK, random_clips, write
from made_up_format import items, read

import methods.data.conversion.run as engine
from methods.data import Progress, convert, open_dataset
from methods.data.conversion.chunks import NOBODY, READER_FAILED, jobs_of, make_chunk, read_facts
from methods.data.reading.sources import Item, ReadOptions, Skipped, Source, spans
from methods.errors import InputError, WorkFailed

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def planned(monkeypatch):
    """Let `convert` read the made-up source that is set."""

    class Reader:
        OPTIONS = frozenset({"names"})

        def __init__(self, source: Source) -> None:
            self.source = source

        def plan(self, *_):
            return self.source

    def put(items: list[Item], **change) -> None:
        given = {"layout": STICK, "class_names": ("a", "b"), "persons": 1, "items": items, "read": read, "chunk": 3}
        source = Source(**{**given, **change})
        monkeypatch.setattr(engine, "recognise", lambda *_: ("made", "a made-up one"))
        monkeypatch.setattr(engine, "reader", lambda _: Reader(source))

    return put


def test_what_is_wrong_costs_itself_alone_and_is_listed(planned, tmp_path):
    words = ("damaged", "bug", "gone", "empty", "nobody", "nan", "shape", "label", "twice", "twice")
    planned(items(14, **{f"k{k + 1}": word for k, word in enumerate(words)}))
    done = convert(tmp_path, tmp_path / "out")
    assert [str(name) for name in done.dataset.names] == ["i0", "same", "i11", "i12", "i13"]
    reasons = {skip.name: skip.reason for skip in done.skipped}
    assert reasons == {
        "i1damaged": "damaged",
        "i2bug": READER_FAILED,
        "i3gone": "cannot be read",
        "i4empty": "no frames",
        "i5nobody": NOBODY,
        "i6nan": "NaN or infinite coordinates",
        "i7shape": "another shape than the rest",
        "i8label": "label outside the table",
        "same": "second clip of one name",
    }
    listed = (done.dataset.path / "skipped.tsv").read_text().splitlines()
    assert len(listed) == 10 and "i1damaged\tdamaged\t/nowhere:3: a bad line" in listed
    assert done.dataset.source["left_out"]["damaged"] == 1
    told = "\n".join(done.lines())
    assert "left out   9" in told and "1 x damaged, e.g. i1damaged: /nowhere:3: a bad line" in told
    done.dataset.verify()
    for index, number in enumerate((0, 9, 11, 12, 13)):
        assert done.dataset.clip(index).shape == (2 + number % 3, 1, 5, 3)
        assert (done.dataset.clip(index) == 1 + number).all()
    assert done.dataset.splits["own"].tolist() == [1, 2, 2, 1, 2]


def test_strict_makes_every_skip_an_error_and_leaves_nothing(planned, tmp_path):
    planned(items(6, k1="nan", k4="label"), skipped=(Skipped("listed", "on the list", asked=True),))
    with pytest.raises(InputError) as caught:
        convert(tmp_path, tmp_path / "out", strict=True)
    assert len(caught.value.faults) == 2 and "i1nan" in caught.value.faults[0]
    assert not list(tmp_path.iterdir())
    assert len(convert(tmp_path, tmp_path / "out").dataset) == 4


def test_a_source_without_one_usable_clip(planned, tmp_path):
    planned(items(2, k0="nan", k1="nobody"))
    with pytest.raises(InputError, match=r"not one clip can be used \(1 x NaN or infinite coordinates, 1 x nobody"):
        convert(tmp_path, tmp_path / "out")
    planned([])
    with pytest.raises(InputError, match="it holds no clip"):
        convert(tmp_path, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_options_that_a_reader_has_no_use_for(planned, tmp_path):
    planned(items(2))
    with pytest.raises(InputError, match="format made has no use for the option 'tracking'"):
        convert(tmp_path, tmp_path / "out", options=ReadOptions(tracking="by_id", names=tmp_path))


def test_the_number_of_processes_changes_nothing(tmp_path):
    whole = write(tmp_path / "in", random_clips(600), [k % 2 for k in range(600)], [k % 5 for k in range(600)])
    one = convert(tmp_path / "in", tmp_path / "one", "skeltune")
    two = convert(tmp_path / "in", tmp_path / "two", "skeltune", workers=2)
    assert one.dataset.fingerprint == two.dataset.fingerprint == whole.fingerprint


def test_progress_counts_up_and_estimates(planned, tmp_path):
    planned(items(10, k2="nan"))
    told: list[Progress] = []
    convert(tmp_path, tmp_path / "out", progress=told.append)
    assert [step.done for step in told] == [3, 6, 9, 10]
    assert (told[-1].clips, told[-1].skipped, told[-1].remaining) == (9, 1, 0.0)
    assert told[0].remaining is not None and told[0].remaining > 0


def test_a_reading_process_that_is_killed_is_told_and_nothing_is_lost(planned, tmp_path):
    planned(items(12, k10="killed"))
    with pytest.raises(WorkFailed, match="the same command goes on"):
        convert(tmp_path, tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()
    kept = sorted((tmp_path / ".out.converting").glob("chunk-*.npz"))
    assert all(read_facts(path) is not None for path in kept)
    planned(items(12))
    told: list[Progress] = []
    done = convert(tmp_path, tmp_path / "out", workers=2, progress=told.append)
    assert len(done.dataset) == 12
    assert [step.remaining for step in told[: len(kept)]] == [None] * len(kept)  # found done, not done again
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_chunks_of_changed_items_are_made_again(planned, tmp_path):
    folder = tmp_path / ".out.converting"
    planned(items(6))
    source = Source(STICK, ("a", "b"), 1, items(6), read, chunk=3)
    folder.mkdir()
    jobs = jobs_of(source, "made ReadOptions()", folder)
    changed = [Item(item.key, item.path, (99,), item.span) for item in items(6)]
    others = jobs_of(Source(STICK, ("a", "b"), 1, changed, read, chunk=3), "made ReadOptions()", folder)
    assert not {job.path for job in jobs} & {job.path for job in others}
    make_chunk(others[0])
    Path(jobs[1].path).write_bytes(b"cut short")
    assert read_facts(Path(jobs[1].path)) is None
    assert len(convert(tmp_path, tmp_path / "out").dataset) == 6


def test_two_conversions_to_one_target_exclude_each_other(planned, tmp_path):
    planned(items(3))
    with engine._alone(tmp_path / ".out.converting"), pytest.raises(InputError, match="another conversion"):
        convert(tmp_path, tmp_path / "out")


def test_a_target_that_exists(planned, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    planned(items(3))
    with pytest.raises(InputError, match="exists already"):
        convert(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "precious"


def test_a_full_disk_keeps_what_is_done(planned, tmp_path, monkeypatch):
    planned(items(9))
    real, made = np.savez, []

    def full(file, **arrays):
        if len(made) == 2:
            raise OSError(28, "No space left on device")
        made.append(1)
        real(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(WorkFailed, match="No space left on device; what is done is kept"):
        convert(tmp_path, tmp_path / "out")
    assert len(list((tmp_path / ".out.converting").glob("chunk-*"))) == 2  # and no half-written one
    monkeypatch.setattr(np, "savez", real)
    told: list[Progress] = []
    assert len(convert(tmp_path, tmp_path / "out", progress=told.append).dataset) == 9
    assert [step.remaining is None for step in told] == [True, True, False]


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
sys.path[:0] = [{tests!r}]
import made_up_format as t
from dataset_helpers import STICK
import methods.data.conversion.run as engine
from methods.data.reading.sources import Source

class Reader:
    OPTIONS = frozenset()
    def plan(self, *_):
        return Source(STICK, ("a", "b"), 1, t.items(40), partial(t.read, slow=0.02), chunk=2)

engine.recognise = lambda *_: ("made", "")
engine.reader = lambda _: Reader()
if __name__ == "__main__":
    engine.convert({source!r}, {out!r}, workers=2, progress=lambda p: print(p.done, p.remaining, flush=True))
"""


@pytest.mark.parametrize("when", [2, 14, 40])
def test_killed_at_any_instant_the_same_command_goes_on(tmp_path, when):
    """SIGKILL of the parent after ``when`` items were told; the readers end with it and the next run finishes."""
    out, script = tmp_path / "out", tmp_path / "run.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), source=str(tmp_path), out=str(out)))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=env)
    done = 0
    assert first.stdout is not None
    for line in first.stdout:
        done = int(line.split()[0])
        if done >= when:
            first.send_signal(signal.SIGKILL)
            break
    first.wait()
    first.stdout.read()  # ends only when the last child that holds the pipe has ended
    if not out.exists():  # it may have finished between the last line and the signal
        again = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, check=False)
        assert again.returncode == 0, again.stderr
        assert again.stdout.splitlines()[0].split()[1] == "None"  # the first chunk was found done
    names = [str(name) for name in open_dataset(out).names]
    assert names == [f"i{k}" for k in range(40)]
    open_dataset(out).verify()


def test_clean_splits_are_stored_beside_the_official_ones(tmp_path):
    clips = random_clips(8)
    clips[5] = clips[0].copy()
    write(tmp_path / "in", clips, [0, 1] * 4, [0] * 8, {"xview": [1, 1, 1, 1, 2, 2, 2, 2]})
    done = convert(tmp_path / "in", tmp_path / "out", "skeltune", drop_duplicates=True)
    assert done.dataset.splits["xview"].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert done.dataset.splits["xview_clean"].tolist() == [1, 1, 1, 1, 2, 0, 2, 2]
    assert any("xview" in line and "4" in line and "3" in line for line in done.remarks)
    done.dataset.verify()


def test_arrays_are_cut_into_spans(tmp_path):
    (tmp_path / "a").write_bytes(b"xyz")
    found = spans(600, tmp_path / "a")
    assert [item.span for item in found] == [(0, 256), (256, 512), (512, 600)]
    assert found[0].stamp[0] == 3
    assert json.loads(json.dumps(found[0].key)) == "clips 0-255"
