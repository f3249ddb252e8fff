from __future__ import annotations

import collections
import io
import os
import pickle
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_arrays import DAMAGE, damaged

from methods.data.reading.pickled_arrays import StoredArray
from methods.data.reading.pickles import LONG, Piece, first_texts, load_outline, load_plain
from methods.errors import InputError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def save(folder: Path, content: bytes) -> Path:
    file = folder / "file.pkl"
    file.write_bytes(content)
    return file


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        kinds = [one.dtype.newbyteorder("=") for one in (left, right)]  # numpy turns bytes round as it unpickles
        return type(left) is type(right) and kinds[0] == kinds[1] and np.array_equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


SHARED = [1, 2]
PLAIN = [
    (["S001.skeleton", "é\ud800"], [0, 59]),
    [None, True, False, -1, 2**40, -(2**2100), 1.5, float("inf"), "", b"", b"\xff\x00", "x" * 70_000, b"y" * 300],
    {"a": {1: (), (1, "b"): [[]]}, 2.5: {3, 4}, None: frozenset({"s"})},
    [SHARED, SHARED, {"again": SHARED}],
    [np.int64(3), np.float32(0.5), np.bool_(True), np.str_("ab")],
    np.arange(6, dtype=np.float16).reshape(1, 2, 3),
    [np.zeros((2, 0), np.int32), np.array(7.0), np.array(["ab", "c"]), np.array([b"x", b"yz"])],
    [np.asfortranarray(np.arange(600.0).reshape(20, 30)), np.arange(4, dtype=">i4"), np.array([True, False])],
    np.random.default_rng(0).normal(size=(50, 25, 3)),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_values_come_back_as_they_were(tmp_path: Path, value: Any, protocol: int) -> None:
    found = load_plain(save(tmp_path, pickle.dumps(value, protocol)))
    assert same(found, value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_object_stays_one(tmp_path: Path, protocol: int) -> None:
    inner = np.arange(5)
    found = load_plain(save(tmp_path, pickle.dumps([inner, inner, SHARED, SHARED], protocol)))
    assert isinstance(found, list)
    assert found[0] is found[1] and found[2] is found[3]
    assert not found[0].flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_ordered_dict_comes_as_a_dict(tmp_path: Path, protocol: int) -> None:
    value = collections.OrderedDict([("b", 1), ("a", 2)])
    assert load_plain(save(tmp_path, pickle.dumps(value, protocol))) == {"b": 1, "a": 2}


def test_python_2(tmp_path: Path) -> None:
    # pickle.dumps((['S1', u'\xe9'], [1, 2L], numpy.array([1.5, 2.5]), numpy.int64(3)), 2) of Python 2.7, numpy 1.8
    content = (
        b"\x80\x02(]q\x01(U\x02S1q\x02X\x02\x00\x00\x00\xc3\xa9q\x03e]q\x04(K\x01\x8a\x01\x02e"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02\x85"
        b"cnumpy\ndtype\nq\x08U\x02f8K\x00K\x01\x87Rq\t(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x10\x00\x00\x00\x00\x00\x00\xf8?\x00\x00\x00\x00\x00\x00\x04@tb"
        b"cnumpy.core.multiarray\nscalar\nq\nh\x08U\x02i8K\x00K\x01\x87Rq\x0b(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tbU\x08\x03\x00\x00\x00\x00\x00\x00\x00\x86Rtq\x0c."
    )
    assert same(load_plain(save(tmp_path, content)), (["S1", "é"], [1, 2], np.array([1.5, 2.5]), np.int64(3)))


class Call:
    """Pickled as a call of a function with arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> Any:
        return self.parts


class Own(np.ndarray):
    pass


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def dotted(module: str, name: str) -> bytes:
    """Protocol 4's way to name something inside something: GLOBAL with dots."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93)R."


HOSTILE: dict[str, tuple[Any, str]] = {
    "os.system": (b"cos\nsystem\n(S'touch ran'\ntR.", "refuses os.system:"),
    "as a class": (b"(S'touch ran'\nios\nsystem\n.", "refuses os.system:"),
    "posix": (Call(os.system, "touch ran"), f"refuses {os.system.__module__}.system:"),
    "eval": (Call(eval, "open('ran', 'w')"), "refuses builtins.eval:"),
    "eval of Python 2": (b"c__builtin__\neval\n(S'1'\ntR.", "refuses __builtin__.eval:"),
    "getattr": (Call(getattr, "x", "join"), "refuses builtins.getattr:"),
    "print": (Call(print, "ran"), "refuses builtins.print:"),
    "fromfile": (b"cnumpy\nfromfile\n(S'ran'\ntR.", "refuses numpy.fromfile:"),
    "load": (b"cnumpy\nload\n(S'ran'\ntR.", "refuses numpy.load:"),
    "save": (b"cnumpy\nsave\n(S'ran'\n(lp0\ntR.", "refuses numpy.save:"),
    "testing": (b"cnumpy.testing._private.utils\nrunstring\n(S'x'\n(dtR.", "refuses numpy.testing._private.utils.run"),
    "memmap": (b"cnumpy\nmemmap\n(S'ran'\nS'u1'\nS'w+'\ntR.", "refuses numpy.memmap:"),
    "dotted": (dotted("numpy", "core.multiarray._reconstruct"), "refuses numpy.core.multiarray._reconstruct:"),
    "dotted os": (dotted("numpy", "ctypeslib.os.system"), "refuses numpy.ctypeslib.os.system:"),
    "dotted method": (dotted("numpy", "ndarray.tofile"), "refuses numpy.ndarray.tofile:"),
    "empty module": (dotted("", "ndarray"), "refuses .ndarray:"),
    "an own class": (Own((2,)), "Own:"),
    "subclass": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        "refuses arrays of a class of their own:",
    ),
    "objects": (np.array([1, "a"], object), "refuses arrays of objects:"),
    "structured": (np.zeros(2, [("a", "i4"), ("b", "O")]), "refuses arrays of other than numbers:"),
    "dates": (np.zeros(2, "M8[s]"), "refuses arrays of other than numbers:"),
    "complex": (np.zeros(2, complex), "refuses arrays of other than numbers:"),
    "dtype of text": (b"cnumpy\ndtype\n(S'f4,O'\nI0\nI1\ntR.", "refuses arrays of other than numbers:"),
    "codec": (b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "refuses _codecs.encode other than to latin1:"),
    "a name alone": (b"cnumpy\nndarray\n(I5\ntR.", "refuses a call of something that is no function:"),
    "a number is called": (b"I1\n(tR.", "refuses a call of something that is no function:"),
    "a state": (b"\x80\x02]}S'__class__'\nI1\nsb.", "refuses a state for a list:"),
    "persistent id": (b"Pfile\n.", "refuses the operation PERSID:"),
    "binary persistent id": (b"I1\nQ.", "refuses the operation BINPERSID:"),
    "extension": (b"\x80\x02\x82\x01.", "refuses the operation EXT1:"),
    "new object": (b"\x80\x02cnumpy\nndarray\nI2\n\x85\x81.", "refuses the operation NEWOBJ:"),
    "buffers": (b"\x80\x05\x97.", "refuses the operation NEXT_BUFFER:"),
}


@pytest.mark.parametrize("load", [load_plain, load_outline])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_could_run_is_refused_by_name(
    tmp_path: Path, name: str, load: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content, words = HOSTILE[name]
    file = save(tmp_path, content if isinstance(content, bytes) else pickle.dumps(content))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    with pytest.raises(InputError) as caught:
        load(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{file}: refuses ") and "nothing of it was run" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pkl"]
    assert capfd.readouterr().out == "" and set(sys.modules) == before


def array_pickle(
    shape: bytes = b"K\x02\x85", dtype: bytes = b"f4", order: bytes = b"<", raw: bytes = bytes(8)
) -> bytes:
    """A pickle of an array, part by part."""
    return (
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01" + shape +
        b"cnumpy\ndtype\nX" + len(dtype).to_bytes(4, "little") + dtype + b"\x89\x88\x87R(K\x03X" +
        len(order).to_bytes(4, "little") + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"B" + len(raw).to_bytes(4, "little") + raw + b"tb."
    )  # fmt: skip


def laughs(levels: int) -> bytes:
    """Lists that hold the list before ten times."""
    return (
        b"\x80\x02]q\x00"
        + b"".join(b"](" + b"h%c" % level * 10 + b"eq%c" % (level + 1) for level in range(levels))
        + b"."
    )


DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "text": b"names and labels\n",
    "zip": b"PK\x03\x04" + bytes(40),
    "no end": pickle.dumps([1, 2])[:-1],
    "two left": b"I1\nI2\n.",
    "nothing left": b"\x80\x04.",
    "open mark": b"(I1\n.",
    "claims 2^60 bytes": b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"abc.",
    "claims 2^60 letters": b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"abc.",
    "claims 2^60 of a bytearray": b"\x80\x05\x96" + (2**60).to_bytes(8, "little") + b"abc.",
    "claims 2^63 bytes": b"\x80\x04\x8e" + (2**64 - 1).to_bytes(8, "little") + b"abc.",
    "claims a frame of 2^60": b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"\x8e",
    "a negative number of digits": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "a number of 5000 digits": b"I" + b"9" * 5000 + b"\n.",
    "memo of nobody": b"h\x05.",
    "stack of nobody": b"0.",
    "a list that is a number": b"I1\nI2\na.",
    "keys that are lists": b"\x80\x02}]I1\ns.",
    "keys that hide a list": b"\x80\x02}(]\x85\x85I1\nu.",
    "a key alone": b"\x80\x02}(I1\nu.",
    "array longer than its bytes": array_pickle(b"K\x03\x85"),
    "array shorter than its bytes": array_pickle(b"K\x01\x85"),
    "array of 2^62": array_pickle(b"\x8a\x08" + (2**62).to_bytes(8, "little") + b"\x85"),
    "array of -2": array_pickle(b"J\xfe\xff\xff\xff\x85"),
    "array of True": array_pickle(b"\x88\x85"),
    "array without a shape": array_pickle(b"K\x02"),
    "array of many axes": array_pickle(b"(" + b"K\x01" * 40 + b"t"),
    "byte order": array_pickle(order=b"V"),
    "type of 3 bytes": array_pickle(dtype=b"f3"),
    "text as bytes": b"\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00\xc4\x80X\x06\x00\x00\x00latin1\x86R.",
    "array filled twice": array_pickle()[:-1] + array_pickle()[2:].partition(b"R")[2],
    "wild arguments": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\ntR(I1\nI2\ntb.",
    "no arguments": b"cnumpy.core.multiarray\nscalar\n(tR.",
    "dict of numbers": b"ccollections\nOrderedDict\n((lI1\natR.",
    "deep and short of an end": b"]" * 30_000,
}


@pytest.mark.parametrize("load", [load_plain, load_outline])
@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_one_clear_line(tmp_path: Path, name: str, load: Any) -> None:
    file = save(tmp_path, DAMAGED[name])
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        load(file)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert len(caught.value.faults) == 1 and "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_plain(tmp_path / "none.pkl")
    with pytest.raises(InputError, match="directory"):
        load_plain(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"]" * 60_000 + b"a" * 59_999 + b".",
        b")" + b"\x85" * 60_000 + b".",
        laughs(60),
        b"]2" * 1000 + b"a" * 1999 + b".",
    ],
    ids=["lists", "tuples", "laughs", "itself"],
)
def test_deep_and_laughing_pickles_cost_their_size_alone(tmp_path: Path, content: bytes) -> None:
    tracemalloc.start()
    try:
        found = load_plain(save(tmp_path, content))
    except InputError:
        found = None
    assert tracemalloc.get_traced_memory()[1] < 100 * len(content) + 1_000_000
    tracemalloc.stop()
    del found


def test_content_cannot_be_multiplied(tmp_path: Path) -> None:
    encode = b"c_codecs\nencode\nX\x06\x00\x00\x00latin1q\x01"
    big = b"X" + (100_000).to_bytes(4, "little") + b"x" * 100_000 + b"q\x00"
    again = b"c_codecs\nencode\nh\x00h\x01\x86R" * 1000
    file = save(tmp_path, b"\x80\x02(" + encode + big + again + b"l.")
    tracemalloc.start()
    with pytest.raises(InputError, match="more often than"):
        load_plain(file)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_huge_place_in_the_memo_takes_no_room(tmp_path: Path) -> None:
    tracemalloc.start()
    assert load_plain(save(tmp_path, b"\x80\x02I7\nr\xff\xff\xff\x7f.")) == 7
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_outline_leaves_arrays_in_the_file(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, 9, 25, 3)).astype(kind) for kind in ("<f2", "<f4", ">f8")]
    arrays += [np.asfortranarray(arrays[0][0]), np.arange(3)]
    value = {"a": arrays, "names": ["x"] * 3, "long": "y" * (LONG + 1)}
    file = save(tmp_path, pickle.dumps(value, protocol))
    found: Any = load_outline(file)
    assert found["names"] == ["x"] * 3
    assert isinstance(found["long"], Piece if protocol else str)
    with file.open("rb") as opened:
        for array, stored in zip(arrays, found["a"], strict=True):
            assert isinstance(stored, StoredArray)
            assert isinstance(stored.raw, Piece if protocol and array.nbytes > LONG else bytes)
            np.testing.assert_array_equal(stored.read(opened), array)
            assert stored.dtype == array.dtype


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_an_outline_does_not_grow_with_the_arrays(tmp_path: Path, protocol: int) -> None:
    value = [np.full((50, 50, 25, 3), 200 + index, np.uint8) for index in range(20)]
    file = save(tmp_path, pickle.dumps(value, protocol))
    size = file.stat().st_size
    del value
    tracemalloc.start()
    load_outline(file)
    assert tracemalloc.get_traced_memory()[1] < size / 4
    tracemalloc.stop()


