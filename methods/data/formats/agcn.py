"""2s-AGCN's arrays, also those of SCD-Net and CMD: a folder for each protocol.

``{train,val}_data_joint.npy`` (N, 3, 300, 25, 2) float32 with ``{train,val}_label.pkl`` and, in SCD-Net and CMD,
``{train,val}_num_frame.npy`` (N,), the frames of each clip. The clips have been normalised: moved to the front where
they began with nobody, every person repeated in a loop up to the last frame, the middle of person 0's spine at 0 in
every frame, spine and shoulders of person 0's first frame turned to z and x. Because of the loop only num_frame tells
where a clip ends. The streams made from it (``_data_bone``, ``_data_joint_motion``) are not read.
Source: lshiwjx/2s-AGCN data_gen/ntu_gendata.py and preprocess.py; cong-wu/SCD-Net and maoyunyao/CMD data_gen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from methods.data.formats import crossclr
from methods.data.npyfiles import map_foreign
from methods.data.reading.bench_source import source_of
from methods.data.reading.benches import Bench, Side, bench_folders, read_benches
from methods.data.reading.sources import Ints, ReadOptions, Source
from methods.errors import InputError

OPTIONS = frozenset({"names", "layout"})
ENDINGS = ("data_joint",)
_APPLIED = (
    "empty first frames moved to the end",
    "padded in a loop",
    "the middle of person 0's spine (joint 2) at 0 in every frame",
    "person 0's first spine turned to z, shoulders to x",
)


def recognises(source: Path) -> str | None:
    """A folder with arrays of such names, or with folders like xsub that have them, and none of CrosSCLR's."""
    folders = bench_folders(source, ENDINGS)
    if not folders or bench_folders(source, crossclr.ENDINGS):
        return None
    array = min(folders[0].glob("*_data_joint.npy"))
    return f"a folder with {array.relative_to(source)}"


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Plan the reading of a bench or of several; raises InputError, all faults at once."""
    benches = read_benches(source, ENDINGS, options.names)
    lengths = _lengths(benches[0])
    remarks = ["the clips have been normalised already (AGCN: moved, padded in a loop, turned)"]
    if lengths is None:
        remarks.append(
            "no *_num_frame.npy says how long the clips are: each ends at its last frame with anybody, which is the "
            "array's last where clips were repeated in a loop"
        )
    notes = {"unit": "m", "applied": list(_APPLIED), "persons": "the two with most movement"}
    return source_of(benches, options, scratch, notes, remarks, lengths=lengths)


def _lengths(bench: Bench) -> Ints | None:
    """The frames (N,) of all clips, those that train first; None where neither side has a file of them."""
    files = [_count_file(side) for side in (bench.train, bench.test)]
    missing = [file for file in files if not file.is_file()]
    if len(missing) == len(files):
        return None
    if missing:
        raise InputError(f"{missing[0]}: no such file, though the other side of the protocol has one")
    return np.concatenate([_counts(file, side) for file, side in zip(files, (bench.train, bench.test), strict=True)])


def _count_file(side: Side) -> Path:
    return side.array.with_name(side.array.name.replace("_data_joint", "_num_frame"))


def _counts(file: Path, side: Side) -> Ints:
    """Counts of frames; what is none becomes 0, which is mended when the clip is read."""
    counts = map_foreign(file)
    clips = side.header.shape[0]
    if counts.dtype.kind not in "iuf" or counts.size != clips or counts.ndim not in (1, 2):
        raise InputError(f"{file}: holds {counts.dtype} {counts.shape}, wanted a count of frames for {clips:,} clips")
    with np.errstate(invalid="ignore"):
        values = np.asarray(counts, dtype=np.float64).reshape(-1)
        good = (values >= 1) & (values <= 1e9) & (values == np.floor(values))
    return np.where(good, values, 0).astype(np.int64)
