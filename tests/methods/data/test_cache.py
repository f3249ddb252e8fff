from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import people_dataset, random_clips, write

from methods.data import cache as cache_module
from methods.data.cache import fixed_length
from methods.data.preprocess import apply_steps, parse_steps
from methods.data.skeletons import open_dataset
from methods.errors import InputError


def arrays(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def test_shape_content_and_reuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "set", random_clips(4, persons=2), [0, 1, 0, 1], [1, 2, 3, 4])
    out = fixed_length(data, 6)
    assert out.shape == (4, 3, 6, 5, 2) and out.dtype == np.float32
    assert isinstance(out, np.memmap) and not out.flags.writeable
    for index in range(4):
        wanted = apply_steps(data.clip(index), int(data.valid[index]), data.layout, parse_steps(["trim", "centre"]), 6)
        np.testing.assert_array_equal(out[index], wanted)
    assert [path.parent.name for path in arrays(data.path / "cache")] == ["cache"]
    monkeypatch.setattr(cache_module, "_build", None)  # a second call must not build
    np.testing.assert_array_equal(fixed_length(open_dataset(data.path), 6), out)


def test_every_ingredient_has_an_array_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    data = people_dataset(tmp_path / "set", 3)
    other = people_dataset(tmp_path / "other", 4)
    fixed_length(data, 6, cache=folder)
    fixed_length(data, 7, cache=folder)
    fixed_length(data, 6, ("centre",), cache=folder)
    fixed_length(data, 6, ("resize", "centre"), cache=folder)
    fixed_length(other, 6, cache=folder)
    monkeypatch.setattr(cache_module, "CODE_VERSION", -1)
    fixed_length(data, 6, cache=folder)
    assert len(arrays(folder)) == 6
    fixed_length(data, 6, ("trim", "centre"), cache=folder)  # resize written or not: the same
    assert len(arrays(folder)) == 6


@pytest.mark.parametrize("keep", [0, 40, -4])
def test_a_truncated_array_is_built_again(tmp_path: Path, keep: int) -> None:
    data = people_dataset(tmp_path / "set", 3)
    wanted = np.array(fixed_length(data, 6))
    file = arrays(data.path / "cache")[0]
    file.write_bytes(file.read_bytes()[:keep])
    np.testing.assert_array_equal(fixed_length(data, 6), wanted)


def test_a_read_only_dataset_uses_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = people_dataset(tmp_path / "set", 3)
    (data.path / "cache").write_text("a file in the way")  # chmod would not stop root
    monkeypatch.setenv("SKELTUNE_CACHE", str(tmp_path / "elsewhere"))
    fixed_length(data, 6)
    assert len(arrays(tmp_path / "elsewhere")) == 1
    monkeypatch.setenv("SKELTUNE_CACHE", str(data.path / "meta.json"))
    with pytest.raises(InputError, match="SKELTUNE_CACHE"):
        fixed_length(data, 7)


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = people_dataset(tmp_path / "set", 3)
    good = apply_steps

    def failing(clip: np.ndarray, *rest: object) -> np.ndarray:
        out = good(clip, *rest)  # type: ignore[arg-type]
        return np.full_like(out, np.nan) if len(clip) > 4 else out

    monkeypatch.setattr(cache_module, "apply_steps", failing)
    with pytest.raises(InputError, match="NaN"):
        fixed_length(data, 6)
    left = [path for path in (data.path / "cache").iterdir() if path.suffix != ".lock"]
    assert left == []


def test_too_little_room_is_said_beforehand(tmp_path: Path) -> None:
    data = people_dataset(tmp_path / "set", 3)
    with pytest.raises(InputError, match="GiB are free"):
        fixed_length(data, 10**14)


def _ask(path: str, gate: multiprocessing.synchronize.Barrier, answers: multiprocessing.Queue[float]) -> None:
    data = open_dataset(path)
    gate.wait()
    answers.put(float(np.abs(fixed_length(data, 20)).sum()))


def test_two_processes_at_once_do_no_harm(tmp_path: Path) -> None:
    data = people_dataset(tmp_path / "set", 30)
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_ask, args=(str(data.path), gate, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    sums = [answers.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert sums == [float(np.abs(fixed_length(data, 20)).sum())] * 2
    assert len(arrays(data.path / "cache")) == 1
