"""The one command for a GPU machine, tried out on a CPU; and the real one, which waits for a GPU."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import on_gpu


def test_the_command_goes_through_on_a_cpu(tmp_path, capsys):
    torch.set_num_threads(1)
    some = ["aimclr", "crrl"]
    command = ["--device", "cpu", "--smoke", "--methods", *some, "--out", str(tmp_path / "rows.jsonl")]
    assert on_gpu.main(command) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row for row in rows if "failed" in row] == []
    timed = {row["method"] for row in rows if row["what"] == "step" and "samples_per_second" in row}
    assert timed == {"skeletonclr", *some}
    official = {row["method"] for row in rows if row.get("way") == "official"}
    assert official == timed
    assert {row["what"] for row in rows} >= {"machine", "agreement", "data", "probe", "streams", "processes", "end"}
    assert capsys.readouterr().out.count("\n") == len(rows)


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert on_gpu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_random_clips_have_ntus_share_of_pairs():
    clips = on_gpu.random_clips(600, 10)
    second = (clips.data[..., 1] != 0).any((1, 2, 3))
    assert second.sum() == round(600 * on_gpu.PAIRS)
    assert (clips.data[..., 0] != 0).any((1, 2, 3)).all()


@pytest.mark.gpu
def test_the_real_thing(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert on_gpu.main(["--budget", "400", "--out", str(tmp_path / "rows.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row for row in rows if "failed" in row] == []
    agreement = next(row for row in rows if row["what"] == "agreement")
    assert agreement["worst"] < 1e-3
