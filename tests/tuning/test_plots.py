"""The figure of a search, from hand-written journals."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

import pytest

from methods.errors import InputError
from tuning.engine.journal import Journal
from tuning.engine.objectives import Objectives
from tuning.engine.state import Report
from tuning.plots import plot_search

RUNGS = (1, 3, 9)


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal.jsonl", {"space": "s", "data": "d", "name": "n"}) as opened:
        yield opened


def add(journal, method, scores, ended, epochs=RUNGS):
    """A trial scored at the first rungs; ``ended`` as the journal has it."""
    trial = journal.ask({"method": method, "augment/strength": 0.5}, "sampler")
    for epoch, top1 in zip(epochs, scores, strict=False):
        journal.report(trial, Report(epoch, True, top1, 1.0, 2.0))
    if ended:
        journal.end(trial, ended, f"{ended} here")
    return trial


def fill(journal):
    """Every way in which a trial can go."""
    best = add(journal, "skeletonclr", (0.30, 0.40, 0.52), "top")
    add(journal, "skeletonbyol", (0.33, 0.45, 0.55), "top")
    add(journal, "skeletonbyol", (0.21,), "culled")
    add(journal, "skeletonbyol", (0.29, 0.35), "diverged")
    add(journal, "skeletonclr", (), "diverged")
    add(journal, "skeletonclr", (0.25,), None)
    add(journal, "skeletonclr", (), None)
    for number, top1 in enumerate((0.50, 0.54)):
        journal.job(f"rerun-t{best:04d}-{number}", {"top1": top1, "loss": 1.0, "seed": number})
    return best


def drawn(monkeypatch, state, tmp_path, **options):
    """The figure itself, caught before it is written."""
    caught = []
    monkeypatch.setattr("tuning.plots._save", lambda figure, *_: caught.append(figure))
    plot_search(state, options.pop("rungs", RUNGS), tmp_path / "f.svg", name="demo", **options)
    return caught[0]


def words(figure):
    legend = [t.get_text() for one in figure.legends for t in one.get_texts()]
    axes = figure.axes[0]
    told = [t.get_text() for t in axes.texts] + [axes.get_title(loc="left")]
    return legend, [*told, figure.get_supxlabel()]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_same_journal_same_bytes(journal, tmp_path, ending):
    winner = fill(journal)
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    for path in (first, second):
        plot_search(journal.state, RUNGS, path, name="demo", winner=winner, eta=3)
    assert first.read_bytes() == second.read_bytes()
    assert not list(tmp_path.glob(".*"))
    if ending == "svg":
        assert ET.parse(first).getroot().tag.endswith("svg")
        assert b"<dc:date>" not in first.read_bytes()
    else:
        assert first.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_lines_marks_and_words(journal, tmp_path, monkeypatch):
    winner = fill(journal)
    figure = drawn(monkeypatch, journal.state, tmp_path, winner=winner, eta=3)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "3", "9"]
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert len(lines) == 5  # two trials were never scored
    bold = [line for line in lines if line.get_linewidth() == 3]
    assert len(bold) == 1
    assert list(bold[0].get_xdata()) == pytest.approx(RUNGS)
    assert list(bold[0].get_ydata()) == pytest.approx([30, 40, 52])
    assert {"x", "o", "v"} <= {line.get_marker() for line in axes.lines}
    legend, told = words(figure)
    assert legend[:2] == ["skeletonbyol (3)", "skeletonclr (2)"]
    assert "52.0 % at 9 epochs" in legend[-1]
    assert "52.0 % over 2 new seeds" in legend[-1]
    assert "7 trials, rungs at 1, 3, 9 epochs, eta 3" in told
    assert any("2 trials without a score (1 diverged, 1 running)" in text for text in told)


def test_two_objectives_have_a_panel_with_the_front(journal, tmp_path, monkeypatch):
    rows = [(0.60, 900), (0.50, 300), (0.45, 500), (0.30, 100), (0.70, None)]
    for top1, size in rows:
        trial = journal.ask({"method": "skeletonclr"}, "sampler")
        logs = {} if size is None else {"parameters": size}
        for epoch in RUNGS:
            journal.report(trial, Report(epoch, True, top1 - 0.1 / epoch, 1.0, 2.0, logs))
        journal.end(trial, "top")
    culled = journal.ask({"method": "skeletonclr"}, "sampler")
    journal.report(culled, Report(1, True, 0.9, 1.0, 2.0, {"parameters": 10}))
    size = Objectives(("top1", "parameters"), 9)
    figure = drawn(monkeypatch, journal.state, tmp_path, winner=0, objectives=size)
    axes = figure.axes[1]
    line = next(one for one in axes.lines if one.get_drawstyle() == "steps-post")
    assert list(line.get_xdata()) == [100, 300, 900]
    assert list(line.get_ydata()) == pytest.approx([100 * (s - 0.1 / 9) for s in (0.30, 0.50, 0.60)])
    dots = [one for one in axes.lines if one is not line]
    assert sorted(one.get_xdata()[0] for one in dots) == [100, 300, 500, 900]
    assert [one.get_xdata()[0] for one in dots if one.get_marker() == "*"] == [900]
    assert [t.get_text() for t in axes.texts] == [
        "4 trials at 9 epochs, the line is the front",
        "t0000",
        "t0001",
        "t0003",
    ]
    assert axes.get_xlabel() == "parameters of what is kept (log scale)"
    assert len(drawn(monkeypatch, journal.state, tmp_path, winner=0).axes) == 1


def test_no_cost_is_known_yet(journal, tmp_path, monkeypatch):
    size = Objectives(("top1", "gpu_seconds"), 9)
    figure = drawn(monkeypatch, journal.state, tmp_path, objectives=size)
    assert "no cost is known yet" in [t.get_text() for t in figure.axes[1].texts]
    add(journal, "skeletonclr", (0.3, 0.4), "culled")
    figure = drawn(monkeypatch, journal.state, tmp_path, objectives=size)
    assert "1 trial at 3 epochs, the line is the front" in [t.get_text() for t in figure.axes[1].texts]


def test_equal_trials_stand_apart(journal, tmp_path, monkeypatch):
    for _ in range(3):
        add(journal, "skeletonclr", (0.5,), "culled")
    figure = drawn(monkeypatch, journal.state, tmp_path)
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert len(set(marks)) == 3
    assert max(marks) / min(marks) < 1.1


def test_one_method_no_winner_one_rung(journal, tmp_path, monkeypatch):
    add(journal, "skeletonclr", (0.4,), "top", epochs=(5,))
    add(journal, "skeletonclr", (0.3,), "top", epochs=(5,))
    legend, told = words(drawn(monkeypatch, journal.state, tmp_path, rungs=(5,), eta=3))
    assert legend == ["skeletonclr (2)", "reached the top rung"]
    assert "2 trials, rungs at 5 epochs" in told


def test_a_winner_without_a_score_is_not_drawn(journal, tmp_path, monkeypatch):
    fill(journal)
    legend, _ = words(drawn(monkeypatch, journal.state, tmp_path, winner=4))
    assert not any("winner" in text for text in legend)


def test_empty_run_says_so(journal, tmp_path, monkeypatch):
    _, told = words(drawn(monkeypatch, journal.state, tmp_path))
    assert "no trial has been scored yet" in told
    monkeypatch.undo()
    plot_search(journal.state, RUNGS, tmp_path / "empty.png", name="demo")
    assert (tmp_path / "empty.png").stat().st_size > 1000


def test_the_users_style_changes_nothing(journal, tmp_path):
    import matplotlib as mpl

    fill(journal)
    plot_search(journal.state, RUNGS, tmp_path / "a.svg", name="demo")
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "red", "svg.hashsalt": "other"}):
        plot_search(journal.state, RUNGS, tmp_path / "b.svg", name="demo")
        assert mpl.rcParams["lines.linewidth"] == 9
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(("target", "says"), [("f.pdf", "ends in .svg or .png"), ("no/f.svg", "no such folder")])
def test_wrong_paths(journal, tmp_path, target, says):
    with pytest.raises(InputError, match=says):
        plot_search(journal.state, RUNGS, tmp_path / target, name="demo")


def test_without_matplotlib(journal, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install skeltune\[plots\]"):
        plot_search(journal.state, RUNGS, tmp_path / "f.svg", name="demo")
    assert not (tmp_path / "f.svg").exists()
