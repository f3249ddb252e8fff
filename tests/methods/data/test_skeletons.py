from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import STICK, people_dataset, random_clips, write
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.data.skeletons import open_dataset
from methods.data.writer import DatasetWriter
from methods.errors import InputError

coordinates = st.floats(-1e6, 1e6, width=32)
one_clip = st.tuples(
    st.integers(1, 5),
    st.lists(coordinates, min_size=1, max_size=6),
    st.integers(0, 2),
    st.tuples(st.integers(-1, 2**40), st.integers(-1, 3)),
    st.integers(-1, 9),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(one_clip, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_what_is_written_is_read(drawn: list[tuple], random) -> None:  # type: ignore[type-arg, no-untyped-def]
    splits = {"a b": [random.randint(0, 2) for _ in drawn]}
    with tempfile.TemporaryDirectory() as folder:
        with DatasetWriter(Path(folder) / "set", STICK, ["x", "y", "ü"], 2, {"file": "f"}) as writer:
            for length, values, label, people, camera, name in drawn:
                writer.append(fill(length, values), label, people, camera=camera, setup=camera, name=name)
            data = writer.finish(splits)
        assert len(data) == len(drawn)
        for index, (length, values, label, people, camera, name) in enumerate(drawn):
            np.testing.assert_array_equal(data.clip(index), fill(length, values))
            assert (data.labels[index], *data.subjects[index], data.cameras[index], str(data.names[index])) == (
                *(label, *people, camera),
                name,
            )
        assert data.splits["a b"].tolist() == splits["a b"]
        assert (data.layout, data.class_names, data.source) == (STICK, ("x", "y", "ü"), {"file": "f"})
        data.verify()


def fill(length: int, values: list[float]) -> np.ndarray:
    return np.resize(np.array(values, dtype=np.float32), (length, 2, STICK.num_joints, 3))


def test_valid_counts_frames_with_person_0(tmp_path: Path) -> None:
    clip = random_clips(2)[1]
    clip[1] = 0
    clip[2, 0, 0] = 0  # the first joint alone is lost: still there
    data = write(tmp_path / "set", [clip, 0 * clip], [0, 1], [1, 2])
    assert data.valid.tolist() == [len(clip) - 1, 0]


def test_views_are_read_only_and_pickled_as_a_path(tmp_path: Path) -> None:
    data = people_dataset(tmp_path / "set", 200)
    with pytest.raises(ValueError, match="read-only"):
        data.clip(0)[:] = 0
    text = pickle.dumps(data)
    assert len(text) < 1000
    assert pickle.loads(text).fingerprint == data.fingerprint
    with pytest.raises(IndexError):
        data.clip(len(data))


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    clips = random_clips(3)
    base = write(tmp_path / "a", clips, [0, 1, 0], [1, 2, 3], {"s": [1, 1, 2]})
    assert write(tmp_path / "b", clips, [0, 1, 0], [1, 2, 3], {"s": [1, 1, 2]}).fingerprint == base.fingerprint
    moved = [clip.copy() for clip in clips]
    moved[2][-1, 0, 0, 0] += 1e-3
    joined = [np.concatenate(clips[:2]), clips[2][:1], clips[2][1:]]  # the same bytes, cut elsewhere
    others = [
        write(tmp_path / "c", moved, [0, 1, 0], [1, 2, 3], {"s": [1, 1, 2]}),
        write(tmp_path / "d", joined, [0, 1, 0], [1, 2, 3], {"s": [1, 1, 2]}),
        write(tmp_path / "e", clips, [1, 1, 0], [1, 2, 3], {"s": [1, 1, 2]}),
        write(tmp_path / "f", clips, [0, 1, 0], [1, 2, 4], {"s": [1, 1, 2]}),
        write(tmp_path / "g", clips, [0, 1, 0], [1, 2, 3], {"s": [1, 2, 2]}),
        write(tmp_path / "h", clips, [0, 1, 0], [1, 2, 3], {"t": [1, 1, 2]}),
        write(tmp_path / "i", clips, [0, 1, 0], [1, 2, 3], {"s": [1, 1, 2]}, classes=3),
        write(tmp_path / "j", clips, [0, 1, 0], [1, 2, 3], {"s": [1, 1, 2]}, cameras=[1, 1, 1]),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


def bad_clip(**change: object) -> dict[str, object]:
    return {"frames": random_clips(1)[0], "label": 0, "subjects": 1, **change}


NAN = random_clips(1)[0]
NAN[2, 0, 1, 1] = np.nan
HUGE = random_clips(1)[0].astype(np.float64)
HUGE[1] = 1e300


@pytest.mark.parametrize(
    ("clip", "word"),
    [
        (bad_clip(frames=NAN), "clip 1 .*frame 2 holds NaN"),
        (bad_clip(frames=HUGE), "frame 1 holds NaN or infinite"),
        (bad_clip(frames=NAN[:0]), "no frames"),
        (bad_clip(frames=NAN[:, :, :3]), "shape"),
        (bad_clip(frames="abc"), "no array of numbers"),
        (bad_clip(label=2), "label 2 is out of range"),
        (bad_clip(label=-1), "label -1"),
        (bad_clip(subjects=(1, 2)), "2 subjects given, 1"),
        (bad_clip(subjects=-2), "-1 for unknown"),
        (bad_clip(camera=-7), "-1 for unknown"),
    ],
)
def test_a_bad_clip_is_named_and_leaves_nothing(tmp_path: Path, clip: dict[str, object], word: str) -> None:
    with DatasetWriter(tmp_path / "set", STICK, ["a", "b"], 1) as writer:
        writer.append(random_clips(1)[0], 0, 1)
        with pytest.raises(InputError, match=word):
            writer.append(name="bad", **clip)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_midway_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with DatasetWriter(tmp_path / "set", STICK, ["a", "b"], 1) as writer:
            writer.append(random_clips(1)[0], 0, 1)
            assert list(tmp_path.iterdir()) != []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("splits", [{"s": [1]}, {"s": [1, 3]}, {"s": [[1, 2]]}])
def test_bad_splits_leave_nothing(tmp_path: Path, splits: dict[str, object]) -> None:
    with pytest.raises(InputError, match="split 's'"):
        write(tmp_path / "set", random_clips(2), [0, 1], [1, 2], splits)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "set"
    target.mkdir()
    write(target, random_clips(1), [0], [1])  # an empty folder may be filled
    before = (target / "meta.json").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write(target, random_clips(2), [0, 1], [1, 2])
    assert (target / "meta.json").read_bytes() == before
    with pytest.raises(InputError, match="not one clip"):
        DatasetWriter(tmp_path / "other", STICK, ["a"], 1).finish()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "set", STICK, ["a"], 1) as writer:
        writer.append(random_clips(1)[0], 0, 1)
        first = write(tmp_path / "set", random_clips(2), [0, 1], [1, 2])
        with pytest.raises(InputError, match="exists already"):
            writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    first.verify()


def test_class_names_are_checked(tmp_path: Path) -> None:
    for names in ([], ["a", "a"]):
        with pytest.raises(InputError, match="class names"):
            DatasetWriter(tmp_path / "set", STICK, names, 1)


FILES = ("frames", "offsets", "lengths", "valid", "labels", "subjects", "cameras", "setups", "names", "splits")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "stub", "longer", "gone", "other"])
def test_damage_is_caught_on_opening(tmp_path: Path, name: str, damage: str) -> None:
    data = people_dataset(tmp_path / "set", 3)
    file = data.path / f"{name}.npy"
    raw = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "other":
        np.save(file, np.array(["a", {}], dtype=object), allow_pickle=True)
    else:
        file.write_bytes({"cut": raw[:-1], "stub": raw[:20], "longer": raw + b"\0"}[damage])
    with pytest.raises(InputError, match=rf"{name}\.npy"):
        open_dataset(data.path)


