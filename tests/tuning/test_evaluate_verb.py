"""`skeltune evaluate`: what it prints, what it refuses, and that every number says how it was made."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from methods.data import DatasetWriter, open_dataset
from methods.data.layouts import KINECT20, NTU25
from methods.data.synthetic import SyntheticConfig, write_synthetic
from methods.training import checkpoint
from methods.training.protocols import PROTOCOLS, FinetuneProtocol, Training
from tuning import evaluation
from tuning.cli import _run
from tuning.session import Session, Task
from tuning.train import load_config, train

FILE = """format: 1
name: tiny
seed: 3
data: {set: DATA, split: xsub, validate_on: {held_out_subjects: [1]}, frames: 8}
search:
  method:
    skeletonbyol: {momentum: 0.98, hidden: 8, projection: 8}
  encoder: {width: 2, dim: 8, depth: 3, dropout: 0.0, init: torch}
  optim: {name: adam, lr: 0.003, batch: 8}
  streams: {use: [joint, motion]}
probe: {l2: 0.01}
schedule: {max: 1}
"""
SMALL = SyntheticConfig(clips_per_cell=1, subjects=6, cameras=2, actions=("walk", "wave", "squat"), max_frames=40)
TUNED = FinetuneProtocol(
    name="tuned", doc="for tests", training=Training(epochs=2, batch=8, lr=0.01, optimiser="adam"), draws=2, labels=0.5
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Data, a configuration and its trained weights."""
    path = tmp_path_factory.mktemp("evaluate")
    write_synthetic(path / "data", SMALL)
    (path / "c.yaml").write_text(FILE.replace("DATA", str(path / "data")))
    train(path / "c.yaml", out=path / "t", say=lambda _: None)
    return path


@pytest.fixture(autouse=True)
def _one_more_protocol(monkeypatch) -> None:
    monkeypatch.setattr("methods.training.protocols.PROTOCOLS", {**PROTOCOLS, "tuned": TUNED})


def run(capsys, folder: Path, *arguments: object, config: bool = True, code: int = 0) -> str:
    """Run the verb on the trained weights; what it printed, or what it complained about."""
    words = ["evaluate", folder / "t" / "checkpoint.pt"]
    words += ["--config", folder / "c.yaml"] if config else []
    assert _run([str(word) for word in (*words, *arguments)]) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err if code else said.out


def table(text: str) -> list[dict[str, str]]:
    """The rows of the printed table, by column."""
    lines = text.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("protocol "))
    rows = []
    for line in lines[begin + 1 :]:
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) < 6:
            break
        rows.append(dict(zip(re.split(r"\s{2,}", lines[begin].strip()), cells, strict=False)))
    return rows


# --- what it finds --------------------------------------------------------------------------------------------------


def test_the_files_probe_gives_the_trainings_own_number(capsys, folder) -> None:
    result = json.loads((folder / "t" / "result.json").read_text())
    text = run(capsys, folder)
    assert f"split xsub: test, {result['clips']} clips" in text
    rows = {row["stream"]: row for row in table(text)}
    assert list(rows) == ["joint", "motion", "fused"]
    assert rows["fused"]["top1"] == f"{100 * result['top1']:.2f}"
    assert rows["joint"]["top1"] == f"{100 * result['streams']['joint'][0]:.2f}"
    told = {(row["protocol"], row["draws"], row["which epoch"]) for row in rows.values()}
    assert told == {("probe", "1", "no epochs")}
    assert rows["fused"]["weights"] == "equal (0.50, 0.50)"
    found = json.loads(run(capsys, folder, "--json"))
    assert found["top1"] == pytest.approx(result["top1"], abs=1e-9)
    assert found["streams"]["motion"] == pytest.approx(result["streams"]["motion"])
    assert found["fuse"] == pytest.approx(result["fuse"]) and found["clips"] == result["clips"]
    assert found["probe"]["l2"] == 0.01
    knn = json.loads(run(capsys, folder, "--json", "--kind", "knn"))
    assert knn["probe"]["kind"] == "knn" and knn["results"][0]["settings"]["probe"]["knn_k"] == 20


def test_several_protocols_make_one_table(capsys, folder) -> None:
    asked = ("retrieval", "linear_aimclr", "linear_crossclr", "tuned")
    text = run(capsys, folder, *(word for name in asked for word in ("--protocol", name)), "--epochs", 3)
    rows = table(text)
    assert [row["protocol"] for row in rows] == [name for name in asked for _ in range(3)]
    by = {(row["protocol"], row["stream"]): row for row in rows}
    assert by["retrieval", "joint"]["which epoch"] == "no epochs"
    assert by["linear_aimclr", "joint"]["which epoch"] == "last epoch (3)"
    assert by["linear_aimclr", "fused"]["weights"] == "given (0.60, 0.40)"
    assert by["linear_crossclr", "fused"]["weights"] == "trained together"
    assert by["tuned", "fused"]["draws"] == "2"
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", by["tuned", "joint"]["top1"])
    assert int(by["tuned", "joint"]["labelled"]) * 2 == int(by["retrieval", "joint"]["labelled"])


