"""Checkpoints: one file, written by rename, readable with ``weights_only=True``."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from methods.data.layouts import Layout
from methods.errors import InputError
from methods.training.branches import Branches
from methods.training.config import TrialConfig, from_dict
from methods.training.optim import plain_state
from methods.training.run import Run

FORMAT = 1
KEYS = ("layout", "fingerprint", "index", "seed", "epoch", "step", "low_spread", "optimiser", "extra")


def save(path: Path, run: Run, **extra: Any) -> None:
    """Write all of ``run`` that a later process needs to take the same next step; plain ``extra`` goes along."""
    state = {
        "format": FORMAT,
        "config": run.config.to_dict(),
        "layout": run.store.clips.layout.to_dict(),
        "persons": run.store.clips.data.shape[4],
        "channels": run.store.clips.data.shape[1],
        "fingerprint": run.store.clips.fingerprint,
        "index": index_digest(run),
        "seed": run.seed,
        "epoch": run.epoch,
        "step": run.step,
        "low_spread": run.low_spread,
        "model": run.model.state_dict(),
        "optimiser": plain_state(run.optimiser),
        "extra": extra,
    }
    write_atomically(path, state)


def index_digest(run: Run) -> str:
    """Which clips a run trains on: epochs and steps of other clips would not add up."""
    return digest_of(run.index.cpu().numpy())


def digest_of(index: NDArray[np.int64]) -> str:
    """The name of a set of clips (n,), in their order, in a checkpoint."""
    return hashlib.sha256(np.asarray(index).astype("<i8").tobytes()).hexdigest()[:16]


def current_umask() -> int:
    """What this process takes from the mode of new files; there is no way to read it but to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_atomically(path: Path, state: dict[str, Any]) -> None:
    """``torch.save`` under a temporary name beside ``path``, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as f:
            os.fchmod(f.fileno(), 0o666 & ~current_umask())  # mkstemp's own mode shuts the rest of the lab out
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The stored dict. Raises ``InputError`` when the file is missing, damaged, or no checkpoint of ours."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged or foreign file
        raise InputError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict) or "config" not in state or "model" not in state:
        raise InputError(f"{path}: not a skeltune checkpoint")
    if state.get("format") != FORMAT:
        raise InputError(f"{path}: checkpoint format {state.get('format')!r}, this version reads {FORMAT}")
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise InputError(f"{path}: the checkpoint lacks {', '.join(missing)}")
    return state


def restore(state: dict[str, Any], run: Run) -> None:
    """Put a stored state into ``run``. Raises ``InputError`` when it comes from another configuration or data."""
    if from_dict(state["config"]) != run.config:  # by value: a file of before a setting existed has its default
        raise InputError("the checkpoint holds another configuration")
    if state["fingerprint"] != run.store.clips.fingerprint:
        raise InputError("the checkpoint was made from other data (fingerprints differ)")
    if state["index"] != index_digest(run):
        raise InputError("the checkpoint was trained on other clips of this data (another split, or other subjects)")
    run.model.load_state_dict(state["model"])
    run.optimiser.load_state_dict(state["optimiser"])
    run.replayer = None  # its recordings hold the optimiser's former tensors
    run.epoch, run.step, run.low_spread, run.seed = state["epoch"], state["step"], state["low_spread"], state["seed"]


def load_model(state: dict[str, Any], device: torch.device | str = "cpu") -> tuple[TrialConfig, Branches]:
    """Rebuild the model of a stored state, for probing."""
    config = from_dict(state["config"])
    # Files of before methods that have M and C in their weights do not say them; theirs do not depend on either.
    persons, channels = state.get("persons", 2), state.get("channels", 3)
    layout = Layout.from_dict(state["layout"])
    model = Branches(config, layout, seed=state["seed"], persons=persons, channels=channels)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise InputError(f"the checkpoint's weights do not fit its configuration: {error}") from error
    return config, model.to(device)
