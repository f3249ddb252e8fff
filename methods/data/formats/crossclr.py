"""CrosSCLR's arrays, also those of AimCLR, CMCS and SkeleMixCLR: a folder for each protocol.

``{train,val}_position.npy`` (N, 3, 50, 25, 2) float32: centred, resized and turned, what these methods train on;
``{train,val}_motion.npy`` beside it follows from it and is not read. ``{train,val}_data.npy`` (N, 3, 300, 25, 2): the
step before, metres in camera space with zeros after the end of a clip, which are cut off. Labels and names of the
clips are in ``{train,val}_label.pkl``, which often lies with the ``_data`` arrays only (``names`` says where);
``{train,val}_label.npy`` has labels alone. The folder of one protocol may be named, or the one above with all of them.
Source: LinguoLi/CrosSCLR tools/ntu_gendata.py, feeder/preprocess_ntu.py and NTUDatasets.py; Levigty/AimCLR
tools/pku_part1_gendata.py and pku_part2_gendata.py for PKU-MMD.
"""

from __future__ import annotations

from pathlib import Path

from methods.data.reading.bench_source import source_of
from methods.data.reading.benches import bench_folders, read_benches
from methods.data.reading.sources import ReadOptions, Source

OPTIONS = frozenset({"names", "layout"})
ENDINGS = ("position", "data")  # the first that is there is read


def recognises(source: Path) -> str | None:
    """A folder with arrays of such names, or with folders like xsub that have them."""
    folders = bench_folders(source, ENDINGS)
    if not folders:
        return None
    array = next(path for ending in ENDINGS for path in sorted(folders[0].glob(f"*_{ending}.npy")))
    return f"a folder with {array.relative_to(source)}"


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Plan the reading of a bench or of several; raises InputError, all faults at once."""
    benches = read_benches(source, ENDINGS, options.names)
    array = benches[0].train.array
    if not array.name.endswith("_position.npy"):
        notes = {"unit": "m", "applied": [], "persons": "the first two bodies of each frame, as listed"}
        return source_of(benches, options, scratch, notes)
    frames = benches[0].train.header.shape[2] if len(benches[0].train.header.shape) > 2 else 0
    notes = {
        "unit": "m",
        "applied": ["trim_paper", "centre", f"resize {frames}", "rotate_y_paper"],
        "persons": "the first two bodies of each frame, as listed",
        "not_read": [path.name for path in sorted(array.parent.glob("*_motion.npy"))],
    }
    remarks = [f"{array.name} is centred, resized to {frames} frames and turned already"]
    if array.with_name("train_data.npy").is_file():
        remarks.append("train_data.npy lies beside it, the step before, and is not read")
    return source_of(benches, options, scratch, notes, remarks, trim=False)