def test_json_says_all_that_a_number_depends_on(capsys, folder) -> None:
    found = json.loads(run(capsys, folder, "--protocol", "tuned", "--draws", 3, "--fuse", "motion=3,joint=1", "--json"))
    (result,) = found["results"]
    assert (result["protocol"], result["split"], result["on"], result["draws"]) == ("tuned", "xsub", "test", 3)
    assert (result["report"], result["epoch_rule"]) == ("last", "last epoch (2)")
    assert result["fusion"] == {"rule": "given", "weights": [[0.25, 0.75]] * 3}
    fused = result["scores"][2]
    assert len(fused["values"]) == 3
    assert fused["top1"] == pytest.approx(np.mean(fused["values"]))
    assert fused["spread"] == pytest.approx(np.std(fused["values"], ddof=1))
    assert found["top1"] == fused["top1"]
    assert result["settings"]["training"]["batch"] == 8
    assert found["fingerprint"] == open_dataset(folder / "data").fingerprint


def test_a_best_epoch_is_marked_wherever_it_is_told(capsys, folder) -> None:
    mark = "best epoch on test, as published; not comparable"
    wanted = ("--protocol", "linear_crossclr", "--protocol", "knn", "--epochs", 5, "--report", "best")
    rows = table(run(capsys, folder, *wanted))
    assert all(row["which epoch"] == f"{mark} (5)" for row in rows if row["protocol"] == "linear_crossclr")
    assert all(row["which epoch"] == "no epochs" for row in rows if row["protocol"] == "knn")
    found = json.loads(run(capsys, folder, *wanted, "--json"))
    assert [r["epoch_rule"] for r in found["results"]] == [mark, "no epochs"]
    assert found["results"][0]["report"] == "best"
    on = run(capsys, folder, "--protocol", "tuned", "--report", "best", "--on", "validation")
    assert "best epoch on validation; not comparable" in on


def test_validation_never_touches_the_test_split(capsys, folder, monkeypatch) -> None:
    """Test labels and clips are destroyed first: nothing changes."""
    wanted = ("--on", "validation", "--protocol", "linear", "--protocol", "tuned", "--json")
    before = json.loads(run(capsys, folder, *wanted))["results"]
    test = open_dataset(folder / "data").splits["xsub"] == 2
    whole = evaluation.DataSource.clips

    def blind(self, frames, steps):
        clips = whole(self, frames, steps)
        data, labels = clips.data.copy(), clips.labels.copy()
        data[test], labels[test] = np.nan, 0
        return dataclasses.replace(clips, data=data, labels=labels)

    monkeypatch.setattr(evaluation.DataSource, "clips", blind)
    assert json.loads(run(capsys, folder, *wanted))["results"] == before
    assert before[0]["on"] == "validation"


def test_pretraining_that_saw_validation_clips_is_said(capsys, folder, tmp_path) -> None:
    """`train` pretrains on the whole training side; a search's trial does not."""
    note = "has seen the validation subjects' clips (without their labels)"
    assert note in run(capsys, folder, "--on", "validation")
    assert note not in run(capsys, folder)
    spec, config = load_config(folder / "c.yaml")
    task = Task("trial", config.to_dict(), 0, (1,), str(tmp_path / "t"))
    session = Session(task, evaluation.source_of(spec), evaluation.probe_config(spec), "cpu")
    session.step()
    state = checkpoint.read(tmp_path / "t" / "checkpoint.pt")
    assert state["index"] == checkpoint.digest_of(session.split.train)
    assert "note" not in run(capsys, tmp_path, "--config", folder / "c.yaml", "--on", "validation", config=False)
    assert "on other clips of this data" in run(capsys, folder, "--split", "xview")


def test_progress_is_told_beside_the_result(capsys, folder, monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "TOLD_EVERY_S", 0.0)
    arguments = [
        "evaluate",
        folder / "t" / "checkpoint.pt",
        "--config",
        folder / "c.yaml",
        "--protocol",
        "tuned",
        "--json",
    ]
    assert _run([str(word) for word in arguments]) == 0
    said = capsys.readouterr()
    json.loads(said.out)
    lines = said.err.splitlines()
    assert len(lines) == 4
    assert re.match(r"tuned draw 1 of 2: epoch +1/2  loss \d+\.\d+  lr 0\.01  about 0 s left", lines[0])
    assert lines[3].startswith("tuned draw 2 of 2: epoch   2/2")


