"""The figure of a search: which trials lived how long, and how good they were when they were last probed.

With two objectives also what accuracy costs: full runs and the front of those that no other dominates.
"""

from __future__ import annotations

import io
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from methods.errors import InputError
from tuning.engine.objectives import LONG, ONE, WORDS, Objectives, cost_text
from tuning.engine.pareto import front, points_at
from tuning.engine.state import CULLED, TOP, JournalState, TrialState
from tuning.run_files import trial_key
from tuning.summary import RUNNING, method_of, rerun_scores, unscored_note

ENDINGS = (".svg", ".png")
# Okabe and Ito's palette without its yellow, which is too light for a thin line; told apart by the colour-blind too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":")
BROKEN = "broken"
LABELLED = 12  # of a front: more names would cover each other
SPREAD = 0.016  # of the width of the axis: how far trials stand to the sides of a rung, so that ties are seen
MARKS = {  # how a trial's last probed rung is marked: (marker, filled, words)
    CULLED: ("x", True, "culled"),
    TOP: ("o", True, "reached the top rung"),
    BROKEN: ("v", False, "diverged, collapsed or failed later"),
    RUNNING: ("o", False, "running or to continue"),
}


Look = tuple[str, Any]  # colour and dashes


def plot_search(
    state: JournalState,
    rungs: tuple[int, ...],
    path: Path,
    *,
    name: str,
    winner: int | None = None,
    eta: int | None = None,
    objectives: Objectives = ONE,
) -> None:
    """Draw rung survival: a thin line for each trial from rung to rung (epochs), height its validation top-1.

    ``winner`` is drawn bold. With two ``objectives`` a second panel has the accuracy of full runs over their cost, and
    the front. Trials stand a little to the sides of a rung, so that equal ones are seen. SVG or PNG by
    the ending of ``path``; the same journal gives the same bytes with the same matplotlib. Raises ``InputError`` for
    another ending, for a folder that is not there, and without matplotlib.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path}: a figure ends in {' or '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder")
    try:
        from matplotlib import rc_context, rcdefaults
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("drawing needs matplotlib: pip install skeltune[plots]") from error
    with rc_context():
        rcdefaults()  # whatever style a user has set: the figure is the same everywhere
        figure = _figure(Figure, state, rungs, name, winner, eta, objectives)
        _save(figure, path, ending.removeprefix("."))


def _save(figure: Any, path: Path, form: str) -> None:
    """Write by rename, without date, version or random ids."""
    from matplotlib import rc_context

    silent = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "skeltune"}):
        figure.savefig(buffer, format=form, dpi=150, metadata=silent)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(buffer.getvalue())
    os.replace(temporary, path)


def _figure(
    make: Any,
    state: JournalState,
    rungs: tuple[int, ...],
    name: str,
    winner: int | None,
    eta: int | None,
    objectives: Objectives,
) -> Any:
    figure = make(figsize=(9, 9.6 if objectives.two else 5.4), layout="constrained")
    axes = figure.add_subplot(2 if objectives.two else 1, 1, 1)
    methods = sorted({method_of(t) for t in state.trials.values()})
    looks = {m: (COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]) for i, m in enumerate(methods)}
    drawn = [t for t in state.trials.values() if _points(t, rungs)]
    best = next((t for t in drawn if t.trial == winner), None)
    _axes(axes, rungs)
    for number, trial in enumerate(drawn):
        aside = SPREAD * (2 * number / max(1, len(drawn) - 1) - 1) if trial is not best else 0.0
        _line(axes, trial, rungs, looks[method_of(trial)], aside, bold=trial is best)
    words = f"{len(state.trials)} {'trial' if len(state.trials) == 1 else 'trials'}"
    words += f", rungs at {_epochs(', '.join(map(str, rungs)))}" + (f", eta {eta}" if eta and len(rungs) > 1 else "")
    axes.set_title(f"{name}: rung survival", fontsize=14, fontweight="bold", loc="left", pad=24)
    axes.text(0, 1.025, words, fontsize=10, color="#444444", transform=axes.transAxes)
    if drawn:
        entries = _legend(drawn, looks, best, rungs, rerun_scores(state))
        figure.legend(handles=entries, loc="outside right upper", fontsize=9, frameon=False)
    else:
        axes.set_ylim(0, 100)
        axes.text(0.5, 0.5, "no trial has been scored yet", ha="center", transform=axes.transAxes, fontsize=12)
    if objectives.two:
        _cost_panel(figure.add_subplot(2, 1, 2), state, rungs, looks, winner, objectives)
    note = unscored_note(state)
    notes = ["trials at a rung stand side by side, so that equal ones show"] if drawn else []
    notes += [f"not drawn: {note}"] if note else []
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=9, color="#444444", x=0.02, ha="left")
    return figure


def _axes(axes: Any, rungs: Sequence[int]) -> None:
    """Epochs on a logarithmic axis, for rungs multiply; ticks at the rungs and nowhere else."""
    if len(rungs) > 1:
        axes.set_xscale("log")
        low, high = rungs[0], rungs[-1]
        room = (high / low) ** 0.06
        axes.set_xlim(low / room, high * room)
    else:
        axes.set_xlim(0, 2 * rungs[0])
    axes.set_xticks(list(rungs), labels=[str(r) for r in rungs], fontsize=11)
    axes.minorticks_off()
    axes.tick_params(axis="y", labelsize=11)
    axes.set_xlabel("epochs" + (" (log scale)" if len(rungs) > 1 else ""), fontsize=12)
    _accuracy(axes)


def _accuracy(axes: Any) -> None:
    """The height of both panels, and their grid."""
    axes.set_ylabel("validation top-1 in %", fontsize=12)
    axes.grid(axis="both", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _cost_panel(
    axes: Any,
    state: JournalState,
    rungs: Sequence[int],
    looks: Mapping[str, Look],
    winner: int | None,
    objectives: Objectives,
) -> None:
    """Trials at the highest rung that was scored, in their method's colour; a step line along the front."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rung = max((r for r in rungs if points_at(state.trials.values(), r, objectives)), default=rungs[-1])
    points = points_at(state.trials.values(), rung, objectives)
    best = front(state.trials.values(), rung, objectives)
    on_front = {p.trial for p in best}
    axes.set_title(f"accuracy and {WORDS[objectives.second]}", fontsize=14, fontweight="bold", loc="left", pad=24)
    words = f"{len(points)} {'trial' if len(points) == 1 else 'trials'} at {_epochs(str(rung))}, the line is the front"
    axes.text(0, 1.045, words if points else "", fontsize=10, color="#444444", transform=axes.transAxes)
    axes.set_xlabel(f"{LONG[objectives.second]} (log scale)", fontsize=12)
    _accuracy(axes)
    if not points:
        axes.text(0.5, 0.5, "no cost is known yet", ha="center", transform=axes.transAxes, fontsize=12)
        return
    axes.set_xscale("log")
    for point in points:
        colour = looks[method_of(state.trials[point.trial])][0]
        marker, size = ("*", 15) if point.trial == winner else ("o", 8 if point.trial in on_front else 5)
        face = colour if point.trial in on_front or point.trial == winner else "white"
        axes.plot(point.cost, 100 * point.score, marker, color=colour, markerfacecolor=face, markersize=size, zorder=3)
    line = best[::-1]  # the cheapest first: up to the next one nothing better is to be had
    x, y = [p.cost for p in line], [100 * p.score for p in line]
    axes.plot(x, y, color="#444444", linewidth=1.2, drawstyle="steps-post", zorder=2)
    for point in best[:LABELLED]:
        where = {"xy": (point.cost, 100 * point.score), "xytext": (5, 6), "textcoords": "offset points"}
        axes.annotate(trial_key(point.trial), fontsize=9, color="#444444", **where)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: cost_text(objectives.second, cost)))
    wide = max(p.cost for p in points) >= 10 * min(p.cost for p in points)
    axes.xaxis.set_minor_formatter(NullFormatter() if wide else axes.xaxis.get_major_formatter())
    axes.tick_params(axis="both", which="both", labelsize=10)


