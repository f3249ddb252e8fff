"""Arrays of numbers in MATLAB's .mat files, read by scipy (the extra ``formats``); nothing in a file is run."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from methods.errors import InputError


def read_array(path: Path, name: str) -> NDArray[np.float64]:
    """The array of real numbers called ``name``.

    Raises InputError where the file has none or is damaged, and where scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise InputError(f"{path}: reading .mat files needs scipy: pip install 'skeltune[formats]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of in a damaged file, the checks below find
            found = loadmat(path, appendmat=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except NotImplementedError as error:  # version 7.3 is HDF5
        text = "is of version 7.3; write it again in MATLAB with save('file.mat', '-v7')"
        raise InputError(f"{path}: {text}") from error
    except Exception as error:  # scipy raises a dozen kinds for damaged files, some of them by chance
        raise InputError(f"{path}: damaged or no .mat file ({type(error).__name__})") from error
    if name not in found:
        told = ", ".join(repr(own[:40]) for own in found if not own.startswith("__")) or "nothing"
        raise InputError(f"{path}: no array '{name}' (it holds {told})")
    values = found[name]
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: '{name}' does not hold real numbers")
    return np.asarray(values, dtype=np.float64)