def test_the_protocols_are_listed(capsys) -> None:
    assert _run(["evaluate", "--list"]) == 0
    text = capsys.readouterr().out
    assert all(any(line.startswith(name) for line in text.splitlines()) for name in PROTOCOLS)


# --- other data -----------------------------------------------------------------------------------------------------


def test_transfer(capsys, folder, tmp_path) -> None:
    """Other data of the same joints, with other classes; a configuration is not needed."""
    other = dataclasses.replace(SMALL, seed=5, subjects=5, actions=("clap", "kick", "wave", "walk"))
    write_synthetic(tmp_path / "other", other)
    wanted = ("--data", tmp_path / "other", "--protocol", "linear", "--protocol", "tuned", "--json")
    with_file = json.loads(run(capsys, folder, *wanted))
    assert with_file["notes"] == ["the checkpoint was pretrained on other data or other preprocessing: a transfer"]
    assert with_file["fingerprint"] == open_dataset(tmp_path / "other").fingerprint
    alone = json.loads(run(capsys, folder, *wanted, "--split", "xsub", config=False))
    assert alone["results"] == with_file["results"]
    assert alone["results"][0]["clips"] == (open_dataset(tmp_path / "other").splits["xsub"] == 2).sum()
    text = run(capsys, folder, "--data", tmp_path / "other", config=False)
    assert table(text)[0]["protocol"] == "linear"


def of_nobody(path: Path, layout) -> Path:
    """Clips of one body each, of persons that nobody knows."""
    writer = DatasetWriter(path, layout, ("a", "b"), persons=1)
    rng = np.random.default_rng(0)
    for i in range(32):
        writer.append(rng.normal(size=(6, 1, layout.num_joints, 3)).astype(np.float32), i % 2, (-1,))
    writer.finish({"xsub": np.array([1, 1, 2, 2] * 8, np.int8)})
    return path


def test_transfer_to_data_of_nobody(capsys, folder, tmp_path) -> None:
    """Fewer bodies than in pretraining, and no subjects: a test score needs neither, validation needs the latter."""
    path = of_nobody(tmp_path / "d", NTU25)
    (result,) = json.loads(run(capsys, folder, "--data", path, "--protocol", "linear", "--json"))["results"]
    assert (result["labelled"], result["clips"]) == (16, 16)
    assert "no subject is known" in run(capsys, folder, "--data", path, "--on", "validation", code=2)


def test_other_joints_are_refused(capsys, folder, tmp_path) -> None:
    said = run(capsys, folder, "--data", of_nobody(tmp_path / "d", KINECT20), code=2)
    assert said.count("\n") == 1
    assert "ntu25, 25 joints" in said and "kinect20, 20 joints" in said


# --- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "finetun"], ["unknown protocol 'finetun'", "did you mean 'finetune'?"]),
        (
            ["--on", "tset", "--report", "bset", "--protocol", "lineer"],
            ["--on must be", "--report must be", "'lineer'"],
        ),
        (["--fuse", "even"], ["--fuse must be equal, fitted, searched"]),
        (["--fuse", "1,2,3"], ["3 weights for 2 streams (joint, motion)"]),
        (["--fuse", "searched", "--on", "validation"], ["--fuse searched looks at validation"]),
        (["--protocol", "tuned", "--fuse", "fitted"], ["more labels than the protocol has"]),
        (["--split", "xsubject"], ["unknown split 'xsubject'", "xsub"]),
        (["--data", "no/where"], ["--data: there is no dataset 'no/where'"]),
        (["--data", ""], ["--data and --split must name something"]),
        (["--protocol", "knn", "--kind", "knn"], ["--kind and --solver change the file's own probe"]),
        (["--protocol", "knn", "--protocol", "knn"], ["names knn twice"]),
        (["--kind", "nearest"], ["probe.kind must be linear or knn"]),
        (["--draws", "0"], ["--draws"]),
        (["--device", "cuda:77"], ["cuda:77"]),
    ],
)
def test_faults_are_lines(capsys, folder, arguments, words) -> None:
    said = run(capsys, folder, *arguments, code=2)
    for word in words:
        assert word in said


def test_something_must_say_what_to_judge_on(capsys, folder) -> None:
    assert "--config" in run(capsys, folder, config=False, code=2)
    assert "nothing.yaml" in run(capsys, folder, "--config", folder / "nothing.yaml", config=False, code=2)


def test_what_diverges_fails(capsys, folder, monkeypatch) -> None:
    wild = dataclasses.replace(TUNED, name="wild", training=Training(epochs=2, batch=8, lr=1e30))
    monkeypatch.setattr("methods.training.protocols.PROTOCOLS", {**PROTOCOLS, "wild": wild})
    said = run(capsys, folder, "--protocol", "wild", "--protocol", "knn", code=1)
    assert re.search(r"wild: no draw came to its end \(draw 1 of 2 diverged at step \d+", said)
