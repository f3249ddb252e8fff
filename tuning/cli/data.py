"""`skeltune data convert | inspect | synth`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from methods.data import Inspection, ReadOptions

app = typer.Typer(help="Skeleton datasets: convert, inspect, generate.", no_args_is_help=True)

_CONVERT = """Examples:

`skeltune data convert nturgb+d_skeletons data/ntu120`

`skeltune data convert ntu60_frame50 data/ntu60 --format crossclr`

`skeltune data convert cmu data/cmu --table actions.csv --drop-duplicates`

It ends with a summary:

    format     ntu_raw (folder with S001C001P001R001A001.skeleton and more like it)
    kept       56,578 clips, 4,650,000 frames, 60 classes, layout ntu25 (25 joints)
    left out   302, each listed in data/ntu60/skipped.tsv
    split      xsub: 40,091 train, 16,487 test   (official: 40,091 and 16,487)
"""


@app.command(epilog=_CONVERT)
def convert(
    source: Annotated[Path, typer.Argument(help="What you have: a folder, an archive, a file.")],
    out: Annotated[Path, typer.Argument(help="The dataset folder to write; must not exist yet.")],
    format_: Annotated[str, typer.Option("--format", help="auto, or a name from `skeltune data formats`.")] = "auto",
    tracking: Annotated[
        str | None, typer.Option(help="Persons through a clip: by_id (tracked, denoised) or as_listed (CrosSCLR).")
    ] = None,
    missing: Annotated[Path | None, typer.Option(help="A list of clip names to leave out.")] = None,
    names: Annotated[Path | None, typer.Option(help="The clip names of an array that has none, one a line.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV about the clips: file, action, subject, fold.")] = None,
    splits: Annotated[Path | None, typer.Option(help="The official split lists, where they lie elsewhere.")] = None,
    layout: Annotated[str | None, typer.Option(help="A layout's name or YAML file, if the data does not say.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="What would be left out and listed is an error.")] = False,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Add splits <name>_clean: no test clip copies a training clip.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Reading processes; 0: one for each core.")] = 0,
) -> None:
    """Turn skeletons from somewhere else into a dataset folder; killed, the same command goes on."""
    from methods.data import convert as convert_data
    from tuning.progress import available_cores, conversion_progress

    options = _options(tracking, missing, names, table, splits, layout)
    with conversion_progress(f"{source} -> {out}") as tell:
        done = convert_data(
            source,
            out,
            format_,
            options,
            workers=workers or available_cores(),
            strict=strict,
            drop_duplicates=drop_duplicates,
            progress=tell,
        )
    typer.echo(f"{out}")
    for line in done.lines():
        typer.echo(line)


def _options(
    tracking: str | None,
    missing: Path | None,
    names: Path | None,
    table: Path | None,
    splits: Path | None,
    layout: str | None,
) -> ReadOptions:
    from methods.data import ReadOptions

    found = None
    if layout is not None:
        from tuning.layout_file import find_layout

        found = find_layout(layout)
    return ReadOptions(tracking=tracking, missing=missing, names=names, table=table, splits=splits, layout=found)


@app.command(epilog="Example: `skeltune data formats`")
def formats() -> None:
    """List the formats that `data convert` reads."""
    from methods.data import FORMATS

    width = max(map(len, FORMATS))
    for name, what in FORMATS.items():
        typer.echo(f"{name:<{width}}  {what}")


@app.command(epilog="Example: `skeltune data inspect data/utd_mhad --split xsub --html inspection.html`")
def inspect(
    path: Annotated[Path, typer.Argument(help="A dataset folder.")],
    split: Annotated[str | None, typer.Option(help="Count for this split only; default: every stored one.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures of every class and anomaly to this file.")
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, help="At most so many pictures of each kind of anomaly.")] = 200,
) -> None:
    """Print counts, lengths, classes per split, anomalies, and clips that stand on both sides of a split."""
    from methods.data import inspect_dataset, open_dataset

    dataset = open_dataset(path)
    found: Inspection = inspect_dataset(dataset, split)
    for line in found.lines():
        typer.echo(line)
    if html is not None:
        from methods.data.inspection.page import write_page

        write_page(dataset, found, html, pictures)
        typer.echo(f"page       {html}")


@app.command(epilog="Example: `skeltune data synth data/generated --seed 1`")
def synth(
    out: Annotated[Path, typer.Argument(help="The dataset folder to write; must not exist yet.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the embedded dataset's own.")] = None,
) -> None:
    """Write the generated skeletons of the quickstart (or a set like it with another seed)."""
    import dataclasses

    from methods.data.synthetic import QUICKSTART, write_synthetic

    config = QUICKSTART if seed is None else dataclasses.replace(QUICKSTART, seed=seed)
    dataset = write_synthetic(out, config)
    typer.echo(f"{out}: {len(dataset)} clips, {dataset.num_classes} classes, splits {', '.join(dataset.splits)}")
