"""`skeltune simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from methods.errors import InputError, did_you_mean

EXAMPLE = """Examples:

`skeltune simulate my.yaml --curves runs/my --variant promote:schedule.asha.rule=promote`

`skeltune simulate my.yaml --curves runs/my --curves runs/older --propose recorded --set schedule.asha.eta=2`

`skeltune simulate my.yaml --curves mycurves:factory` (Python of your own: called with choices and rungs)

    variant  trials  full runs  epochs  hours          best  regret at 40  regret at 320
    space        96  9.2 ± 0.8     320   1.31    71.2 ± 0.9     4.1 ± 1.7      0.6 ± 0.5
"""


def run(
    space: Annotated[str, typer.Argument(help="A search-space YAML, or the name of a shipped one.")] = "quickstart",
    curves: Annotated[
        list[str] | None,
        typer.Option(help="A run's name, its folder, or a journal; may be repeated. Or one module:object."),
    ] = None,
    propose: Annotated[
        str, typer.Option(help="sampler (a surrogate answers what nobody tried) or recorded (replay what was tried).")
    ] = "sampler",
    variant: Annotated[
        list[str] | None, typer.Option(help="NAME:KEY=VALUE,KEY=VALUE to compare with; may be repeated.")
    ] = None,
    changed: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for all, a path in the YAML; may be repeated.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trials that train at once.")] = 4,
    seeds: Annotated[str, typer.Option(help="0-4, or 0,3,7: one search each.")] = "0-4",
    cost: Annotated[
        str, typer.Option(help="An epoch's seconds: recorded (the method's mean; your own curves' own) or epoch (1).")
    ] = "recorded",
    runs: Annotated[Path, typer.Option(help="Where run folders live.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Run searches in simulated time against recorded curves: another scheduler on the same trials, in seconds."""
    faults = [] if curves else ["--curves says where curves come from: a run's name, its folder, or a journal"]
    for option, word, words in (
        ("--propose", propose, ("sampler", "recorded")),
        ("--cost", cost, ("recorded", "epoch")),
    ):
        if word not in words:
            faults.append(f"{option} is {' or '.join(words)}, got '{word}'{did_you_mean(word, words)}")
    numbers = _numbers(seeds)
    if not numbers:
        faults.append(f"--seeds: '{seeds}' is neither numbers such as 0,3,7 nor a range such as 0-4")
    if faults:
        raise InputError(*faults)
    import json

    from tuning.resources import find_space
    from tuning.simulation import Wishes, lines, simulate_space

    wishes = Wishes(
        tuple(curves or ()), propose, cost, workers, numbers, tuple(changed or ()), tuple(variant or ()), runs
    )
    found = simulate_space(find_space(space), wishes, say=lambda text: typer.echo(text, err=True))
    for line in [json.dumps(found, indent=2)] if as_json else lines(found):
        typer.echo(line)


def _numbers(text: str) -> tuple[int, ...]:
    """``0-4``, ``0,3,7`` or both; empty for anything else."""
    found: dict[int, None] = {}
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or int(high or low) - int(low) > 10_000:
            return ()
        found |= dict.fromkeys(range(int(low), int(high or low) + 1))
    return tuple(found)
