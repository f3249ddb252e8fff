"""One line an event: forty trials readable on one screen, on a terminal or in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from tuning.engine.engine import WAITED
from tuning.engine.ladder import Ladder
from tuning.engine.state import COLLAPSED, CULLED, DIVERGED, FAILED, TOP, JournalState, Report, TrialState
from tuning.run_files import trial_key
from tuning.words import duration

STYLES = {CULLED: "dim", TOP: "green", FAILED: "bold red", DIVERGED: "red", COLLAPSED: "red"}


def short_value(value: Any) -> str:
    """A drawn value in a few characters: .11, 3e-4, 512, cosine."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    text = f"{value:.2g}"
    return text.removeprefix("0") if text.startswith("0.") else text


def short_draws(draws: Mapping[str, Any]) -> str:
    """`temperature=.11 momentum=.9635 strength=.62`: the last word of a draw's name is enough within one line."""
    parts = []
    for name, value in draws.items():
        if name == "method":
            continue
        words = name.split("/")
        if words[-1] == "gap":  # near_one draws 1 - m; people think in m
            parts.append(f"{words[-2]}={f'{1 - value:.4f}'.removeprefix('0')}")
            continue
        label = "/".join(words[-2:]) if words[-1].isdigit() else words[-1]
        parts.append(f"{label}={short_value(value)}")
    return " ".join(parts)


class EventLines:
    """Prints asks, rungs and ends with an estimate of the time left. Plain text where the output is no terminal.

    ``trials``: how many will be run, None if another limit ends the search. ``epochs``: how many it will take in all,
    as far as can be known.
    """

    def __init__(
        self,
        state: JournalState,
        ladder: Ladder,
        trials: int | None,
        epochs: int | None = None,
        out: TextIO | None = None,
    ) -> None:
        self.state, self.ladder, self.trials, self.epochs = state, ladder, trials, epochs
        self.console = Console(file=out or sys.stdout, highlight=False, soft_wrap=True)
        self._begun = time.monotonic()
        self._epochs_before = state.epochs

    def say(self, text: str, style: str = "") -> None:
        """Any other line of the search."""
        self.console.print(Text(text, style=style))

    def begun(self, trial: TrialState) -> None:
        method = str(trial.draws.get("method", ""))
        how = f"goes on after {max(trial.reports)}" if trial.reports else "begins  "
        self.say(f"{trial_key(trial.trial)} {method:<14} {how} {short_draws(trial.draws)}", "cyan")

    def reported(self, trial: TrialState, report: Report) -> None:
        if not report.rung or report.top1 is None:
            return
        method = str(trial.draws.get("method", ""))
        streams = report.logs.get("streams", {})
        each = " ".join(f"{name[0]} {100 * pair[0]:.1f}" for name, pair in streams.items()) if len(streams) > 1 else ""
        per_epoch = trial.seconds / max(1, len(trial.reports))
        self.say(
            f"{trial_key(trial.trial)} {method:<14} {report.epoch:>3}/{self.ladder.top}  top1 {100 * report.top1:5.1f}"
            f"  {per_epoch:.1f} s/epoch  {each}".rstrip()
        )

    def faltered(self, trial: TrialState, error: str) -> None:
        self.say(f"{trial_key(trial.trial)} {trial.draws.get('method', '')!s:<14} faltered: {error}", "red")

    def ended(self, trial: TrialState) -> None:
        if trial.detail.startswith(WAITED):  # they end together, and are told together
            return
        last = trial.last_rung
        text = trial.detail or {TOP: f"done at the top: {100 * (last.top1 or 0):.1f}" if last else "done"}.get(
            trial.ended or "", trial.ended or ""
        )
        self.say(
            f"{trial_key(trial.trial)} {trial.draws.get('method', '')!s:<14} {text}   [{self._progress()}]",
            STYLES.get(trial.ended or "", ""),
        )

    def _progress(self) -> str:
        trials = [t for t in self.state.trials.values() if t.of is None]
        over = sum(1 for t in trials if t.ended is not None or t.paused)
        text = f"{over} of {self.trials} trials" if self.trials is not None else f"{over} trials"
        waiting = sum(1 for t in trials if t.paused)
        text += f" judged, {waiting} of them wait" if waiting else " ended"
        here = self.state.epochs - self._epochs_before
        left = (self.epochs or 0) - self.state.epochs
        if here and left > 0:
            text += f", about {duration((time.monotonic() - self._begun) / here * left)} left"
        return text

    def close(self) -> None:
        """Nothing is held open."""
