"""Foreign .npy files and the arrays of foreign .npz files: mapped where they lie, never unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.data.npyfiles import Header, foreign_header, map_foreign, map_member, member_header, member_keys
from methods.errors import InputError

ARRAYS = {
    "numbers": np.arange(24, dtype="<f4").reshape(2, 3, 4),
    "turned": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "swapped": np.arange(5, dtype=">i4"),
    "halves": np.arange(5, dtype=np.float16),
    "texts": np.array(["ab", "c"]),
    "flags": np.array([True, False]),
    "one": np.array(7),
    "nobody": np.zeros((3, 0, 25)),
}


def saved(path: Path, content: np.ndarray) -> Path:
    np.save(path, content)
    return path


def fault(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        map_foreign(path)
    assert str(path) in str(caught.value) and len(caught.value.faults) == 1
    return str(caught.value)


@pytest.mark.parametrize("key", ARRAYS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(tmp_path: Path, key: str, save: object) -> None:
    array = ARRAYS[key]
    file = saved(tmp_path / "a.npy", array)
    save(tmp_path / "a.npz", **ARRAYS)  # type: ignore[operator]
    for found in (map_foreign(file), map_member(tmp_path / "a.npz", key, tmp_path)):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype and isinstance(found, np.memmap if array.size else np.ndarray)
    assert foreign_header(file) == Header(array.dtype, array.shape, key == "turned", foreign_header(file).start)
    assert member_header(tmp_path / "a.npz", key).shape == array.shape
    assert member_keys(tmp_path / "a.npz") == list(ARRAYS)


def test_a_plain_member_is_mapped_where_it_lies(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("read me.txt", "before it")
        archive.write(saved(tmp_path / "a.npy", ARRAYS["numbers"]), "a.npy")
    (tmp_path / "b.npz").write_bytes(b"what a program may put before an archive" + (tmp_path / "a.npz").read_bytes())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name in ("a.npz", "b.npz"):
        found = map_member(tmp_path / name, "a", scratch)
        np.testing.assert_array_equal(found, ARRAYS["numbers"])
        assert isinstance(found, np.memmap) and found.filename == tmp_path / name
        assert member_keys(tmp_path / name) == ["a"]
    assert not list(scratch.glob("*.npy"))


def header(text: str, data: bytes = b"") -> bytes:
    whole = text.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(whole).to_bytes(2, "little") + whole + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated or no plain .npy file"),
        (b"text", "truncated or no plain .npy file"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", bytes(8)), "truncated: 136 bytes, its"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "too long: 136 bytes, its"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", bytes(8)), "has the shape (-1,)"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}"), "has the shape"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 0)}"), "has the shape"),
        (
            header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
            "pickled objects, which are never",
        ),
        (
            header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", bytes(8)),
            "neither numbers nor text",
        ),
        (header("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "neither numbers nor text"),
        (header("{'descr': '<U0', 'fortran_order': False, 'shape': (1,)}"), "neither numbers nor text"),
        (header("{'descr': (), 'fortran_order': False, 'shape': (1,)}"), "no plain .npy file"),
        (header("{'descr': '<f4', 'shape': (1,)}"), "no plain .npy file"),
        (header("-" * 110 + "1"), "no plain .npy file"),
        (header("[" * 110), "no plain .npy file"),
        (b"\x93NUMPY\x07\x00" + bytes(200), "version (7, 0)"),
    ],
)
def test_what_is_no_plain_array(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    assert words in fault(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
    with pytest.raises(InputError, match="array 'a': "):
        map_member(tmp_path / "a.npz", "a", tmp_path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "No such file" in fault(tmp_path / "none.npy")
    assert "directory" in fault(tmp_path)
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    with pytest.raises(InputError, match=r"a\.npz: holds no array 'b'"):
        map_member(tmp_path / "a.npz", "b", tmp_path)
    for there in (tmp_path / "none.npz", saved(tmp_path / "a.npy", np.zeros(3))):
        with pytest.raises(InputError, match=there.name):
            member_keys(there)


def test_damaged_content_of_a_compressed_member_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    np.savez_compressed(tmp_path / "a.npz", a=np.random.default_rng(0).normal(size=5000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[20_000] ^= 255
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"array 'a': damaged"):
        map_member(tmp_path / "a.npz", "a", tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_scratch_folder_that_cannot_be_written(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(5000))
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / f"a-{zipfile.ZipFile(tmp_path / 'a.npz').getinfo('a.npy').CRC:08x}.npy").mkdir()
    with pytest.raises(InputError, match="cannot be unpacked to"):
        map_member(tmp_path / "a.npz", "a", tmp_path / "scratch")


@settings(max_examples=80, deadline=None)
@given(
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4), cut=st.floats(0.2, 1)
)
def test_chance_damage_never_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[float, int]], cut: float
) -> None:
    folder = tmp_path_factory.mktemp("npy")
    for name, save in (("a.npy", saved), ("b.npz", np.savez), ("c.npz", np.savez_compressed)):
        path = folder / name
        save(path, ARRAYS["numbers"])
        content = bytearray(path.read_bytes())
        for share, byte in places:
            content[int(share * len(content))] = byte
        path.write_bytes(content[: max(1, int(cut * len(content)))])
        try:
            found = map_foreign(path) if save is saved else map_member(path, "arr_0", folder)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert isinstance(found, np.ndarray)


def test_a_stored_array_whose_bytes_have_changed_is_refused(tmp_path: Path) -> None:
    """Silent damage of a large archive: numbers that are still numbers; found by the checksum, looked at once."""
    path, scratch = tmp_path / "a.npz", tmp_path / "scratch"
    scratch.mkdir()
    np.savez(path, x=np.arange(1000.0))
    np.testing.assert_array_equal(map_member(path, "x", scratch), np.arange(1000.0))
    good = path.read_bytes()
    at = good.index(np.float64(500).tobytes())
    path.write_bytes(good[:at] + np.float64(501.5).tobytes() + good[at + 8 :])
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match="its checksum does not fit"):
        map_member(path, "x", other)
