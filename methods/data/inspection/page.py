"""An inspection as one HTML page: facts, splits, histograms, bones, and stick figures of every class and every finding.

The page stands alone: no script, no link to anywhere, drawings as inline SVG. Names come from whoever made the dataset
and are escaped; a policy in the page forbids scripts besides.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from methods.data.inspection.anomalies import KINDS, Finding
from methods.data.inspection.duplicates import Duplicates
from methods.data.inspection.facts import Inspection, SplitFacts
from methods.data.inspection.strips import Mark, Up, find_up, poses_of, strip
from methods.data.skeletons import TEST, TRAIN, SkeletonDataset
from methods.errors import InputError

Ints = NDArray[np.int64]

# What happens from one frame to the next is shown by frames in a row.
_CLOSE = ("joint_jump", "body_jump", "swap", "gap")
_MOST_ROWS = 1000  # of findings without a picture: a page of a broken dataset shall still open
_BINS = 40

_STYLE = """
:root{color-scheme:light dark;--line:#d5d9e0;--soft:#f4f6f9;--text:#1c2330;--faint:#667085;--bar:#4c78a8;--mark:#fff0c2;
--bad:#c4321f}
@media(prefers-color-scheme:dark){:root{--line:#3a4150;--soft:#1f2530;--text:#e4e8ef;--faint:#98a2b3;--mark:#4a3f14;
--bad:#ff7b66}body{background:#161b24}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--text);max-width:1080px;margin:2em auto;padding:0 1.2em}
h1{font-size:1.6em;margin:0}
h2{font-size:1.2em;margin:2em 0 .5em;padding-bottom:.2em;border-bottom:1px solid var(--line)}
h1,h2,h3,td,th,p,figcaption{overflow-wrap:anywhere}
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.15em .9em .15em 0;text-align:left;vertical-align:top}
td.n,th.n{text-align:right}th{color:var(--faint);font-weight:500}tr+tr td{border-top:1px solid var(--line)}
.faint{color:var(--faint)}.bad{color:var(--bad)}.wide{overflow-x:auto}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:.6em;margin:1em 0}
.tiles div{background:var(--soft);border-radius:6px;padding:.5em .8em}.tiles b{display:block;font-size:1.25em}
figure{margin:.8em 0;padding:.5em .8em;background:var(--soft);border-radius:6px;overflow-x:auto}
figcaption{font-size:.92em}svg{display:block;max-width:100%;height:auto}
.strip{margin-top:.3em}.strip path{fill:none;stroke-width:22;stroke-linecap:round;stroke-linejoin:round}
.strip text{font-size:100px;fill:var(--faint);text-anchor:middle}
.strip circle{fill:none;stroke-width:22}.p0{stroke:#4c78a8}.p1{stroke:#f58518}.p2{stroke:#54a24b}.p3{stroke:#b279a2}
.strip .dot{fill:var(--bad);stroke:none}.strip .edge{stroke:var(--line);stroke-width:8}.mark{fill:var(--mark)}
.bars rect{fill:var(--bar)}.bars text{font-size:11px;fill:var(--faint)}
.charts{display:flex;flex-wrap:wrap;gap:2em}
"""


def write_page(dataset: SkeletonDataset, inspection: Inspection, path: str | Path, pictures: int = 200) -> None:
    """Write an inspection of ``dataset`` as one HTML file with at most ``pictures`` drawings of each kind of finding.

    The file appears under its name when it is complete. Raises InputError, naming it, where it cannot be written.
    """
    path = Path(path).absolute()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of the page to write")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot write there: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(_page(dataset, inspection, pictures))
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)  # mkstemp makes it private; a page is for showing
        os.replace(name, path)
    except OSError as error:
        raise InputError(f"{path}: cannot write there: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _page(dataset: SkeletonDataset, found: Inspection, pictures: int) -> Iterator[str]:
    up = find_up(dataset)
    name = _text(dataset.path.name)
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" '
        'content="width=device-width"/><meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'unsafe-inline'\"/><title>{name}: inspection</title><style>{_STYLE}</style></head><body>\n"
    )
    yield f'<h1>{name}</h1><p class="faint">{_text(found.path)}<br/>fingerprint {_text(found.fingerprint)}</p>\n'
    yield from _facts(found)
    yield from _splits(found)
    yield from _histograms(dataset)
    yield from _bones(found)
    yield from _summary(found)
    yield from _classes(dataset, found, up)
    for kind, findings in found.anomalies.by_kind().items():
        yield from _findings(dataset, kind, findings, up, pictures)
    if found.copies is not None:
        yield from _copies(dataset, found.copies, up, pictures)
    yield "</body></html>\n"


def _text(value: object) -> str:
    """Escape for HTML text and attributes; what no document may hold becomes a question mark in a box."""
    clean = "".join(
        char if char.isprintable() or char in " \t\n" else "\N{REPLACEMENT CHARACTER}" for char in str(value)
    )
    return escape(clean, quote=True)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], numbers: int) -> str:
    """A table whose columns from ``numbers`` on are right-aligned."""

    def row(cells: Sequence[object], tag: str) -> str:
        sides = [' class="n"' if at >= numbers else "" for at in range(len(cells))]
        return "".join(f"<{tag}{side}>{_text(cell)}</{tag}>" for cell, side in zip(cells, sides, strict=True))

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="wide"><table><tr>{row(head, "th")}</tr>{body}</table></div>\n'


def _facts(found: Inspection) -> Iterator[str]:
    low, middle, high = found.lengths
    tiles = [
        (f"{found.clips:,}", "clips"),
        (f"{found.frames:,}", "frames"),
        (f"{low} / {middle:g} / {high}", "length (min / median / max)"),
        (f"{found.classes}", f"classes, {found.clips_a_class[0]} to {found.clips_a_class[1]} clips each"),
        (f"{found.joints} x {found.channels}", f"joints x coordinates, layout {found.layout}"),
        (f"{found.persons}", "persons at most"),
        (f"{found.subjects} / {found.cameras} / {found.setups}", "subjects / cameras / setups known"),
        (f"{found.extent:.3g}", f"largest coordinate; a body's bones sum up to {found.anomalies.size:.3g}"),
    ]
    if found.without_second is not None:
        tiles.append((f"{found.without_second:.1%}", "clips without a second person"))
    cells = "".join(f"<div><b>{_text(value)}</b>{_text(what)}</div>" for value, what in tiles)
    yield f'<div class="tiles">{cells}</div>\n'


def _splits(found: Inspection) -> Iterator[str]:
    if not found.splits:
        return
    rows = []
    for name, sides in found.splits.items():
        across, near = len(found.across.get(name, ())), len(found.near_across.get(name, ()))
        for side, facts in sides.items():
            copies = f"{across} + {near}" if side == "test" else ""
            rows.append((name, side, f"{facts.clips:,}", facts.classes, _span(facts), facts.subjects, facts.cameras,
                         copies))  # fmt: skip
    yield "<h2>Splits</h2>"
    yield _table(
        ("split", "side", "clips", "classes", "clips a class", "subjects", "cameras", "copies of train"), rows, 2
    )
    yield '<p class="faint">Copies of train: test clips byte-identical + near-identical to a training clip.</p>\n'
    for name, sides in found.splits.items():
        for side, facts in sides.items():
            if facts.lacking:
                lacking = ", ".join(facts.lacking)
                yield f'<p class="bad">{_text(name)}: {side} has no clip of {_text(lacking)}</p>\n'


def _span(facts: SplitFacts) -> str:
    return f"{facts.least} to {facts.most}"


def _histograms(dataset: SkeletonDataset) -> Iterator[str]:
    lengths = np.asarray(dataset.lengths)
    width = max(1, -(-int(lengths.max() - lengths.min() + 1) // _BINS))
    bins = np.bincount((lengths - lengths.min()) // width)
    least = int(lengths.min())
    spans = [
        f"{first} frames" if width == 1 else f"{first} to {first + width - 1} frames"
        for first in range(least, least + width * len(bins), width)
    ]
    per_class = np.bincount(dataset.labels, minlength=dataset.num_classes)
    yield '<h2>Lengths and classes</h2><div class="charts"><div>clips by length'
    yield _bars(bins, spans, f"{least}", f"{int(lengths.max())} frames")
    yield "</div><div>clips by class"
    yield _bars(per_class, dataset.class_names, "first class", "last")
    yield "</div></div>\n"


def _bars(counts: Ints, titles: Sequence[str], left: str, right: str) -> str:
    width, height = 460, 110
    step = width / len(counts)
    most = max(1, int(counts.max()))
    rects = "".join(
        f'<rect x="{at * step:.1f}" y="{height - tall:.1f}" width="{max(0.5, step - min(2, 0.2 * step)):.1f}" '
        f'height="{tall:.1f}"><title>{_text(title)}: {count}</title></rect>'
        for at, (count, title) in enumerate(zip(counts.tolist(), titles, strict=True))
        for tall in [(height - 14) * count / most]
    )
    return (
        f'<svg class="bars" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 16}" width="{width}" '
        f'height="{height + 16}">{rects}<text x="0" y="10">{most:,}</text><text x="0" y="{height + 13}">{_text(left)}'
        f'</text><text x="{width}" y="{height + 13}" text-anchor="end">{_text(right)}</text></svg>'
    )


def _bones(found: Inspection) -> Iterator[str]:
    if not found.anomalies.bones:
        return
    rows = [
        (f"{bone.parent} – {bone.child}", f"{bone.length:.3g}", f"{bone.spread:.1%}", f"{bone.most:.1%}")
        for bone in found.anomalies.bones
    ]
    yield "<h2>Bones</h2><p>How much a bone's length varies within one clip (standard deviation over mean).</p>"
    yield _table(("bone", "mean length", "median clip", "worst clip"), rows, 1)


def _summary(found: Inspection) -> Iterator[str]:
    yield "<h2>What is wrong</h2>"
    warnings = [line.removeprefix("! ") for line in found.lines() if line.startswith("!")]
    items = "".join(f"<li>{_text(line)}</li>" for line in warnings)
    yield f"<ul>{items}</ul>\n" if warnings else "<p>Nothing was found.</p>\n"
    if found.anomalies.origins:
        origins = ", ".join(found.anomalies.origins)
        yield f'<p class="faint">At exactly zero in most clips, taken as the origin: {_text(origins)}.</p>\n'


def _classes(dataset: SkeletonDataset, found: Inspection, up: Up) -> Iterator[str]:
    """One strip a class: the clip of median length among those without a finding."""
    yield "<h2>Classes</h2>"
    if dataset.num_persons > 1:
        yield '<p class="faint">Person 0 is blue, person 1 orange. Frames, persons and clips count from 0.</p>'
    faulty = np.zeros(len(dataset), dtype=bool)
    faulty[[finding.clip for finding in found.anomalies.findings]] = True
    for label, name in enumerate(dataset.class_names):
        clips = np.flatnonzero(np.asarray(dataset.labels) == label)
        clips = clips[~faulty[clips]] if (~faulty[clips]).any() else clips
        yield f'<figure id="class-{label}"><figcaption><b>{_text(name)}</b> '
        if not len(clips):
            yield '<span class="bad">has no clip</span></figcaption></figure>\n'
            continue
        clip = int(clips[np.argsort(dataset.lengths[clips], kind="stable")[(len(clips) - 1) // 2]])
        yield f'<span class="faint">{_where(dataset, clip)}</span></figcaption>'
        yield f"{_strip(dataset, clip, up)}</figure>\n"


def _where(dataset: SkeletonDataset, clip: int) -> str:
    """A clip in words: name, number, class, sides of the splits."""
    name, label, length = (
        str(dataset.names[clip]),
        dataset.class_names[int(dataset.labels[clip])],
        dataset.lengths[clip],
    )
    sides = [
        f"{split} {'train' if table[clip] == TRAIN else 'test'}"
        for split, table in dataset.splits.items()
        if table[clip] in (TRAIN, TEST)
    ]
    parts = [
        f"{name} (clip {clip})" if name else f"clip {clip}",
        label,
        f"{length} frame{'s' if length != 1 else ''}",
        *sides,
    ]
    return _text(", ".join(parts))


def _strip(dataset: SkeletonDataset, clip: int, up: Up, mark: Mark | None = None, close: bool = False) -> str:
    frames = dataset.clip(clip)
    return strip(frames, dataset.layout, up, poses_of(len(frames), mark, close), mark)


def _findings(dataset: SkeletonDataset, kind: str, findings: Sequence[Finding], up: Up, pictures: int) -> Iterator[str]:
    clips = len({finding.clip for finding in findings})
    yield f'<h2 id="{kind}">{clips:,} {"clip" if clips == 1 else "clips"} that {KINDS[kind]}</h2>\n'
    for number, finding in enumerate(findings[: max(pictures, _MOST_ROWS)]):
        yield f'<figure class="finding"><figcaption><b>{_text(finding.text)}</b> '
        yield f'<span class="faint">{_where(dataset, finding.clip)}</span></figcaption>'
        if number < pictures:
            mark = None if finding.frame is None else Mark(finding.frame, finding.person, finding.joint)
            yield _strip(dataset, finding.clip, up, mark, close=kind in _CLOSE)
        yield "</figure>\n"
    yield _more(len(findings) - pictures, "are told without a picture", len(findings) - max(pictures, _MOST_ROWS))


def _more(plain: int, how: str, untold: int) -> str:
    if plain <= 0:
        return ""
    rest = f", {untold:,} of them not at all" if untold > 0 else ""
    return f'<p class="faint">{plain:,} more {how}{rest}.</p>\n'


def _copies(dataset: SkeletonDataset, copies: Duplicates, up: Up, pictures: int) -> Iterator[str]:
    """Groups of identical clips and near-identical pairs, each drawn."""
    sets = [(f"{len(group)} byte-identical clips", group) for group in copies.identical]
    sets += [(f"near-identical, {apart:.5f} of the bones' sum apart", (a, b)) for a, b, apart in copies.near]
    sets += [(f"{len(crowd)} clips that are all near-identical", crowd) for crowd in copies.crowds]
    if not sets:
        return
    yield f'<h2 id="copies">{len(sets):,} sets of copies</h2>\n'
    for number, (what, clips) in enumerate(sets[: max(pictures, _MOST_ROWS)]):
        names = "; ".join(_where(dataset, clip) for clip in clips[:8])
        more = f" and {len(clips) - 8} more" if len(clips) > 8 else ""
        yield f'<figure class="copies"><figcaption><b>{what}</b> <span class="faint">{names}{more}</span></figcaption>'
        if number < pictures:
            same = dataset.lengths[clips[0]] == dataset.lengths[clips[1]] and what.endswith("identical clips")
            yield "".join(_strip(dataset, clip, up) for clip in (clips[:1] if same else clips[:2]))
        yield "</figure>\n"
    yield _more(len(sets) - pictures, "are told without a picture", len(sets) - max(pictures, _MOST_ROWS))
