"""What a ladder, its budget and its sampler cannot do together: said before a search begins, without its data."""

from __future__ import annotations

import itertools

from tuning.config.schema import SearchSpec

FEWEST_REPEATS = 3  # fewer differences between two seeds tell nothing of their noise
REPEATS_SHARE = 0.1  # of a search's epochs, and no more, for measuring noise


def plural(word: str, count: int) -> str:
    """The word for ``count`` of them."""
    return word if count == 1 else word + "s"


def schedule_warnings(spec: SearchSpec, methods: int) -> list[str]:
    """Sentences about words of the ladder, the sampler and the budget that do not fit together."""
    asha, rungs = spec.schedule.asha, spec.schedule.rungs()
    counted = f"{len(rungs)} {plural('rung', len(rungs))}"
    notes = _rung_warnings(rungs)
    if asha.grow and len(rungs) < 3:
        notes.append(
            f"grow: true changes nothing on {counted}: such a ladder begins with two, so it needs three; a lower "
            "asha.min gives more"
        )
    if asha.brackets > len(rungs):
        notes.append(
            f"brackets: {asha.brackets} on {counted}: {len(rungs)} is the most that differ, and the last of "
            "them trains every trial in full"
        )
    if spec.budget.epochs is not None and spec.budget.epochs < rungs[-1]:
        notes.append(f"budget.epochs of {spec.budget.epochs} are less than one full run of {rungs[-1]}")
    if len(spec.objectives) > 1:
        notes.append(
            f"two objectives, {' and '.join(spec.objectives)}: a front of trade-offs takes more trials to find than "
            "one best, and at a rung a cheap trial may take the place of a more accurate one"
        )
    return notes + _few_trials(spec, methods) + _startup_warnings(spec, methods) + _repeat_warnings(spec)


def _rung_warnings(rungs: tuple[int, ...]) -> list[str]:
    if len(rungs) == 1:
        return [f"the first rung is the last ({rungs[0]} epochs): nothing is ever stopped early"]
    if rungs[-1] < 1.5 * rungs[-2]:
        return [
            f"rung {rungs[-2]} lies close below the top, {rungs[-1]}: schedule.max of {rungs[-2]} costs less and "
            f"tells as much, or choose max = min * eta^k"
        ]
    return []


def _few_trials(spec: SearchSpec, methods: int) -> list[str]:
    asha, rungs, size = spec.schedule.asha, spec.schedule.rungs(), _expected(spec)
    if size is None or len(rungs) == 1 or asha.brackets > 1 or asha.grow:  # where the count would be another
        return []
    trials, ladders = int(size[0]), methods if asha.ladder == "per_method" else 1
    if trials >= asha.eta**2 * ladders:
        return []
    full = max(1, ladders * (trials // ladders // asha.eta ** (len(rungs) - 1)))
    each = f" for each of {methods} methods" if ladders > 1 else ""
    return [
        f"{trials} trials are fewer than eta * eta = {asha.eta**2}{each}: expect {full} full "
        f"{plural('run', full)}; more trials or a smaller eta let more of them reach the top"
    ]


def _startup_warnings(spec: SearchSpec, methods: int) -> list[str]:
    asha, startup = spec.schedule.asha, spec.sampler.startup_trials
    if methods == 1:
        return []
    if asha.ladder == "per_method" and len(spec.schedule.rungs()) > 1 and startup < asha.eta * methods:
        default = "" if "ladder" in asha.model_fields_set else " (the default)"
        return [
            f"ladder: per_method{default} compares within a method: of {startup} start-up {plural('trial', startup)} "
            f"each of {methods} methods has {startup // methods}, fewer than eta = {asha.eta}; "
            f"sampler.startup_trials of {asha.eta * methods} would do"
        ]
    if startup < methods:
        return [
            f"sampler.startup_trials is {startup}, below the {methods} methods; each of them is tried once all the same"
        ]
    return []


def _repeat_warnings(spec: SearchSpec) -> list[str]:
    """Repeats too few to tell anything, or too dear."""
    asha, first, size = spec.schedule.asha, spec.schedule.rungs()[0], _expected(spec)
    due = asha.repeats if size is None else min(asha.repeats, max(0, int(size[0]) // asha.eta - 1))
    if due == 0:
        return []
    if due < FEWEST_REPEATS:
        return [
            f"asha.repeats: {due} of them will be run, and fewer than {FEWEST_REPEATS} tell nothing of the noise; "
            "`repeats: 0` saves them"
        ]
    if size is not None and due * first > REPEATS_SHARE * size[1]:
        share = 100 * due * first / size[1]
        return [f"asha.repeats: {due} x {first} epochs are {share:.0f} % of the search, to measure noise alone"]
    return []


def _expected(spec: SearchSpec) -> tuple[float, float] | None:
    """(trials, epochs) of the search by its limits in these, whichever is first; None where it has neither."""
    schedule, budget = spec.schedule, spec.budget
    rungs, eta = schedule.rungs(), schedule.asha.eta
    each = []  # epochs that a trial of each bracket takes on average; brackets get equal epochs
    for bracket in range(min(schedule.asha.brackets, len(rungs))):
        steps = [rungs[bracket], *(b - a for a, b in itertools.pairwise(rungs[bracket:]))]
        each.append(sum(step / eta**k for k, step in enumerate(steps)))
    mean = len(each) / sum(1 / cost for cost in each)
    trials = [float(n) for n in (budget.trials, budget.epochs and budget.epochs / mean) if n is not None]
    return (min(trials), min(trials) * mean) if trials else None
