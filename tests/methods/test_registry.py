"""Names and methods: the static table, strangers from entry points, and two that want the same name."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import types
from pathlib import Path

import pytest

import methods
from methods import registry
from methods.base import Method
from methods.errors import InputError, did_you_mean
from methods.fields import field_table
from methods.recipe import Recipe
from methods.registry import BUILT_IN, get_method, list_methods, register

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _restored():
    before = {name: get_method(name) for name in BUILT_IN}  # imported, for a module registers once
    yield
    registry._entries.clear()
    registry._entries.update(before)


def stranger(name: str, module: str = "their.module") -> type[Method]:
    """A method class that claims to live in ``module``."""
    sys.modules.setdefault(module, types.ModuleType(module, doc="Their method.\n\nMore of it."))
    return type(name, (Method,), {"__module__": module})


@pytest.fixture
def entry_point(monkeypatch: pytest.MonkeyPatch):
    """Pretends that a package is installed whose entry point gives ``value`` the name ``name``."""

    def install(name: str, value: str) -> None:
        point = importlib.metadata.EntryPoint(name, value, registry.ENTRY_POINTS)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])

    return install


def test_every_built_in_is_found_under_its_name() -> None:
    assert set(BUILT_IN) <= set(list_methods())
    for name, module in BUILT_IN.items():
        entry = get_method(name)
        assert entry.name == name and issubclass(entry.cls, Method)
        assert entry.cls.__module__ == entry.config.__module__ == module
        assert entry.summary and field_table(entry.config)


def test_names_come_sorted_and_once() -> None:
    assert list(list_methods()) == sorted(set(list_methods()))


def test_listing_imports_no_method() -> None:
    code = (
        "import sys; from methods.registry import BUILT_IN, list_methods; assert set(BUILT_IN) <= set(list_methods());"
        "print(sorted(set(BUILT_IN.values()) & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("wrong", "hint"), [("skeletonclt", "did you mean 'skeletonclr'?"), ("zzz", "known: "), ("", "unknown method ''")]
)
def test_unknown_method(wrong: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        get_method(wrong)
    assert f"unknown method '{wrong}'" in str(caught.value) and hint in str(caught.value)


def test_register_in_this_process() -> None:
    cls = stranger("Mine")
    assert register("mine", config=Recipe)(cls) is cls
    entry = get_method("mine")
    assert "mine" in list_methods()
    assert (entry.cls, entry.config, entry.recipe, entry.summary) == (cls, Recipe, Recipe(), "Their method.")


def test_two_modules_cannot_share_a_name() -> None:
    register("mine", config=Recipe)(stranger("Mine"))
    with pytest.raises(InputError, match=r"'mine': their.module and other.module"):
        register("mine", config=Recipe)(stranger("Other", "other.module"))


def test_a_module_may_be_run_again() -> None:
    register("mine", config=Recipe)(stranger("Mine"))
    again = stranger("Mine")
    register("mine", config=Recipe)(again)
    assert get_method("mine").cls is again


def test_built_in_names_cannot_be_taken() -> None:
    get_method("skeletonclr")
    with pytest.raises(InputError, match="two methods are called 'skeletonclr'"):
        register("skeletonclr", config=Recipe)(stranger("Fake"))


def test_built_in_names_cannot_be_taken_beforehand() -> None:
    code = (
        "from methods.base import Method\nfrom methods.registry import get_method, register\n"
        "from methods.recipe import Recipe\nfrom methods.errors import InputError\n"
        "class Fake(Method): pass\n"
        "try:\n    register('skeletonclr', config=Recipe)(Fake)\nexcept InputError:\n    print('refused')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "refused"


def test_entry_point_is_imported_at_first_use(entry_point, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package.py").write_text(
        '"""A stranger\'s method."""\n'
        "from methods.base import Method\nfrom methods.recipe import Recipe\nfrom methods.registry import register\n"
        "@register('theirs', config=Recipe)\nclass Theirs(Method):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_point("theirs", "their_package:Theirs")
    assert "theirs" in list_methods() and "their_package" not in sys.modules
    assert get_method("theirs").summary == "A stranger's method."
    assert "their_package" in sys.modules
    del sys.modules["their_package"]


def test_entry_point_of_a_built_in_name(entry_point) -> None:
    entry_point("skeletonclr", "their_package:X")
    with pytest.raises(InputError, match=r"their_package:X.* takes the name of the built-in"):
        list_methods()


def test_entry_point_that_registers_nothing(entry_point) -> None:
    entry_point("empty", "colorsys:X")
    with pytest.raises(InputError, match="colorsys does not register a method called 'empty'"):
        get_method("empty")


def test_entry_point_that_is_not_there(entry_point) -> None:
    entry_point("gone", "no_such_package:X")
    with pytest.raises(InputError, match="no_such_package"):
        get_method("gone")


# --- the public names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", methods.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(methods, name) is getattr(importlib.import_module(methods._PUBLIC[name]), name)
    assert name in dir(methods)


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match=r"methods.*nothing"):
        _ = methods.nothing


def test_did_you_mean() -> None:
    assert did_you_mean("temprature", ["temperature", "queue"]) == "; did you mean 'temperature'?"
    assert did_you_mean("zzz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("zzz", map(str, range(31))) == ""
    assert did_you_mean("zzz", []) == ""


def test_input_error_keeps_its_faults() -> None:
    error = InputError("one", "two")
    assert error.faults == ("one", "two") and str(error) == "one\ntwo" and isinstance(error, ValueError)
