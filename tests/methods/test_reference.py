"""Every method equal to its official code, for every case in the folder that SKELTUNE_REFERENCE names.

A case `<name>.npz` is reproduced by `reference_cases/<name>.py`: its `compute(ref)` returns our value under every
official key, all in float64; `LEFT_OUT` says which keys are not reproduced, and why. Nothing is missed by accident: a
key that is neither computed nor left out fails. All tolerances stand in the one table below.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_helpers import ROOT, Reference

CASES = Path(__file__).parent / "reference_cases"
OTHERS = ("augment", "graph", "knn", "preprocess")  # files that are no method: test_parity.py and the rooms' own tests

# (case:key pattern, rtol, atol). The first that fits holds. README of the reference, sections 1 and 3.
TOLERANCES = (
    ("*:*gradnorm/*", 1e-7, 1e-9),  # of biases before a batch norm the true gradient is 0, the official one rounding
    ("*:*grad/*", 1e-7, 1e-10),
    # Adam's first step is as long for a gradient of pure rounding, which a bias before a batch norm has, as for any.
    ("pstl*:*after/*.tcn.2.bias", 1e-7, 1e-5),
    ("pstl*:*after*", 1e-7, 1e-7),  # Adam's first step amplifies rounding where the true gradient is 0
    ("*:*after*", 1e-8, 1e-11),
    ("*:*step2/*", 1e-7, 1e-10),  # the states are stiff on purpose: rounding of the first step grows in the second
    ("*:*", 1e-8, 1e-11),
)
NOT_COMPARED = {
    "config/*": "the configuration itself",
    "notes/*": "words",
    "*input/*": "what is fed",
    "*state/*": "what is loaded",
    "*out32/*": "the float32 twin of what is compared in float64",
    "*step232/*": "the float32 twin of what is compared in float64",
    "*gradnorm/*names": "the order of the norms",
    "*afternorm/*names": "the order of the norms",
}


def cases() -> list[str]:
    found = sorted(path.stem for path in ROOT.glob("*.npz")) if ROOT.is_dir() else []
    return [name for name in found if name not in OTHERS]


def case_of(name: str):
    """A file may be called `<case>` or `<case>_<anything>` (another seed of the same case)."""
    known = sorted((path.stem for path in CASES.glob("*.py")), key=len, reverse=True)
    stem = next((stem for stem in known if name == stem or name.startswith(stem + "_")), None)
    assert stem is not None, f"{name}.npz: no case reproduces it; known: {', '.join(known)}"
    if str(CASES) not in sys.path:
        sys.path.append(str(CASES))  # for the steps that cases share
    # By its file: a case called `cmd` would otherwise be Python's own module of that name.
    spec = importlib.util.spec_from_file_location(f"reference_case_{stem}", CASES / f"{stem}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.shared
@pytest.mark.parametrize("name", cases() or [None])
def test_equal_to_the_official_code(name):
    if name is None:
        pytest.skip(f"no reference numbers at {ROOT} (set SKELTUNE_REFERENCE)")
    case, ref = case_of(name), Reference(ROOT / f"{name}.npz")
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    ours = case.compute(ref)
    torch.set_num_threads(threads)
    left_out = NOT_COMPARED | case.LEFT_OUT
    wanted = [key for key in ref.numbers if not any(fnmatch.fnmatchcase(key, pattern) for pattern in left_out)]
    assert wanted
    missing = [key for key in wanted if key not in ours]
    assert not missing, f"{len(missing)} keys are neither computed nor left out: {missing[:12]}"
    strangers = [key for key in ours if key not in ref.numbers]
    assert not strangers, f"computed, but the reference has no such key: {strangers[:12]}"
    faults = [fault for key in wanted if (fault := compare(name, key, ours[key], ref[key]))]
    assert not faults, f"{len(faults)} of {len(wanted)} differ:\n" + "\n".join(faults[:25])


def compare(name: str, key: str, ours, theirs: np.ndarray) -> str | None:
    """What is different, in a line; None where nothing is."""
    pattern, rtol, atol = next(t for t in TOLERANCES if fnmatch.fnmatchcase(f"{name}:{key}", t[0]))
    value = ours.detach().numpy() if torch.is_tensor(ours) else np.asarray(ours)
    if value.shape != theirs.shape:
        return f"{key}: shape {value.shape}, theirs {theirs.shape}"
    if not np.allclose(value, theirs, rtol=rtol, atol=atol, equal_nan=False):
        worst = float(np.abs(value.astype(float) - theirs).max())
        return f"{key}: off by {worst:.3g} (largest of theirs {float(np.abs(theirs).max()):.3g}, {pattern})"
    return None


def test_the_comparison_can_fail():
    theirs = np.ones(3)
    assert compare("x", "out/q", torch.ones(3), theirs) is None
    assert "off by" in compare("x", "out/q", torch.ones(3) + 1e-6, theirs)
    assert "shape" in compare("x", "out/q", torch.ones(4), theirs)
    assert compare("pstl", "after/w", torch.ones(3, dtype=torch.float64) + 5e-8, theirs) is None
    assert "off by" in compare("x", "after/w", torch.ones(3, dtype=torch.float64) + 5e-8, theirs)
