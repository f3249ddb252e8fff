"""Official weights: what a file may hold, which network it is, what its shapes say, and where each tensor lands."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from official_states import official_state
from tiny import BUSH15, make_method, same

from methods.data.layouts import NTU25
from methods.errors import InputError
from methods.official.load import Official, fill, fitting, recognise
from methods.official.reading import read_weights
from methods.official.variants import REPOSITORIES

FROM = {  # method -> repository
    "skeletonclr": "crossclr",
    "crossclr": "crossclr",
    "aimclr": "aimclr",
    "cmal": "cmcs",
    "cmcs": "cmcs",
    "skelemixclr": "skelemixclr",
    "skelemixclr_plus": "skelemixclr",
    "pstl": "pstl",
    "scdnet": "scdnet",
    "crrl": "crrl",
    "cmd": "cmd",
}
QUIRKS = {"crossclr": {"share_head": True}}
every_method = pytest.mark.parametrize("name", FROM)


def model_of(name: str, **how):
    return make_method(name, **QUIRKS.get(name, {}), **how)


@functools.cache
def _stored(name: str, **how) -> dict[str, torch.Tensor]:
    return official_state(name, model_of(name, **how).state_dict())


def stored(name: str, **how) -> dict[str, torch.Tensor]:
    return dict(_stored(name, **how))


def imported(name: str, theirs, layout=None) -> Official:
    return recognise(theirs, FROM[name], "w.pt", layout)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: OrderedDict((f"module.{name}", value) for name, value in state.items()),
        lambda state: {"state_dict": state, "epoch": 451, "optimizer": {"state": {0: {"step": 3}}, "param_groups": []}},
        lambda state: {"epoch": 60, "state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
)
def test_every_form_of_a_file_is_the_same_state(tmp_path: Path, wrap) -> None:
    state = {"a.weight": torch.arange(6.0).view(2, 3), "queue_ptr": torch.tensor([3])}
    torch.save(wrap(state), tmp_path / "w.pt")
    assert same(dict(read_weights([tmp_path / "w.pt"]).tensors), state)


def test_a_file_of_several_networks_names_them(tmp_path: Path) -> None:
    inner = {"gru.weight_hh_l0": torch.ones(3, 1)}
    moco = {"queue": torch.zeros(2, 4), "encoder_fc_q.gru.weight_hh_l0": torch.ones(3, 1)}
    options = argparse.Namespace(temperature=0.2, dataset="ntu")
    contrast = {"opt": options, "epoch": 59, "encoder": inner, "moco_model": moco, "optim_moco_model": {"state": {}}}
    torch.save(contrast, tmp_path / "contrast.pth")
    torch.save({"opt": options, "encoder": inner, "optim_enc": {"state": {}}}, tmp_path / "fuse.pth")
    found = read_weights([tmp_path / "contrast.pth", tmp_path / "fuse.pth"])
    # The contrastive run's encoder is a copy of its query encoder; the other file's is another network.
    assert set(found.tensors) == {f"moco_model.{name}" for name in moco} | {"encoder.gru.weight_hh_l0"}
    assert found.options["temperature"] == 0.2
    with pytest.raises(InputError, match="which a file before it has too"):
        read_weights([tmp_path / "fuse.pth", tmp_path / "fuse.pth"])


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_of_a_hostile_file_runs(tmp_path: Path) -> None:
    mark = tmp_path / "was_here"
    for name, write in (("new.pt", torch.save), ("old.pt", lambda o, p: p.write_bytes(pickle.dumps(o)))):
        write({"a": torch.zeros(1), "opt": Hostile(f"touch {mark}")}, tmp_path / name)
        with pytest.raises(InputError, match=name):
            read_weights([tmp_path / name])
    assert not mark.exists()


def test_every_unusable_file_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save({"config": {}, "model": {}, "format": 1}, tmp_path / "ours.pt")
    names = ("torn.pt", "list.pt", "empty.pt", "ours.pt", "missing.pt")
    with pytest.raises(InputError) as caught:
        read_weights([tmp_path / name for name in names])
    faults = caught.value.faults
    assert len(faults) == len(names) and all(name in fault for name, fault in zip(names, faults, strict=True))
    assert "needs no import" in faults[3] and "no weights" in faults[2]


# --- networks and sizes ---------------------------------------------------------------------------------------------


@every_method
def test_a_file_of_our_own_weights_comes_back(name: str) -> None:
    """Recognised by its names, its sizes read from its shapes, every tensor where it was."""
    model = model_of(name)
    found = imported(name, official_state(name, model.state_dict()))
    assert found.variant.method == name
    assert fitting(found.entries) != ()
    said = found.sizes.settings
    own = {field.name for field in dataclasses.fields(model.config)}
    encoder = next(iter(model.encoders.values())) if hasattr(model, "encoders") else model.encoder
    for setting, value in said.items():
        part, _, field = setting.rpartition(".")
        if part or setting in own:
            assert value == getattr(encoder.config if part else model.config, field), setting
    assert {"queue", "projection"} & own <= said.keys()
    fresh = model_of(name, seed=1)
    state, left = fill(found, fresh.state_dict(), "w.pt")
    assert left == ()
    fresh.load_state_dict(state)
    assert same(
        dict(fresh.state_dict()), {**model.state_dict(), **({"fused": torch.tensor(True)} if name == "crrl" else {})}
    )
    clips = torch.randn(2, 3, 16, 25, 2, generator=torch.Generator().manual_seed(3))
    model.eval(), fresh.eval()
    if name != "crrl":  # whose student is evaluated once there is one
        assert torch.equal(fresh.embed(clips), model.embed(clips))


def test_sizes_that_stand_in_the_weights_of_some() -> None:
    found = imported("scdnet", stored("scdnet", frames=20, persons=1)).sizes
    assert (found.settings["frames"], found.persons, found.channels, found.layout) == (20, 1, 3, NTU25)
    assert imported("cmd", stored("cmd", persons=1)).sizes.persons is not None
    assert imported("skeletonclr", stored("skeletonclr")).sizes.persons is None


def test_the_graph_says_which_partition_and_a_strange_one_is_told() -> None:
    theirs = stored("skeletonclr")
    assert imported("skeletonclr", theirs).sizes.settings["encoder.partition"] == "spatial"
    strange = {name: value + 0.5 if name.endswith(".A") else value for name, value in theirs.items()}
    found = imported("skeletonclr", strange).sizes
    assert "encoder.partition" not in found.settings and "graph" in found.notes[0]


def test_joints_that_no_layout_has_need_one() -> None:
    bush = stored("skeletonclr", layout=BUSH15)
    assert imported("skeletonclr", bush).sizes.notes  # 15 joints, but not those of the usual layout
    assert imported("skeletonclr", bush, BUSH15).sizes == dataclasses.replace(
        imported("skeletonclr", bush, BUSH15).sizes, layout=BUSH15, notes=()
    )
    with pytest.raises(InputError, match="has 25 joints, layout 'bush15' has 15"):
        imported("skeletonclr", stored("skeletonclr"), BUSH15)
    odd = {name: torch.zeros(9, 3 * 7) if "weight_ih_l0" in name else value for name, value in stored("crrl").items()}
    with pytest.raises(InputError, match="reads 21 numbers a frame"):
        imported("crrl", odd)


@every_method
def test_another_repository_is_named(name: str) -> None:
    theirs = stored(name)
    fits = fitting(theirs)
    assert FROM[name] in fits
    # Weights alone do not tell SkeletonCLR from AimCLR, which is trained otherwise.
    assert set(fits) == ({"crossclr", "aimclr"} if name in ("skeletonclr", "aimclr") else {FROM[name]})
    wrong = next(repository for repository in REPOSITORIES if repository not in fits)
    with pytest.raises(InputError, match=f"w.pt: .*--from {FROM[name]}"):
        recognise(theirs, wrong, "w.pt")


def test_what_fits_nobody_and_whom_nobody_knows() -> None:
    with pytest.raises(InputError, match="no other repository"):
        recognise({"backbone.conv1.weight": torch.zeros(1)}, "cmd", "w.pt")
    with pytest.raises(InputError, match="did you mean 'aimclr'"):
        recognise(stored("aimclr"), "aimclrr", "w.pt")


# --- partial files and faults ---------------------------------------------------------------------------------------


def test_an_encoder_alone_leaves_the_rest() -> None:
    whole = stored("pstl")
    model = model_of("pstl", seed=5)
    alone = {name: value for name, value in whole.items() if not name.startswith("head.")}
    state, left = fill(imported("pstl", alone), model.state_dict(), "w.pt")
    assert left == ("projector", "norm")
    before = model.state_dict()
    assert all(torch.equal(state[name], before[name]) for name in before if name.startswith("projector."))
    assert torch.equal(state["encoder.graph"], whole["A"])


def test_a_classifier_is_ignored_and_named() -> None:
    cases = {
        "aimclr": ("encoder_q.", "encoder_q.fc.weight"),
        "cmcs": ("online_backbone_", "online_projector_bone.weight"),
        "cmd": ("encoder_q", "encoder_q_bone.fc.weight"),
    }
    for name, (kept, head) in cases.items():
        theirs = {key: value for key, value in stored(name).items() if key.startswith(kept) and ".fc." not in key}
        found = imported(name, theirs | {head: torch.zeros(60, 16)})
        assert list(found.ignored.values()) == [(head,)]
        _, left = fill(found, model_of(name).state_dict(), "w.pt")
        assert not any(part.startswith("encoder") for part in left) and any(part.startswith("slow_") for part in left)
    downstream = {
        key.removeprefix("encoder_q."): value
        for key, value in stored("scdnet").items()
        if key.startswith("encoder_q.enc")
    }
    found = imported("scdnet", downstream | {"fc.weight": torch.zeros(60, 16)})
    assert list(found.ignored.values()) == [("encoder_q.fc.weight",)]


def test_each_run_of_crrl_is_told_from_the_others() -> None:
    whole = stored("crrl")
    contrast = {name: value for name, value in whole.items() if name.startswith("moco_model.")}
    student = {name: value for name, value in whole.items() if name.startswith("encoder.")}
    bare = {name.removeprefix("encoder."): value for name, value in student.items()}
    found = imported("crrl", contrast)
    assert (found.variant.probed, dict(found.variant.settings)) == ("encoder", {"fuse_start": 1.0})
    state, left = fill(found, model_of("crrl").state_dict(), "w.pt")
    assert left == ("student", "student_head", "decoder") and not state["fused"]
    for theirs in (student, bare, {f"encoder_fc.{name}": value for name, value in bare.items()}):
        found = imported("crrl", theirs)
        state, left = fill(found, model_of("crrl").state_dict(), "w.pt")
        assert found.variant.probed == "student" and state["fused"] and "encoder" in left


def test_every_hole_and_shape_is_told_at_once() -> None:
    theirs = stored("skeletonclr")
    del theirs["encoder_q.st_gcn_networks.1.tcn.0.weight"], theirs["encoder_k.fc.0.bias"]
    theirs["encoder_q.fc.0.weight"] = theirs["encoder_q.fc.0.weight"][:, :3]
    with pytest.raises(InputError) as caught:
        fill(imported("skeletonclr", theirs), model_of("skeletonclr").state_dict(), "w.pt")
    said = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 3 and all(fault.startswith("w.pt: ") for fault in caught.value.faults)
    for word in ("encoder.blocks.1.temporal.0.weight", "slow_projector.target.0.bias", "encoder_q.fc.0.weight"):
        assert word in said


def test_no_single_tensor_can_be_missing() -> None:
    theirs, wanted = stored("skeletonclr"), model_of("skeletonclr").state_dict()
    names = [name for name in theirs if not name.endswith("num_batches_tracked")]
    for gone in names[::3]:
        with pytest.raises(InputError, match=r"nothing official fills|none of LinguoLi"):
            fill(imported("skeletonclr", {n: t for n, t in theirs.items() if n != gone}), wanted, "w.pt")


def test_files_of_an_old_torch_count_no_batches() -> None:
    theirs = {name: value for name, value in stored("cmal").items() if not name.endswith("num_batches_tracked")}
    model = model_of("cmal")
    state, left = fill(imported("cmal", theirs), model.state_dict(), "w.pt")
    assert left == () and state.keys() == model.state_dict().keys()


def test_names_that_nobody_stored_are_told() -> None:
    theirs = stored("skeletonclr") | {"encoder_q.att.weight": torch.zeros(1), "extra": torch.zeros(1)}
    with pytest.raises(InputError, match=r"2 of its \d+ entries are not of .*encoder_q.att.weight, extra"):
        imported("skeletonclr", theirs)


TORN = ("skeletonclr", "cmcs", "crrl", "pstl")


@functools.cache
def _wanted(name: str) -> dict[str, torch.Tensor]:
    return model_of(name).state_dict()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(TORN), data=st.data())
def test_whatever_is_torn_off_a_file_only_input_errors_come(name: str, data: st.DataObject) -> None:
    """An intact state comes out, with every name, or each fault names the file."""
    theirs = stored(name)
    gone = data.draw(st.sets(st.sampled_from(sorted(theirs)), max_size=12))
    faults: tuple[str, ...] = ()
    try:
        state, _ = fill(imported(name, {key: theirs[key] for key in theirs if key not in gone}), _wanted(name), "w.pt")
    except InputError as error:
        faults = error.faults
    else:
        assert state.keys() == _wanted(name).keys()
    assert all("w.pt" in fault for fault in faults)
