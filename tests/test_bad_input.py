"""The table of what users get wrong: one clear line a fault, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from methods.data import DatasetWriter
from methods.data.layouts import KINECT20
from methods.data.synthetic import SyntheticConfig, write_synthetic
from tuning.cli import _run

SPACE = """format: 1
name: tiny
data: {set: DATA, split: xsub, frames: 8}
search:
  method:
    skeletonbyol: {momentum: {near_one: [0.9, 0.99]}, hidden: 8, projection: 8}
  encoder: {width: 2, dim: 8, depth: 3}
  optim: {batch: 8}
schedule: {max: 4}
budget: {trials: 2, per_trial: {cpu: 1, gpu: 0}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "small"
    actions = ("walk", "wave", "squat")
    write_synthetic(path, SyntheticConfig(clips_per_cell=1, subjects=4, cameras=2, actions=actions, max_frames=40))
    return path


@pytest.fixture
def space(data, tmp_path):
    def write(*changes: tuple[str, str]) -> Path:
        text = SPACE.replace("DATA", str(data))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return path

    return write


def refuse(capsys, arguments, *words, code=2):
    """Run, and hold every promise about an error at once; returns what was said."""
    assert _run([str(a) for a in arguments]) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err, said.err
    return said.err


# --- what stands in the file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("momentum:", "momentun:"), ["space.yaml:6:20: unknown parameter 'momentun'", "did you mean 'momentum'?"]),
        (("skeletonbyol", "skeletonbjol"), ["unknown method 'skeletonbjol'", "did you mean 'skeletonbyol'?"]),
        (("{near_one: [0.9, 0.99]}", "[0.9, 0.99]"), ["space.yaml:6:", "uniform", "choice"]),
        (("{near_one: [0.9, 0.99]}", "{near_one: [0.99, 0.9]}"), ["space.yaml:6:"]),
        (("{near_one: [0.9, 0.99]}", "{near_one: [0.9, 1.5]}"), ["space.yaml:6:"]),
        (("{near_one: [0.9, 0.99]}", "1.5"), ["space.yaml:6:", "momentum"]),
        (("max: 4", "max: -1"), ["space.yaml:9:"]),
        (("max: 4", "max: 4, asha: {min: 9}"), ["space.yaml:9:", "above"]),
        (("trials: 2", "trials: 0"), ["space.yaml:10:"]),
        (("format: 1", "format: 7"), ["space.yaml:1:"]),
        (("name: tiny", "name: ../../etc"), ["space.yaml:2:"]),
        (("data:", "data: ["), ["space.yaml:4:1:", "flow sequence"]),
        (("format: 1", "format: 1\nformat: 1"), ["space.yaml:2:", "format"]),
        (("format: 1", "format: !!python/object:os.system x"), ["space.yaml:1:"]),
        (("max: 4", "max: 4, asha: {rule: stop, grow: true}"), ["space.yaml:9:", "needs `rule: promote`"]),
    ],
)
@pytest.mark.parametrize("verb", ["check", "search"])
def test_spaces(capsys, space, tmp_path, verb, change, words):
    extra = ["--runs", tmp_path / "runs"] if verb == "search" else []
    refuse(capsys, [verb, space(change), *extra], *words)
    assert not (tmp_path / "runs").exists()


def test_all_faults_of_a_file_at_once(capsys, space):
    path = space(("hidden", "hiden"), ("width", "widht"), ("batch", "bach"))
    said = refuse(capsys, ["check", path], "'hiden'", "'widht'", "'bach'")
    assert said.count("did you mean") == 3


# --- files and folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["check", "search", "explain", "sample", "train"])
def test_no_such_file(capsys, verb, tmp_path):
    refuse(capsys, [verb, tmp_path / "nowhere.yaml"], "nowhere.yaml")


def test_not_a_file_or_not_text(capsys, tmp_path):
    refuse(capsys, ["check", tmp_path], str(tmp_path))
    (tmp_path / "empty.yaml").write_text("")
    refuse(capsys, ["check", tmp_path / "empty.yaml"], "empty.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    refuse(capsys, ["check", tmp_path / "binary.yaml"], "binary.yaml")


def test_a_shipped_space_by_a_wrong_name(capsys):
    refuse(capsys, ["search", "quickstrat"], "did you mean 'quickstart'?")


def test_wrong_dataset_paths(capsys, space, data, tmp_path):
    refuse(capsys, ["check", space((str(data), "/no/such/data"))], "/no/such/data")
    empty = tmp_path / "empty"
    empty.mkdir()
    refuse(capsys, ["check", space((str(data), str(empty)))], str(empty), "not a skeltune dataset")
    refuse(capsys, ["data", "inspect", empty], "not a skeltune dataset")
    refuse(capsys, ["data", "convert", tmp_path / "no.npz", tmp_path / "out"], "no.npz")
    assert not (tmp_path / "out").exists()


def test_a_damaged_dataset(capsys, space, data, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    frames = broken / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:-100])
    refuse(capsys, ["check", space((str(data), str(broken)))], "broken")