def _line(axes: Any, trial: TrialState, rungs: Sequence[int], look: Look, aside: float, bold: bool = False) -> None:
    points = _points(trial, rungs)
    colour, dashes = look
    x = [_aside(axes, epoch, aside) for epoch, _ in points]
    y = [value for _, value in points]
    line, end = (4, 5) if bold else (2, 3)  # the winner above all others
    axes.plot(x, y, color=colour, linestyle=dashes, linewidth=3 if bold else 1, alpha=1 if bold else 0.45, zorder=line)
    axes.plot(x[:-1], y[:-1], ".", color=colour, markersize=8 if bold else 4, alpha=1 if bold else 0.6, zorder=line)
    marker, filled, _ = MARKS[fate(trial)]
    axes.plot(
        x[-1:],
        y[-1:],
        marker,
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=9 if bold else 6,
        alpha=1 if bold else 0.8,
        zorder=end,
    )


def _aside(axes: Any, epoch: int, share: float) -> float:
    """``epoch`` moved by ``share`` of the width of the axis."""
    low, high = axes.get_xlim()
    if axes.get_xscale() == "log":
        return float(epoch * (high / low) ** share)
    return float(epoch + share * (high - low))


def _legend(
    drawn: Sequence[TrialState],
    looks: Mapping[str, Look],
    best: TrialState | None,
    rungs: Sequence[int],
    reruns: Mapping[int, Sequence[float]],
) -> list[Any]:
    """Methods with the number of their drawn trials, then the marks in use, then the winner."""
    from matplotlib.lines import Line2D

    def entry(label: str, **look: Any) -> Any:
        return Line2D([], [], label=label, **look)

    counts = Counter(method_of(t) for t in drawn)
    entries = [
        entry(f"{method} ({counts[method]})", color=colour, linestyle=dashes, linewidth=2)
        for method, (colour, dashes) in looks.items()
        if counts[method]
    ]
    fates = Counter(fate(t) for t in drawn)
    for kind, (marker, filled, words) in MARKS.items():
        if fates[kind]:
            face = "#444444" if filled else "white"
            entries.append(entry(words, color="#444444", linestyle="", marker=marker, markerfacecolor=face))
    if best is not None:
        colour, dashes = looks[method_of(best)]
        words = _winner_words(best, rungs, reruns.get(best.trial, ()))
        entries.append(entry(words, color=colour, linestyle=dashes, linewidth=3, marker="o"))
    return entries


def _winner_words(best: TrialState, rungs: Sequence[int], again: Sequence[float]) -> str:
    """The winner's score in the search; where new seeds decided, theirs too, for its line need not be the highest."""
    epoch, value = _points(best, rungs)[-1]
    words = f"winner {trial_key(best.trial)}\n{value:.1f} % at {_epochs(str(epoch))}"
    if again:
        mean = 100 * statistics.fmean(again)
        words += f"\nchosen by re-runs:\n{mean:.1f} % over {len(again)} new {'seed' if len(again) == 1 else 'seeds'}"
    return words


def _epochs(count: str) -> str:
    return f"{count} {'epoch' if count == '1' else 'epochs'}"


def _points(trial: TrialState, rungs: Sequence[int]) -> list[tuple[int, float]]:
    """(epochs, top-1 in %) at the rungs where the trial was scored."""
    reports = [trial.at(rung) for rung in rungs]
    return [(r.epoch, 100 * r.top1) for r in reports if r is not None and r.top1 is not None]


def fate(trial: TrialState) -> str:
    """One of :data:`MARKS`: how it goes with a trial."""
    if trial.ended is None:
        return RUNNING
    return trial.ended if trial.ended in (CULLED, TOP) else BROKEN
