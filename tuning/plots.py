"""The figure of a search: which trials lived how long, and how good they were when they were last probed."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from methods.errors import InputError
from tuning.engine.journal import CULLED, TOP, JournalState, TrialState
from tuning.recorder import trial_key

ENDINGS = (".svg", ".png")
# Okabe and Ito's palette without its yellow, which is too light for a thin line; told apart by the colour-blind too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":")
RUNNING, BROKEN = "running", "broken"
MARKS = {  # how a trial's last probed rung is marked: (marker, filled, words)
    CULLED: ("x", True, "culled"),
    TOP: ("o", True, "reached the top rung"),
    BROKEN: ("v", False, "diverged, collapsed or failed later"),
    RUNNING: ("o", False, "running or to continue"),
}


def plot_search(
    state: JournalState,
    rungs: tuple[int, ...],
    path: Path,
    *,
    name: str,
    winner: int | None = None,
    eta: int | None = None,
) -> None:
    """Draw rung survival: a thin line for each trial from rung to rung (epochs), height its validation top-1.

    ``winner`` is drawn bold. SVG or PNG by the ending of ``path``; the same journal gives the same bytes with the same
    matplotlib. Raises ``InputError`` for another ending, for a folder that is not there, and without matplotlib.
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
        figure = _figure(Figure, state, rungs, name, winner, eta)
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
    make: Any, state: JournalState, rungs: tuple[int, ...], name: str, winner: int | None, eta: int | None
) -> Any:
    figure = make(figsize=(9, 5.4), layout="constrained")
    axes = figure.add_subplot()
    methods = sorted({_method(t) for t in state.trials.values()})
    looks = {m: (COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]) for i, m in enumerate(methods)}
    drawn = [t for t in state.trials.values() if _points(t, rungs)]
    for trial in drawn:
        if trial.trial != winner:
            _line(axes, trial, rungs, looks[_method(trial)])
    best = next((t for t in drawn if t.trial == winner), None)
    if best is not None:
        _line(axes, best, rungs, looks[_method(best)], bold=True)
    _axes(axes, rungs)
    words = f"{len(state.trials)} {'trial' if len(state.trials) == 1 else 'trials'}"
    words += f", rungs at {', '.join(map(str, rungs))} epochs" + (f", eta {eta}" if eta and len(rungs) > 1 else "")
    figure.suptitle(f"{name}: rung survival", fontsize=14, fontweight="bold")
    axes.set_title(words, fontsize=10, color="#444444")
    if drawn:
        entries = _legend(drawn, looks, best, rungs)
        figure.legend(handles=entries, loc="outside right upper", fontsize=9, frameon=False)
    else:
        axes.set_ylim(0, 100)
        axes.text(0.5, 0.5, "no trial has been scored yet", ha="center", transform=axes.transAxes, fontsize=12)
    note = unscored_note(state)
    if note:
        figure.supxlabel(f"not drawn: {note}", fontsize=9, color="#444444", x=0.02, ha="left")
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
    axes.set_ylabel("validation top-1 in %", fontsize=12)
    axes.grid(axis="both", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Any, trial: TrialState, rungs: Sequence[int], look: tuple[str, str], bold: bool = False) -> None:
    points = _points(trial, rungs)
    colour, dashes = look
    x, y = [p[0] for p in points], [p[1] for p in points]
    alpha, width = (1.0, 3.0) if bold else (0.45, 1.0)
    axes.plot(x, y, color=colour, linestyle=dashes, linewidth=width, alpha=alpha, zorder=4 if bold else 2)
    marker, filled, _ = MARKS[fate(trial)]
    axes.plot(
        x[-1:],
        y[-1:],
        linestyle="",
        marker=marker,
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=9 if bold else 5,
        alpha=1.0 if bold else 0.75,
        zorder=5 if bold else 3,
    )


def _legend(
    drawn: Sequence[TrialState], looks: Mapping[str, tuple[str, str]], best: TrialState | None, rungs: Sequence[int]
) -> list[Any]:
    """Methods with the number of their drawn trials, then the marks in use, then the winner."""
    from matplotlib.lines import Line2D

    counts = Counter(_method(t) for t in drawn)
    entries = [
        Line2D([], [], color=colour, linestyle=dashes, linewidth=2, label=f"{method} ({counts[method]})")
        for method, (colour, dashes) in looks.items()
        if counts[method]
    ]
    fates = Counter(fate(t) for t in drawn)
    for kind, (marker, filled, words) in MARKS.items():
        if fates[kind]:
            face = "#444444" if filled else "white"
            entries.append(
                Line2D([], [], color="#444444", linestyle="", marker=marker, markerfacecolor=face, label=words)
            )
    if best is not None:
        colour, dashes = looks[_method(best)]
        epoch, value = _points(best, rungs)[-1]
        label = f"winner {trial_key(best.trial)}\n({value:.1f} % at {epoch} epochs)"
        entries.append(Line2D([], [], color=colour, linestyle=dashes, linewidth=3, marker="o", label=label))
    return entries


def _points(trial: TrialState, rungs: Sequence[int]) -> list[tuple[int, float]]:
    """(epochs, top-1 in %) at the rungs where the trial was scored."""
    reports = [trial.at(rung) for rung in rungs]
    return [(r.epoch, 100 * r.top1) for r in reports if r is not None and r.top1 is not None]


def _method(trial: TrialState) -> str:
    return str(trial.draws.get("method", "unknown"))


def fate(trial: TrialState) -> str:
    """One of :data:`MARKS`: how it goes with a trial."""
    if trial.ended is None:
        return RUNNING
    return trial.ended if trial.ended in (CULLED, TOP) else BROKEN


def unscored_note(state: JournalState) -> str:
    """`3 trials without a score (2 diverged, 1 running)`, or nothing: a figure shall not pass over them."""
    silent = Counter(t.ended or RUNNING for t in state.trials.values() if t.last_rung is None)
    if not silent:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(silent.items()))
    total = sum(silent.values())
    return f"{total} {'trial' if total == 1 else 'trials'} without a score ({kinds})"