def unfinished(tmp_path, labels=(0, 1), classes=("a", "b"), frames=None):
    writer = DatasetWriter(tmp_path / "d", KINECT20, classes, persons=1)
    for label in labels:
        writer.append(np.ones((5, 1, 20, 3), np.float32) if frames is None else frames, label, (1,))
    return writer


def ragged(tmp_path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "sequences": rng.normal(size=(40, 1, 20, 3)).astype(np.float32),
        "lengths": np.full(8, 5, np.int32),
        "offsets": np.arange(8) * 5,
        "labels": np.arange(8) % 2,
        "subjects": np.arange(8) // 2,
        "names": np.array([f"c{i}" for i in range(8)]),
        "class_names": np.array(["a", "b"]),
        "joint_names": np.array(KINECT20.joints),
        "parents": np.array(KINECT20.parents),
        "xsub_train": np.arange(8) < 4,
    }
    arrays |= {key: value for key, value in changes.items() if value is not None}
    for key in [key for key, value in changes.items() if value is None]:
        del arrays[key]
    path = tmp_path / "source.npz"
    np.savez(path, **arrays)
    return path


def nan_frames():
    frames = np.ones((40, 1, 20, 3), np.float32)
    frames[7, 0, 3, 1] = np.nan
    return frames


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": np.arange(8)}, ["c7: label outside the table: label 7 of 2 classes"]),
        ({"labels": np.full(8, -1)}, ["label -1"]),
        ({"sequences": nan_frames()}, ["c1: NaN or infinite coordinates: frame 2"]),
        ({"sequences": None}, ["not recognised as any of", "ragged_npz"]),
        ({"lengths": np.full(8, 50, np.int32)}, ["c7: ends outside the frames", "50 of 40"]),
        ({"lengths": np.zeros(8, np.int32)}, ["c0: no frames"]),
        ({"parents": np.zeros(20, int)}, ["root"]),
        ({"names": np.array([{"a": 1}] * 8, dtype=object)}, ["names"]),
    ],
)
def test_converting_what_is_wrong(capsys, tmp_path, changes, words):
    source = ragged(tmp_path, **changes)
    refuse(capsys, ["data", "convert", source, tmp_path / "out", "--strict"], *words)
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.npz"]  # nothing half-written is left


def test_converting_over_something_else(capsys, tmp_path):
    source = ragged(tmp_path)
    assert _run(["data", "convert", str(source), str(tmp_path / "out")]) == 0
    before = sorted(p.name for p in (tmp_path / "out").iterdir())
    refuse(capsys, ["data", "convert", source, tmp_path / "out"], "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == before
    refuse(capsys, ["data", "convert", source, tmp_path / "b", "--format", "npy"], "npy")


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("split: xsub", "split: xsup"), ["xsup", "did you mean 'xsub'?"]),
        (("split: xsub", "split: {test_subjects: [99]}"), ["99"]),
        (("split: xsub", "split: xsub, validate_on: {held_out_subjects: [99]}"), ["99"]),
        (("split: xsub", "split: {test_subjects: [1, 2, 3]}, validate_on: cv"), ["subject"]),
        (("frames: 8", "frames: 8, preprocess: [centre, resise]"), ["resise", "did you mean 'resize'?"]),
        (("batch: 8", "batch: 4096"), ["4096", "clips"]),
    ],
)
def test_splits_and_sizes(capsys, space, tmp_path, change, words):
    refuse(capsys, ["search", space(change), "--runs", tmp_path / "runs"], *words)
    assert not (tmp_path / "runs").exists()


