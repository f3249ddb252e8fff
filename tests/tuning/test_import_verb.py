"""`skeltune import`: official files become checkpoints that `skeltune evaluate` probes, with the features they had."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.data.layouts import KINECT20, NTU25, layout_from_parts
from methods.data.synthetic import SyntheticConfig, write_synthetic
from methods.errors import InputError
from methods.official.variants import REPOSITORIES
from methods.training import checkpoint
from methods.training.branches import Branches
from methods.training.config import TrialConfig, published, with_settings
from tuning.cli import _run
from tuning.official.weights import Imported, import_official, write_imported

SMALL = {"encoder.width": 4, "encoder.dim": 16, "hidden": 16, "projection": 8, "queue": 12}


def small_branches(layout=NTU25) -> Branches:
    """SkeletonCLR as its code has it, small, its running statistics not at their start."""
    config = with_settings(published("skeletonclr", preset="paper_code"), SMALL)
    model = Branches(config, layout, seed=3)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for dropout
        model.train()(torch.randn(4, 3, 50, layout.num_joints, 2, generator=draw), draw, 0.0)
    return model


def as_their_file(model: Branches) -> OrderedDict[str, Tensor]:
    """The state of :func:`small_branches` by the names of CrosSCLR's code."""
    theirs = OrderedDict()
    for full, value in model.state_dict().items():
        name = full.removeprefix("branches.joint.")
        if name.startswith("queue."):
            theirs["queue" if name == "queue.keys" else "queue_ptr"] = value.T if value.dim() else value.reshape(1)
            continue
        side = "k" if name.startswith("slow_") else "q"
        part, inner = name.removeprefix("slow_").replace(".target.", ".").split(".", 1)
        for ours, there in (
            (r"^norm\.", "data_bn."),
            (r"^graph$", "A"),
            (r"^blocks\.(\d+)\.spatial\.", r"st_gcn_networks.\1.gcn."),
            (r"^blocks\.(\d+)\.temporal\.", r"st_gcn_networks.\1.tcn."),
            (r"^blocks\.(\d+)\.shortcut\.", r"st_gcn_networks.\1.residual."),
        ):
            inner = re.sub(ours, there, inner) if part == "encoder" else inner
        theirs[f"encoder_{side}.{inner if part == 'encoder' else f'fc.{inner}'}"] = value.clone()
    return theirs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("imported") / "small"
    actions = ("walk", "wave", "squat")
    write_synthetic(path, SyntheticConfig(clips_per_cell=1, subjects=4, cameras=2, actions=actions, max_frames=40))
    return path


@pytest.fixture
def official(tmp_path) -> Path:
    path = tmp_path / "epoch300_model.pt"
    torch.save(as_their_file(small_branches()), path)
    return path


def rebuilt(found: Imported) -> Branches:
    model = Branches(found.config, found.layout, seed=9, persons=found.persons or 2, channels=found.channels)
    model.load_state_dict(dict(found.state))
    return model.eval()


# --- against the official codes' numbers ----------------------------------------------------------------------------

# Case -> repository, what its weights do not say, and of each stream the fed view and the official feature in float32.
CASES = {
    "skeletonclr": ("crossclr", {}, "view_q", {"joint": "out32/eval/pooled_q"}),
    "aimclr": ("aimclr", {}, "view_q", {"joint": "stage1/out32/eval/pooled_q"}),
    "cmal": ("cmcs", {}, "view_1", {"joint": "out32/eval/online_backbone_v1"}),
    "cmcs": (
        "cmcs",
        {},
        "view_1",
        {stream: f"stage1/out32/eval/online_backbone_{stream}" for stream in ("joint", "motion", "bone")},
    ),
    "crossclr": (
        "crossclr",
        {},
        "view_q",
        {
            "joint": "stage1/out32/eval/encoder_q",
            "motion": "stage1/out32/eval/encoder_q_motion",
            "bone": "stage1/out32/eval/encoder_q_bone",
        },
    ),
    "skelemixclr": ("skelemixclr", {}, "view_q", {"joint": "out32/eval/encoder_q_view_q"}),
    "skelemixclr_plus": ("skelemixclr", {}, "view_q", {"joint": "out32/eval/encoder_q_view_q"}),
    "pstl": ("pstl", {}, "data", {"joint": "out32/eval/feature"}),
    "scdnet": ("scdnet", {"encoder.heads": "heads"}, "view_q", {"joint": ("out32/eval/vt", "out32/eval/vs")}),
    "cmd": ("cmd", {}, "view_q", {"joint": "out32/eval/feature", "motion": "out32/eval/feature_motion"}),
    "crrl": ("crrl", {}, "X", {"joint": "cml/out32/eval/tap"}),
}