@pytest.mark.parametrize(
    ("name", "index", "value", "word"),
    [
        ("labels", 0, 5, "labels out of range: 5"),
        ("labels", 0, -1, "labels out of range"),
        ("lengths", 1, 0, "length 0"),
        ("lengths", 1, 900, "a clip of 900 frames"),
        ("lengths", 1, 2, "without gaps"),
        ("offsets", 1, 0, "without gaps"),
        ("offsets", 2, 2**62, "without gaps"),
        ("valid", 0, 99, "valid"),
        ("subjects", 0, -5, "subjects"),
    ],
)
def test_values_out_of_range_are_caught_on_opening(
    tmp_path: Path, name: str, index: int, value: int, word: str
) -> None:
    path = people_dataset(tmp_path / "set", 3).path
    values = np.load(path / f"{name}.npy")
    values[index] = value
    np.save(path / f"{name}.npy", values)
    with pytest.raises(InputError, match=word):
        open_dataset(path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": 99}, "format version 99"),
        ({"kind": "x"}, "not a skeltune dataset"),
        ({"clips": 0}, "empty"),
        ({"clips": "many"}, "damaged"),
        ({"frames": [1, 2]}, "frames"),
        ({"layout": {"name": "x"}}, "damaged"),
        ({"splits": ["a", "b"]}, "splits"),
        ({"class_names": ["only"]}, "labels out of range"),
    ],
)
def test_a_changed_meta_is_caught(tmp_path: Path, change: dict[str, object], word: str) -> None:
    path = people_dataset(tmp_path / "set", 3).path
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, **change}))
    with pytest.raises(InputError, match=word):
        open_dataset(path)


def test_strange_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no meta\.json"):
        open_dataset(tmp_path)
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        open_dataset(tmp_path)


def test_verify_finds_one_changed_byte(tmp_path: Path) -> None:
    data = people_dataset(tmp_path / "set", 3)
    data.verify()
    raw = bytearray((data.path / "frames.npy").read_bytes())
    raw[-2] ^= 1
    (data.path / "frames.npy").write_bytes(raw)
    with pytest.raises(InputError, match="not what was written"):
        open_dataset(data.path).verify()


def test_chance_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    path, rng = people_dataset(tmp_path / "set", 3).path, np.random.default_rng(0)
    files = sorted(path.iterdir())
    caught = 0
    for _ in range(400):
        file = files[rng.integers(len(files))]
        good = file.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(min(len(bad), 300))] = rng.choice([0, 255, ord("("), ord("'"), ord("9"), ord("-")])
        file.write_bytes(bad)
        try:
            data = open_dataset(path)
            assert [str(name) for name in data.names] and data.clip(len(data) - 1).ndim == 4
        except InputError:
            caught += 1
        file.write_bytes(good)
    assert caught > 100
