"""What a job on a cluster runs from: complete, the same every time, and nothing that must stay here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from methods.errors import InputError
from tuning.launch import package
from tuning.launch.home import make_keys, token_of
from tuning.launch.package import stage

ROOT = Path(__file__).resolve().parents[3]
SPACE = """format: 1
name: tiny
data: {set: synthetic}
search: {method: skeletonclr, optim: {lr: {log: [0.0001, 0.1]}}}
budget: {trials: 3}
"""
JOURNAL = '{"e": "open"}\n'


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def facts(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(p.relative_to(folder)): (p.read_bytes() if p.is_file() else b"", p.stat().st_mtime_ns, p.stat().st_mode)
        for p in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged") / "job"
    return stage(Path("quickstart"), folder)


def test_both_packages_whole_and_nothing_else(staged):
    there = {str(p.relative_to(staged.folder)) for p in staged.folder.rglob("*") if p.is_file()}
    assert there == set(staged.files)
    code = {str(p.relative_to(ROOT)) for room in ("methods", "tuning") for p in (ROOT / room).rglob("*.py")}
    spaces = {f"tuning/{p.relative_to(ROOT)}" for p in (ROOT / "search_spaces").rglob("*.yaml")}
    assert code | spaces | {"methods/py.typed", "tuning/cluster/onprem.yaml"} <= there
    assert [f for f in there if not f.startswith(("methods/", "tuning/"))] == ["search/quickstart.yaml"]
    assert {Path(f).suffix for f in there} <= {".py", ".yaml", ".sh", ".typed"}
    assert not [f for f in there if "__pycache__" in f or "/." in f]
    assert staged.size == sum((staged.folder / f).stat().st_size for f in there) < 10e6


def test_python_finds_the_staged_packages_and_the_shipped_spaces(staged):
    code = (
        "import tuning, methods; from tuning.resources import find_space; "
        "print(tuning.__file__, methods.__file__, find_space('quickstart'), sep='\\n')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONDONTWRITEBYTECODE": "1"}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=staged.folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    assert told == [
        str(staged.folder / name)
        for name in ("tuning/__init__.py", "methods/__init__.py", "tuning/search_spaces/quickstart.yaml")
    ]


def test_the_same_to_the_byte_wherever_and_whenever(staged, tmp_path):
    again = stage(ROOT / "search_spaces" / "quickstart.yaml", tmp_path / "elsewhere")
    assert facts(again.folder) == facts(staged.folder)
    assert (again.files, again.space_hash, again.run) == (staged.files, staged.space_hash, "quickstart")


def test_what_lies_about_in_a_checkout_stays_here(tmp_path):
    for name in ("a.py", "sub/b.py", "c.pt", "token", ".env.py", "__pycache__/d.py", ".git/e.py", "x.npy", "log.jsonl"):
        write(tmp_path / "room" / name, "")
    assert [target for target, _ in package._walk(tmp_path / "room", "room")] == ["room/a.py", "room/sub/b.py"]


@pytest.fixture
def no_code(monkeypatch):
    monkeypatch.setattr(package, "code_files", lambda: iter(()))


@pytest.mark.usefixtures("no_code")
def test_what_a_warm_start_names_comes_along_where_the_same_path_leads_to_it(tmp_path):
    for name in ("mine/near.yaml", "old/run/journal.jsonl", "old/run/space.yaml", "old/run/best.pt", "cwd/there.yaml"):
        write(tmp_path / name, JOURNAL)
    sources = [
        "near.yaml", "../old/run", "cwd/there.yaml", "../../up.jsonl#study", "/data/far", "~/far", "later",
        "near.yaml#a", "postgresql://me:secret@db/lab",
    ]  # fmt: skip
    write(tmp_path.parent / "up.jsonl", JOURNAL)
    space = write(tmp_path / "mine" / "tiny.yaml", f"{SPACE}warm_start: {sources}\n")
    done = stage(space, tmp_path / "job")
    (tmp_path.parent / "up.jsonl").unlink()
    assert done.space_name == "search/up/up/tiny.yaml"
    beside = Path(done.folder, done.space_name).parent
    found = sorted(os.path.relpath(done.folder / name, beside) for name in done.files)
    assert found == [
        "../../up.jsonl", "../old/run/journal.jsonl", "../old/run/space.yaml", "cwd/there.yaml", "near.yaml",
        "tiny.yaml",
    ]  # fmt: skip
    told = "\n".join(done.notes)
    assert "secret" not in told
    assert [word in told for word in ("/data/far", "~/far", "later", "me:***@db")] == [True] * 4


@pytest.mark.usefixtures("no_code")
def test_a_token_never_travels(tmp_path):
    make_keys("lab", tls=False)
    space = write(tmp_path / "tiny.yaml", f"{SPACE}warm_start: [home/clusters/lab/token]\n")
    with pytest.raises(InputError, match="folder of a cluster's keys"):
        stage(space, tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_nor_with_a_whole_package(tmp_path, staged):
    make_keys("lab", tls=False)
    token = token_of("lab").encode()
    assert not [name for name in staged.files if token in (staged.folder / name).read_bytes()]


@pytest.mark.usefixtures("no_code")
def test_nothing_is_written_for_a_wrong_space(tmp_path):
    wrong = write(tmp_path / "wrong.yaml", SPACE.replace("optim", "opitm"))
    with pytest.raises(InputError, match=r"wrong\.yaml:4:"):
        stage(wrong, tmp_path / "job")
    fixed = write(tmp_path / "fixed.yaml", SPACE.replace("{log: [0.0001, 0.1]}", "0.01"))
    with pytest.raises(InputError, match="nothing to search"):
        stage(fixed, tmp_path / "job")
    with pytest.raises(InputError, match="no shipped search space"):
        stage(Path("quikstart"), tmp_path / "job")
    assert not (tmp_path / "job").exists()


@pytest.mark.usefixtures("no_code")
def test_what_is_too_large_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "LARGEST", 5000)
    write(tmp_path / "old.jsonl", "x" * 6000)
    space = write(tmp_path / "tiny.yaml", f"{SPACE}warm_start: [old.jsonl]\n")
    with pytest.raises(InputError, match=r"the largest: .*old\.jsonl \(0\.0 MB\)"):
        stage(space, tmp_path / "job")
    assert not (tmp_path / "job").exists()


@pytest.mark.usefixtures("no_code")
def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    write(tmp_path / "job" / "mine.txt", "")
    with pytest.raises(InputError, match="not empty"):
        stage(write(tmp_path / "tiny.yaml", SPACE), tmp_path / "job")


@pytest.mark.usefixtures("no_code")
def test_notes_of_what_the_nodes_must_have(tmp_path, monkeypatch):
    from methods import registry

    outside = SimpleNamespace(cls=type("Theirs", (), {"__module__": "theirs.deep"}))
    monkeypatch.setattr(registry, "get_method", lambda name: outside)
    assert [*package._strangers(SimpleNamespace(methods=("new",)))] == [
        "method 'new' comes from the package 'theirs', which is not sent: install it on every node"
    ]
    monkeypatch.undo()
    monkeypatch.setattr(package, "code_files", lambda: iter(()))
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "home"))
    space = write(tmp_path / "tiny.yaml", f"{SPACE}finish: {{export: best/x.yaml}}\n")
    assert "finish.export 'best/x.yaml' is relative" in stage(space, tmp_path / "job").notes[0]