def test_a_class_missing_from_a_split(capsys, space, data, tmp_path):
    """Class `c` is done by a test subject only: it can be neither learnt nor validated."""
    writer = DatasetWriter(tmp_path / "d", KINECT20, ("a", "b", "c"), persons=1)
    rng = np.random.default_rng(0)
    for subject in range(4):
        for label in (0, 1) if subject < 3 else (0, 1, 2):
            for _ in range(6):
                writer.append(rng.normal(size=(9, 1, 20, 3)).astype(np.float32), label, (subject,))
    writer.finish(splits={"xsub": np.repeat([1, 1, 1, 2], [12, 12, 12, 18]).astype(np.int8)})
    said = refuse(capsys, ["check", space((str(data), str(tmp_path / "d")))], "c")
    assert "class" in said


# --- nothing to search, nothing to search with ------------------------------------------------------------------------


def test_a_space_with_no_free_parameter(capsys, space, tmp_path):
    path = space(("{near_one: [0.9, 0.99]}", "0.99"))
    refuse(capsys, ["search", path, "--runs", tmp_path / "runs"], "nothing to search", "skeltune train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("cpu: 1, gpu: 0", "cpu: 4096, gpu: 0"), "budget.per_trial.cpu is 4096"),
        (("cpu: 1, gpu: 0", "cpu: 1, gpu: 512"), "budget.per_trial.gpu is 512"),
        (("trials: 2", "trials: 2, parallel: 9999"), "budget.parallel is 9999"),
    ],
)
def test_impossible_resources(capsys, space, tmp_path, change, words):
    refuse(capsys, ["search", space(change), "--runs", tmp_path / "runs"], words)


def test_no_such_engine_or_cluster(capsys, space, tmp_path):
    refuse(capsys, ["search", space(), "--runs", tmp_path / "runs", "--engine", "magic"], "magic", "stock")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_output_folder(capsys, space, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir(mode=0o500)
    refuse(capsys, ["search", space(), "--runs", runs], str(runs))


def test_an_output_folder_that_is_a_file(capsys, space, tmp_path):
    (tmp_path / "runs").write_text("in the way")
    refuse(capsys, ["search", space(), "--runs", tmp_path / "runs"], "cannot be written")
    assert (tmp_path / "runs").read_text() == "in the way"


def test_an_existing_run_of_another_space(capsys, space, tmp_path):
    from tuning.plan import open_run, plan_search

    open_run(plan_search(space(), tmp_path / "runs"), "skeltune").close()
    before = (tmp_path / "runs" / "tiny" / "space.yaml").read_bytes()
    other = space(("0.99]", "0.98]"))
    refuse(capsys, ["search", other, "--runs", tmp_path / "runs"], "holds another search space", "another name")
    assert (tmp_path / "runs" / "tiny" / "space.yaml").read_bytes() == before


def test_a_search_that_is_already_running(capsys, space, tmp_path):
    from tuning.plan import open_run, plan_search

    with open_run(plan_search(space(), tmp_path / "runs"), "skeltune"):
        refuse(capsys, ["search", space(), "--runs", tmp_path / "runs"], "another process is running this search")


# --- train and evaluate -----------------------------------------------------------------------------------------------


def test_training_a_space(capsys, space, tmp_path):
    refuse(capsys, ["train", space(), "--out", tmp_path / "o"], "still free", "momentum")
    assert not (tmp_path / "o").exists()


def test_training_with_a_stream_that_is_not_used(capsys, space, tmp_path):
    fixed = space(("{near_one: [0.9, 0.99]}", "0.99"))
    refuse(capsys, ["train", fixed, "--stream", "bone", "--out", tmp_path / "o"], "bone", "joint")
    refuse(capsys, ["train", fixed, "--device", "cuda:77", "--out", tmp_path / "o"], "cuda:77")


def test_evaluating_what_is_no_checkpoint(capsys, space, tmp_path):
    fixed = space(("{near_one: [0.9, 0.99]}", "0.99"))
    refuse(capsys, ["evaluate", tmp_path / "no.pt", "--config", fixed], "no.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    refuse(capsys, ["evaluate", tmp_path / "junk.pt", "--config", fixed], "junk.pt")
    refuse(capsys, ["evaluate", tmp_path / "junk.pt", "--config", fixed, "--on", "train"], "train")


def test_status_of_nothing(capsys, tmp_path):
    refuse(capsys, ["status", "nothing", "--runs", tmp_path], "nothing")
    refuse(capsys, ["leaderboard", "nothing", "--runs", tmp_path], "nothing")
    refuse(capsys, ["methods", "skeletonclear"], "did you mean 'skeletonclr'?")


@pytest.mark.parametrize("arguments", [["serch"], ["search", "--rums", "x"], ["sample", "-n", "0"], ["evaluate"]])
def test_wrong_command_lines(capsys, arguments):
    assert _run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
