"""What a finish leaves: best.yaml with its comment and provenance, the test scores, and the words for who won."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.errors import InputError
from methods.training.seeds import derive_seed
from tuning.config.schema import SearchSpec
from tuning.engine.finalists import RETRAIN, Lead, Standing, job_name, rerun_results
from tuning.engine.state import JournalState, TrialState
from tuning.files import write_text
from tuning.plan import Plan
from tuning.provenance import surroundings
from tuning.run_files import BEST_FILE, TEST_FILE, WEIGHTS_FILE, trial_key
from tuning.session import CHECKPOINT
from tuning.space import load_search
from tuning.space.export import dump

JOBS_FOLDER = "finish"  # in the run folder: checkpoints of the finish's own jobs, until it is done


@dataclass(frozen=True)
class Outcome:
    """What a finish found.

    ``rung``: epochs at which finalists were chosen. ``retrained``: the winner's retrainings by number.
    ``tested_before``: whose test scores were read too, when the search had another winner.
    """

    winner: TrialState
    standing: Standing
    state: JournalState
    rung: int
    retrained: Mapping[int, Mapping[str, Any]]
    tested_before: tuple[str, ...]

    @property
    def tests(self) -> list[Mapping[str, Any]]:
        """The retrainings that gave a score; the weights of the first of them are kept."""
        return [result for _, result in sorted(self.retrained.items()) if result.get("top1") is not None]


# --- words -----------------------------------------------------------------------------------------------------------


def percent(values: Sequence[float]) -> str:
    """`61.4 ± 0.8 (60.6, 61.5, 62.1)` in percent; one value alone has no spread."""
    shown = [100 * v for v in values]
    if len(shown) == 1:
        return f"{shown[0]:.1f}"
    each = ", ".join(f"{v:.1f}" for v in shown)
    return f"{statistics.fmean(shown):.1f} ± {statistics.stdev(shown):.1f} ({each})"


def score_line(trial: int, values: Sequence[float]) -> str:
    """`t0003  validation, 2 new seeds: 71.0 ± 1.4 (70.0, 72.0)`."""
    return f"  {trial_key(trial)}  validation, {_new_seeds(len(values))}: {percent(values)}"


def finalist_lines(standing: Standing) -> list[str]:
    """A line a finalist, best first: its accuracy, how far the leader is ahead, whether it is out."""
    lines = []
    for score in standing.scores:
        ran = standing.ran(score.trial)
        line = score_line(score.trial, score.values)
        if len(score.values) < ran:
            line += f"; {ran - len(score.values)} of {ran} runs failed"
        lead = standing.leads.get(score.trial)
        if score.trial in standing.dropped and lead is not None:
            line += f"; behind {trial_key(lead.ahead)} by {_gap(lead)}, out after {ran} seeds"
        elif lead is not None:
            line += f"; behind {trial_key(lead.ahead)} by {_gap(lead)}, still in"
        lines.append(line)
    scored = {score.trial for score in standing.scores}
    return lines + [
        f"  {trial_key(trial)}  every run with a new seed failed, out after {rounds}"
        for trial, rounds in sorted(standing.dropped.items())
        if trial not in scored
    ]


def verdict(standing: Standing) -> str:
    """Who won, by how much, and whether that is more than noise; empty where nobody was compared."""
    lead = standing.gap
    if lead is None:
        return ""
    first, second = trial_key(lead.ahead), trial_key(lead.behind)
    if lead.interval is None:
        return f"not separated: {first} leads {second} by {_gap(lead)}, and single runs tell no spread"
    if lead.decided:
        return f"{first} wins, ahead of {second} by {_gap(lead)}"
    return (
        f"not separated: {first} leads {second} by {_gap(lead)}, within the noise of "
        f"{standing.rounds} {'seed' if standing.rounds == 1 else 'seeds'}"
    )


def _gap(lead: Lead) -> str:
    shown = f"{100 * lead.gap:.1f}"
    if lead.interval is None:
        return shown
    low, high = (100 * end for end in lead.interval)
    return f"{shown} (95 % interval {low:.1f} to {high:.1f})"


def _new_seeds(count: int) -> str:
    return f"{count} new {'seed' if count == 1 else 'seeds'}"


def _test_words(outcome: Outcome) -> str:
    """A search that went on may have another winner: then the test split was read before, and that is said."""
    before = outcome.tested_before
    return f"read once more, earlier for {', '.join(before)}" if before else "read once"


# --- files -----------------------------------------------------------------------------------------------------------


def export(plan: Plan, outcome: Outcome, threads: int, say: Callable[[str], None]) -> Path:
    """Write weights and test scores into the run folder, and best.yaml last, for it says that all is there."""
    path = plan.folder / BEST_FILE
    told = _findings(plan, outcome)
    _keep_weights(plan, outcome)
    if outcome.tests:
        write_text(plan.folder / TEST_FILE, json.dumps(told["test"], indent=2) + "\n")
        say(f"test, {_test_words(outcome)}: {percent([t['top1'] for t in outcome.tests])}")
    config = plan.space.resolve(outcome.winner.draws)
    told = {"search": told.pop("search"), "data": data_told(plan)} | told | surroundings(threads)
    write_text(path, _story(plan, path, outcome) + dump(portable(plan), config, told))
    copy_export(plan, say, again=True)
    shutil.rmtree(plan.folder / JOBS_FOLDER, ignore_errors=True)
    say(f"best configuration: {path}")
    say(f"retrain it with: skeltune train {shlex.quote(str(path))}")
    return path


def _keep_weights(plan: Plan, outcome: Outcome) -> None:
    """The weights of the first retraining that gave a score, from where they were trained."""
    number = next((n for n, result in sorted(outcome.retrained.items()) if result.get("top1") is not None), 0)
    for name in (job_name(RETRAIN, outcome.winner.trial, number), f"{RETRAIN}-{number}"):  # as older finishes had it
        weights = plan.folder / JOBS_FOLDER / name / CHECKPOINT
        if weights.is_file():
            os.replace(weights, plan.folder / WEIGHTS_FILE)
            return


def copy_export(plan: Plan, say: Callable[[str], None], *, again: bool) -> None:
    """Copy best.yaml to where the space's ``finish.export`` wants it; with ``again`` also over what is there."""
    if not plan.spec.finish.export:
        return
    extra = Path(plan.spec.finish.export)
    if again or not extra.exists():
        extra.parent.mkdir(parents=True, exist_ok=True)
        write_text(extra, (plan.folder / BEST_FILE).read_text(encoding="utf-8"))
        say(f"copied to {extra}")


