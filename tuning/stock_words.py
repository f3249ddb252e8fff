"""What of a search space only the engine of our own does: said before `--engine stock` or `random-asha` begins.

A word that would change the search is refused, so that nobody takes the baseline's result for another search's. What
the baseline merely lacks is told in a note: its rule is to stop trials at rungs, it measures no noise.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuning.config.schema import SearchSpec

OURS = "skeltune"
THEIRS = ("tpe", "random")  # samplers


def refused(spec: SearchSpec, engine: str) -> list[str]:
    """A fault for each word of the space that ``engine`` has no meaning for; none for our own engine.

    ``promote``, ``per_method`` and ``portfolio`` are refused where the file writes them: a default is nobody's wish.
    """
    if engine == OURS:
        return []
    asha, sampler = spec.schedule.asha, spec.sampler
    words = {
        "schedule.asha.rule: promote": asha.rule == "promote" and "rule" in asha.model_fields_set,
        "schedule.asha.ladder: per_method": asha.ladder == "per_method" and "ladder" in asha.model_fields_set,
        f"schedule.asha.brackets: {asha.brackets}": asha.brackets > 1,
        "schedule.asha.grow: true": asha.grow,
        f"sampler.name: {sampler.name}": sampler.name not in THEIRS and "name" in sampler.model_fields_set,
        f"objectives: [{', '.join(spec.objectives)}]": len(spec.objectives) > 1,
        f"warm_start: {len(spec.warm_start)} of them": bool(spec.warm_start),
        "budget.in_flight: stop": spec.budget.in_flight == "stop",
    }
    return [
        f"--engine {engine} does not know `{word}`; leave it out, or use --engine {OURS}"
        for word, written in words.items()
        if written
    ]


def _several_methods(spec: SearchSpec) -> bool:
    """Whether there is another method to be compared with."""
    method = spec.search["method"]
    return isinstance(method, Mapping) and len(method.get("one_of", ())) > 1


def ignored(spec: SearchSpec, engine: str) -> list[str]:
    """A note for each word of the file that ``engine`` goes without, and how it decides; none for our own engine."""
    if engine == OURS:
        return []
    asha, sampler = spec.schedule.asha, spec.sampler
    notes = []
    if asha.rule == "promote":
        notes.append(f"--engine {engine} ends a trial at a rung where it is not among the best, as `rule: stop` does")
    if asha.ladder == "per_method" and _several_methods(spec):
        notes.append(f"--engine {engine} compares all methods at every rung, as `ladder: shared` does")
    if asha.repeats and "repeats" in asha.model_fields_set:
        notes.append(f"--engine {engine} repeats no trial: `schedule.asha.repeats` is ignored")
    if engine == "random-asha" and "name" in sampler.model_fields_set and sampler.name != "random":
        notes.append(f"--engine {engine} draws at random: `sampler.name: {sampler.name}` is ignored")
    if engine == "stock" and sampler.name not in THEIRS:
        notes.append(f"--engine {engine} proposes by Optuna's TPE, as `sampler: {{name: tpe}}` does")
    if sampler.random_share and "random_share" in sampler.model_fields_set:
        notes.append(f"--engine {engine} knows no `sampler.random_share`: it is ignored")
    return notes
