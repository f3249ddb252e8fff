"""Readers of foreign formats, one a file; each plans how a source becomes our own dataset folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import cast

from methods.data.reading.sources import Format
from methods.errors import InputError, did_you_mean

FORMATS: Mapping[str, str] = {  # a reader is one file and one line here
    "ntu_raw": "NTU RGB+D 60 and 120: .skeleton files, or the zips that hold them",
    "crossclr": "CrosSCLR, AimCLR, CMCS, SkeleMixCLR: *_position.npy or *_data.npy with *_label.pkl",
    "agcn": "2s-AGCN, SCD-Net, CMD: *_data_joint.npy with *_label.pkl (and *_num_frame.npy)",
    "ctrgcn_npz": "CTR-GCN: NTU60_CS.npz and the like (x_train, y_train, x_test, y_test)",
    "mamp_npz": "MAMP: PKUv1_XSub.npz and the like",
    "pyskl_pkl": "PYSKL: .pkl with split and annotations",
    "pku_raw": "PKU-MMD I and II: skeleton/ and label/ text files",
    "ucla_json": "NW-UCLA: all_sqe/ JSON files",
    "cmu_asf": "CMU mocap: ASF and AMC files with a table of actions (CSV)",
    "cmu_bvh": "mocap in BVH files with a table of actions (CSV)",
    "utd_mat": "UTD-MHAD: *_skeleton.mat (needs scipy)",
    "sbu_text": "SBU Kinect Interaction: skeleton_pos.txt files",
    "ragged_npz": "our own interchange: clips one behind the other in one .npz",
    "skeltune": "a dataset folder of skeltune, e.g. to drop its duplicates",
}


def reader(name: str) -> Format:
    """The module that reads a format; raises InputError for an unknown name."""
    if name not in FORMATS:
        raise InputError(f"unknown format '{name}'{did_you_mean(name, [*FORMATS, 'auto'])}")
    return cast(Format, import_module(f"{__name__}.{name}"))


def recognise(source: Path, format: str = "auto") -> tuple[str, str]:
    """Return the name of the format and why it is that one ('' where it was given).

    Raises InputError for an unknown name, for a source that no reader recognises, and for one that several do.
    """
    if format != "auto":
        reader(format)
        return format, ""
    found = {name: why for name in FORMATS if (why := reader(name).recognises(source))}
    if len(found) > 1:
        told = "; ".join(f"{name}: {why}" for name, why in found.items())
        raise InputError(f"{source}: looks like several formats ({told}); say which with --format")
    if not found:
        raise InputError(
            f"{source}: not recognised as any of {', '.join(FORMATS)}; name its --format if it is one of these, or "
            "point at the folder or file that holds the skeletons themselves"
        )
    return next(iter(found.items()))
