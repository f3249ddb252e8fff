"""``methods`` alone pretrains and probes on a machine that has nothing but torch and numpy."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SCRIPT = '''
import sys

class Bare:
    """Finds what such a machine has, and nothing else: neither by import nor by a look whether it is there."""

    asked = set()

    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and not top.startswith("_sysconfigdata"):  # a part of the standard library, unlisted
            self.asked.add(top)
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)

ALLOWED = set(sys.argv[2].split(","))
sys.meta_path[:] = [Bare(list(sys.meta_path))]
strange = {n.partition(".")[0] for n in sys.modules} - ALLOWED
for name in [n for n in sys.modules if n.partition(".")[0] in strange and not n.startswith("__")]:
    del sys.modules[name]
try:
    import ray
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the hook does not block")

import json
import pathlib
from dataclasses import replace

import torch

from methods.data import fixed_length, make_split
from methods.data.synthetic import SyntheticConfig, write_synthetic
from methods.recipe import OptimConfig
from methods.registry import get_method, list_methods
from methods.training import checkpoint, evaluate
from methods.training.clips import Clips
from methods.training.config import StreamsConfig, TrialConfig
from methods.training.pretrain import pretrain, start
from methods.training.probe import ProbeConfig

torch.set_num_threads(1)
folder = pathlib.Path(sys.argv[1])
some = SyntheticConfig(clips_per_cell=1, subjects=5, cameras=2, min_frames=20, max_frames=30, actions=("wave", "kick"))
dataset = write_synthetic(folder / "data", some)
split = make_split(dataset, "xsub", "auto", seed=0)
data = fixed_length(dataset, 16, cache=folder / "cache")
clips = Clips(data, dataset.labels, dataset.subjects, dataset.layout, len(some.actions), dataset.fingerprint)
found = {"clips": len(clips), "asked": []}
for name in list_methods():
    entry = get_method(name)
    known = entry.config.__dataclass_fields__
    own = {k: v for k, v in {"queue": 24, "hidden": 16, "projection": 8}.items() if k in known}
    small = {"width": 4, "dim": 16, "depth": 3, "hidden": 8, "layers": 1, "base": 4, "d_model": 8, "heads": 2}
    kind = entry.recipe.encoder.__dataclass_fields__
    encoder = replace(entry.recipe.encoder, **{k: v for k, v in small.items() if k in kind})
    config = TrialConfig(
        name, entry.config(**own), 2, frames=16, encoder=encoder, optim=OptimConfig(batch=4, lr=0.02),
        streams=StreamsConfig(entry.recipe.use[:max(1, entry.cls.least_streams)]),
    )
    run = start(config, clips, evaluate.pretraining_index(split), seed=0)
    losses = [epoch.loss for epoch in pretrain(run)]
    checkpoint.save(folder / "x.pt", run)
    _, model = checkpoint.load_model(checkpoint.read(folder / "x.pt"))
    results = [evaluate.validate(model, run.store, split, ProbeConfig(kind=kind)) for kind in ("linear", "knn")]
    found[name] = {"losses": losses, "top1": [r.top1 for r in results], "clips": [len(r.clips) for r in results]}
found["asked"] = sorted(Bare.asked)
print(json.dumps(found))
'''


def torch_needs() -> set[str]:
    """The import names of torch's own dependencies, and theirs: those without an extra."""
    tops: dict[str, set[str]] = {}
    for top, dists in importlib.metadata.packages_distributions().items():
        for dist in dists:
            tops.setdefault(re.sub(r"[-_.]+", "-", dist).lower(), set()).add(top)
    waiting, found = ["torch"], set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        plain = [need for need in needs if "extra ==" not in need]
        waiting += [re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", need, maxsplit=1)[0]).lower() for need in plain]
    return {top for name in found for top in tops.get(name, ())}


def test_pretrains_and_probes_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    allowed = {*sys.stdlib_module_names, *torch_needs(), "torch", "numpy", "methods", "__main__", "site"}
    forbidden = {"ray", "optuna", "yaml", "pydantic", "scipy", "matplotlib", "typer", "rich", "tensorboard", "tuning"}
    assert not allowed & forbidden
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), ",".join(sorted(allowed))],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "ray" in found.pop("asked")
    count = found.pop("clips")
    assert {"skeletonclr", "skeletonbyol"} <= set(found)
    for name, result in found.items():
        assert len(result["losses"]) == 2 and all(-4 < loss < 1000 for loss in result["losses"]), name
        assert result["clips"][0] == result["clips"][1] > 0
        assert result["clips"][0] < count
        assert all(0 <= top1 <= 1 for top1 in result["top1"])
