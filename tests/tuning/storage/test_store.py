"""Files behind a URL: whole or absent, and URLs that cannot be right."""

from __future__ import annotations

import errno
import sys
import uuid

import pytest

from methods.errors import InputError
from tuning.storage.store import Store, open_store


@pytest.fixture(params=["path", "file", "memory", "other"])
def store(request, tmp_path) -> Store:
    url = {"path": f"{tmp_path}/s", "file": f"file://{tmp_path}/s"}.get(request.param, f"memory://{uuid.uuid4().hex}/s")
    found = open_store(url).under("run")
    if request.param == "other":
        found._protocol = "sftp"  # one whose uploads do not appear whole: written aside, then moved
    found.check()
    return found


def test_a_round_trip(store, tmp_path):
    (tmp_path / "a").write_bytes(b"weights" * 1000)
    assert store.names("checkpoints/x") == store.folders("checkpoints") == []
    store.put(tmp_path / "a", "checkpoints/x/000001.pt")
    store.put_bytes(b"two", "checkpoints/x/000002.pt")
    store.put_bytes(b"three", "checkpoints/x/000002.pt")
    store.put_bytes(b"top", "top")
    assert store.names("checkpoints/x") == ["checkpoints/x/000001.pt", "checkpoints/x/000002.pt"]
    assert (store.folders("checkpoints"), store.folders(), store.names()) == (
        ["checkpoints/x"],
        ["checkpoints"],
        ["top"],
    )
    assert store.read("checkpoints/x/000002.pt") == b"three"
    assert store.get("checkpoints/x/000001.pt", tmp_path / "new" / "b")
    assert (tmp_path / "new" / "b").read_bytes() == b"weights" * 1000
    for name in store.names("checkpoints/x"):
        store.remove(name)
    store.remove("checkpoints/x/000001.pt")
    assert store.names("checkpoints/x") == []


def test_what_is_absent_leaves_everything_as_it_was(store, tmp_path):
    (tmp_path / "b").write_bytes(b"old")
    assert store.get("nothing", tmp_path / "b") is False
    assert store.read("nothing") is None
    assert (tmp_path / "b").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if p.name != "s"] == ["b"]


def test_a_copy_that_breaks_off_is_never_seen(tmp_path, monkeypatch):
    store = open_store(str(tmp_path / "s"))
    store.check()
    store.put_bytes(b"old", "a/x")

    def half(source, target):
        target.write_bytes(b"ha")
        raise OSError(errno.EIO, "away")

    monkeypatch.setattr("shutil.copyfile", half)
    with pytest.raises(OSError, match="away"):
        store.put(tmp_path / "unread", "a/x")
    assert store.read("a/x") == b"old"
    assert [p.name for p in (tmp_path / "s" / "a").iterdir()] == ["x"]


def test_a_mount_that_vanished_is_no_empty_store(tmp_path):
    """Else a driver would take it for a new search, or write under the mount point."""
    store = open_store(str(tmp_path / "mount"))
    for call in (
        lambda: store.names("journal"),
        lambda: store.read("x"),
        lambda: store.put_bytes(b"", "x"),
        lambda: store.get("x", tmp_path / "x"),
        lambda: store.remove("x"),
    ):
        with pytest.raises(FileNotFoundError):
            call()
    assert not (tmp_path / "mount").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://key:secret@bucket/x", "holds a password"),
        ("sftp://me:secret@host/x", "holds a password"),
        ("abfs://box/x?sig=secret", "holds a password or key"),
        ("simplecache::s3://bucket/x", "chained"),
        ("s4://bucket/x", "'s4' is no storage that we know"),
        ("memory://", "names no bucket or folder"),
        ("file://data/x", "file:///data/x"),
        (" ", "empty"),
    ],
)
def test_urls_that_cannot_be_right(url, words):
    with pytest.raises(InputError, match=words) as found:
        open_store(url)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize(("url", "module"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs")])
def test_a_package_that_is_missing_is_named(monkeypatch, url, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"pip install {module}"):
        open_store(url)


def test_a_store_that_refuses_is_told_before_the_search(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written and read: Not a directory"):
        open_store(str(tmp_path / "file" / "s")).check()


def test_a_relative_path_is_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("s").url == str(tmp_path / "s")
    assert open_store("s").under("run").url == str(tmp_path / "s" / "run")