def test_a_pickle_that_has_changed(tmp_path: Path) -> None:
    file = save(tmp_path, pickle.dumps(np.arange(1000), 2))
    stored: Any = load_outline(file)
    file.write_bytes(file.read_bytes()[:2000])
    with file.open("rb") as opened, pytest.raises(InputError, match=r"file\.pkl: byte"):
        stored.read(opened)
    file.write_bytes(b"\xff" * 20_000)
    with file.open("rb") as opened, pytest.raises(InputError, match="Latin-1"):
        stored.read(opened)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_first_texts(tmp_path: Path, protocol: int) -> None:
    value = {"split": {"xsub_train": [f"S{index:05d}" for index in range(5000)]}}
    found = first_texts(save(tmp_path, pickle.dumps(value, protocol)))
    assert found[:3] == ["split", "xsub_train", "S00000"]
    assert len(found) < 1000
    assert first_texts(tmp_path) == [] and first_texts(save(tmp_path, b"no pickle")) == []


def fault_of(file: Path, load: Any) -> str:
    """Empty where the file can be loaded, else the file that the fault names."""
    try:
        load(file)
    except InputError as error:
        return str(error).partition(":")[0]
    return ""


GOOD = [pickle.dumps([PLAIN[0], PLAIN[5], PLAIN[4], {"a": np.arange(900)}], protocol) for protocol in PROTOCOLS]


@settings(max_examples=150, deadline=None)
@given(good=st.sampled_from(GOOD), damage=st.lists(DAMAGE, min_size=1, max_size=3))
def test_chance_damage_never_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, good: bytes, damage: list[tuple[str, float, bytes]]
) -> None:
    file = save(tmp_path_factory.mktemp("pickles"), damaged(good, damage))
    for load in (load_plain, load_outline):
        assert fault_of(file, load) in ("", str(file))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([bytes([code]) for code in range(40, 151)] + [b"I1\n", b"cnumpy\ndtype\n", b"X\1\0\0\0a"]),
        max_size=30,
    )
)
def test_any_operations_give_a_value_or_a_fault(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    file = save(tmp_path_factory.mktemp("pickles"), b"\x80\x04" + b"".join(parts) + b".")
    assert fault_of(file, load_plain) in ("", str(file))


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.lists(inner).map(tuple)),
        max_leaves=20,
    ),
    st.sampled_from(PROTOCOLS),
)
def test_any_plain_value_round_trip(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int) -> None:
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol).dump(value)
    assert same(load_plain(save(tmp_path_factory.mktemp("pickles"), buffer.getvalue())), value)