def their_state(numbers, case: str) -> dict[str, Tensor]:
    """The whole official state; networks that are files of their own are named like in such files."""
    separate = case in ("pstl", "crrl")
    names = {key: key.removeprefix("state/") for key in numbers.files if key.startswith("state/")}
    return {name.replace("/", ".", 1) if separate else name: torch.tensor(numbers[key]) for key, name in names.items()}


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_features_are_the_official_ones(case: str, reference: Path, tmp_path: Path) -> None:
    repository, unsaid, fed, features = CASES[case]
    if not (reference / f"{case}.npz").is_file():
        pytest.skip(f"{reference} has no {case}.npz")
    with np.load(reference / f"{case}.npz", allow_pickle=False) as numbers:
        state = their_state(numbers, case)
        if case == "crrl":  # the contrastive run's numbers: its file alone
            state = {name: value for name, value in state.items() if name.startswith("moco.")}
        said = {ours: numbers[f"config/{theirs}"].item() for ours, theirs in unsaid.items()}
        clips = torch.tensor(numbers[f"input/{fed}"])
        wanted = {
            stream: np.concatenate([numbers[key] for key in ([keys] if isinstance(keys, str) else keys)], 1)
            for stream, keys in features.items()
        }
    torch.save(state, tmp_path / "their.pt")
    found = import_official(tmp_path / "their.pt", repository, settings=said)
    model = rebuilt(found)
    if case == "crrl":
        clips = clips.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)[..., None]
    with torch.no_grad():
        ours = model.embed(clips)
        if "encoder_q" in str(features):  # official numbers behind the head
            ours = behind_the_head(model, ours)
    for stream, feature in wanted.items():
        scale = float(np.abs(feature).max())
        np.testing.assert_allclose(ours[stream].numpy(), feature, rtol=0, atol=1e-6 * max(1.0, scale), err_msg=stream)


def behind_the_head(model: Branches, features: dict[str, Tensor]) -> dict[str, Tensor]:
    branch = next(iter(model.branches.values()))
    if hasattr(branch, "projectors"):
        return {stream: branch._projected(z, stream, branch.projectors) for stream, z in features.items()}
    return {stream: branch.projector(z) for stream, z in features.items()}


# --- the verb -------------------------------------------------------------------------------------------------------