def portable(plan: Plan) -> SearchSpec:
    """The spec with a dataset path that still leads there from the run folder: absolute if it lay beside the file."""
    data = plan.spec.data
    if Path(plan.source.path) != (Path(plan.spec.origin) / data.set).resolve():
        return plan.spec
    return dataclasses.replace(plan.spec, data=data.model_copy(update={"set": plan.source.path}))


def _story(plan: Plan, path: Path, outcome: Outcome) -> str:
    """The comment at the top of best.yaml."""
    first = outcome.standing.scores[0]
    how = "in the search" if plan.spec.finish.rerun is None else f"over {_new_seeds(len(first.values))}"
    lines = [
        f"# The best of {plan.spec.name}, found by skeltune. Retrain it with: skeltune train {path}",
        f"# validation {percent(first.values)}, {how}",
    ]
    if outcome.standing.gap is not None:
        lines.append(f"# {verdict(outcome.standing)}")
    if outcome.tests:
        lines.append(f"# test, {_test_words(outcome)}: {percent([t['top1'] for t in outcome.tests])}")
    return "\n".join(lines) + "\n"


# --- provenance ------------------------------------------------------------------------------------------------------


def told_in(path: Path) -> Mapping[str, Any]:
    """The provenance that a best.yaml carries; empty where there is no file, or none that this version reads."""
    if not path.is_file():
        return {}
    try:
        return load_search(path)[0].provenance
    except InputError:  # edited by hand, or by another version
        return {}


def winner_in(path: Path) -> str | None:
    """The trial that a best.yaml was exported from, as it is called there: `t0007`."""
    search = told_in(path).get("search")
    return str(search.get("winner")) if isinstance(search, Mapping) else None


def says(path: Path, plan: Plan, outcome: Outcome) -> bool:
    """Whether the best.yaml at ``path`` tells this outcome."""
    there, here = told_in(path), _findings(plan, outcome)
    return all(_plain(there.get(key)) == _plain(here.get(key)) for key in ("search", "validation", "seeds", "test"))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _findings(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """The provenance that follows from the space and the journal alone."""
    first = outcome.standing.scores[0]
    told: dict[str, Any] = {
        "search": _search(plan, outcome),
        "validation": {
            "in_search": _in_search(outcome),
            "values": list(first.values),
            "mean": first.mean,
            "spread": first.spread,
        },
        "seeds": {
            "search": plan.spec.seed,
            "rerun": _rerun_seeds(plan, outcome),
            "retrain": [int(t["seed"]) for t in outcome.tests],
        },
    }
    return told | ({"test": _test(outcome)} if outcome.tests else {})


def data_told(plan: Plan) -> dict[str, Any]:
    """The provenance of the data: which set, how it was made and split."""
    return {
        "set": plan.spec.data.set,
        "fingerprint": plan.source.fingerprint,
        "made_from": dict(plan.source.dataset().source),  # format, rules, steps and what was left out
        "split": plan.split.name,
        "validation": plan.split.note,
    }


def _search(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """``gap``: the winner's lead over the runner-up; None, as all about it, where they were not compared."""
    standing, state = outcome.standing, outcome.state
    lead, second = standing.gap, standing.scores[1] if len(standing.scores) > 1 else None
    return {
        "name": plan.spec.name,
        "space": plan.spec.space_hash(),
        "trials": state.count,
        "hours": round(sum(t.seconds for t in state.trials.values()) / 3600, 4),
        "winner": trial_key(outcome.winner.trial),
        "runner_up": trial_key(second.trial) if second else None,
        "gap": lead.gap if lead else None,
        "gap_interval": list(lead.interval) if lead and lead.interval else None,
        "decided": lead.decided if lead else None,
    }


def _in_search(outcome: Outcome) -> float | None:
    report = outcome.winner.at(outcome.rung)
    return report.top1 if report is not None else None


def _rerun_seeds(plan: Plan, outcome: Outcome) -> list[int]:
    """The seeds of the values, in their order."""
    if plan.spec.finish.rerun is None:
        return []
    winner = outcome.winner.trial
    runs = rerun_results(outcome.state)[winner]
    counted = [n for n in range(outcome.standing.ran(winner)) if runs[n].get("top1") is not None]
    return [derive_seed(plan.spec.seed, "rerun", winner, number) for number in counted]


def _test(outcome: Outcome) -> dict[str, Any]:
    values = [float(t["top1"]) for t in outcome.tests]
    return {
        "read": _test_words(outcome).removeprefix("read "),
        "values": values,
        "mean": statistics.fmean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "streams": [dict(t["streams"]) for t in outcome.tests],
        "seeds": [int(t["seed"]) for t in outcome.tests],
    }