def test_an_imported_file_has_its_features_and_can_be_evaluated(official, data, tmp_path, capsys) -> None:
    out = tmp_path / "ours.pt"
    assert _run(["import", str(official), "--from", "crossclr", "--out", str(out), "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert "SkeletonCLR, as skeletonclr on joint" in said and "encoder.width 4" in said and "queue 12" in said
    assert "preset paper_code" in said and "temperature 0.07" in said and "frames 50" in said
    assert "--stream" in said and f"skeltune evaluate {out} --data {data}" in said
    config, model = checkpoint.load_model(checkpoint.read(out))
    assert isinstance(config, TrialConfig) and config.method == "skeletonclr"
    clips = torch.randn(3, 3, 50, 25, 2)
    with torch.no_grad():
        assert torch.equal(model.eval().embed(clips)["joint"], small_branches().eval().embed(clips)["joint"])
    assert _run(["evaluate", str(out), "--data", str(data), "--protocol", "knn"]) == 0
    assert "skeletonclr" in capsys.readouterr().out


def test_without_out_it_lies_beside_the_file_and_never_over_it(official, capsys) -> None:
    assert _run(["import", str(official), "--from", "crossclr", "--stream", "motion"]) == 0
    beside = official.with_name("epoch300_model.skeltune.pt")
    assert checkpoint.load_model(checkpoint.read(beside))[0].streams.use == ("motion",)
    assert _run(["import", str(official), "--from", "crossclr", "--out", str(official)]) == 2
    assert "is the official checkpoint itself" in capsys.readouterr().err
    assert _run(["import", str(beside), "--from", "crossclr"]) == 2
    assert "needs no import" in capsys.readouterr().err


def refused(capsys, arguments, *words: str) -> str:
    assert _run([str(word) for word in arguments]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said, said
    return said


def test_what_a_user_may_get_wrong(official, data, tmp_path, capsys) -> None:
    one = ["import", official, "--from"]
    refused(capsys, [*one, "cmd"], str(official), "it fits --from aimclr or --from crossclr")
    refused(capsys, [*one, "croslr"], "did you mean 'crossclr'")
    refused(capsys, [*one, "crossclr", "--stream", "bones"], "did you mean 'bone'")
    refused(capsys, [*one, "crossclr", "--set", "temprature=0.1"], "did you mean 'temperature'")
    refused(capsys, [*one, "crossclr", "--set", "temperature"], "NAME=VALUE")
    refused(capsys, [*one, "crossclr", "--set", "temperature=warm"], "wrong kind")
    refused(capsys, [*one, "crossclr", "--set", "temperature=-1"], "temperature must be positive")
    refused(capsys, [*one, "crossclr", "--set", "encoder.dim=32"], "official 'encoder_q.", "shape")
    refused(capsys, [*one, "crossclr", "--layout", "kinect20"], "has 25 joints, layout 'kinect20' has 20")
    refused(capsys, ["import", official, official, "--from", "crossclr"], "one file a run")
    refused(capsys, ["import", tmp_path / "none.pt", "--from", "crossclr"], "none.pt: no such checkpoint")
    refused(capsys, [*one, "crossclr", "--data", tmp_path / "nothing"], "nothing")
    refused(capsys, [*one, "crossclr", "--out", official / "x.pt"], "cannot be written")
    assert not list(tmp_path.glob("*.skeltune.pt"))


def test_other_joints_come_by_their_layout(tmp_path) -> None:
    seven = layout_from_parts("seven", tuple(f"joint{i}" for i in range(7)), (-1, 0, 1, 1, 1, 0, 0))
    torch.save(as_their_file(small_branches(seven)), tmp_path / "seven.pt")
    with pytest.raises(InputError, match="no known layout has 7 joints"):
        import_official(tmp_path / "seven.pt", "crossclr")
    assert import_official(tmp_path / "seven.pt", "crossclr", layout=seven).layout == seven
    torch.save(as_their_file(small_branches(KINECT20)), tmp_path / "twenty.pt")
    found = import_official(tmp_path / "twenty.pt", "crossclr")
    assert found.layout == KINECT20 and found.config.encoder.partition == "spatial_degenerate"


def test_settings_that_weights_do_not_say_come_from_the_user(official) -> None:
    found = import_official(official, "crossclr", settings={"temperature": 0.2, "frames": 64})
    assert (found.config.params.temperature, found.config.frames) == (0.2, 64)
    assert any("as you say: temperature 0.2, frames 64" in note for note in found.notes)
    assert import_official(official, "crossclr").config.params.temperature == 0.07


def test_an_encoder_alone_is_imported_and_told(tmp_path) -> None:
    whole = as_their_file(small_branches())
    linear = {name: value for name, value in whole.items() if name.startswith("encoder_q.") and ".fc." not in name}
    torch.save(linear | {"encoder_q.fc.weight": torch.zeros(60, 16)}, tmp_path / "linear.pt")
    found = import_official(tmp_path / "linear.pt", "aimclr")
    told = "\n".join(found.notes)
    assert "left at their initialisation: projector, slow_encoder, slow_projector, queue" in told
    assert "ignored: encoder_q.fc.weight: a linear head" in told
    write_imported(tmp_path / "ours.pt", found, [tmp_path / "linear.pt"])
    clips = torch.randn(2, 3, 50, 25, 2)
    with torch.no_grad():
        assert torch.equal(rebuilt(found).embed(clips)["joint"], small_branches().eval().embed(clips)["joint"])


def test_the_help_names_every_repository(capsys) -> None:
    for verb in ("import", "export"):
        assert _run([verb, "--help"]) == 0
        said = capsys.readouterr().out
        assert all(name in said for name in REPOSITORIES)
