"""The shipped YAML is found from a checkout, an editable install and a wheel; `methods` must be ours."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from methods.errors import InputError
from tuning.resources import find_space, shipped

ROOT = Path(__file__).resolve().parent.parent


def test_from_here():
    assert (shipped("search_spaces") / "quickstart.yaml").is_file()
    assert (shipped("cluster") / "runtime_env.yaml").is_file()
    assert find_space("quickstart") == shipped("search_spaces") / "quickstart.yaml"
    assert find_space("some/file.yaml") == Path("some/file.yaml")
    with pytest.raises(InputError, match="did you mean 'quickstart'"):
        find_space("quikstart")


@pytest.mark.system
def test_from_a_wheel(tmp_path):
    """Build the wheel, unpack it elsewhere, and find the quickstart from there."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    new_enough = "import setuptools; raise SystemExit(int(setuptools.__version__.split('.')[0]) < 77)"
    if subprocess.run([sys.executable, "-c", new_enough], check=False, capture_output=True).returncode:
        pytest.skip("setuptools 77 or later is not installed here, so no wheel can be built without a network")
    subprocess.run(build, check=True, timeout=120, cwd=tmp_path)
    (wheel,) = tmp_path.glob("skeltune-*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True, timeout=120)
    code = (
        "import tuning, methods; from tuning.resources import shipped; "
        "print(shipped('search_spaces') / 'quickstart.yaml'); print(shipped('cluster'))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(site)}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    assert Path(told[0]) == site / "tuning" / "search_spaces" / "quickstart.yaml"
    assert Path(told[0]).read_text() == (ROOT / "search_spaces" / "quickstart.yaml").read_text()
    top = {p.name for p in site.iterdir() if not p.name.endswith(".dist-info")} - {"bin", "__pycache__"}
    assert top == {"methods", "tuning"}  # tests, benchmarks and docs are never installed


def test_a_strangers_methods_package_is_named(tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "__init__.py").write_text("")
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import tuning"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert found.returncode
    assert str(tmp_path / "methods") in found.stderr
    assert "remove or rename the other one" in found.stderr


def test_every_package_is_listed():
    """A new folder with Python files must be named in pyproject.toml, or the wheel would lack it."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    here = {
        str(path.parent.relative_to(ROOT)).replace(os.sep, ".")
        for room in ("methods", "tuning")
        for path in (ROOT / room).rglob("*.py")
    }
    assert here <= listed
    assert listed - here == {"tuning.search_spaces", "tuning.cluster"}


def test_torch_is_pinned_and_every_install_is_constrained():
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert all("-c constraints.txt" in line for line in makefile.splitlines() if "pip install" in line)


def test_shipped_spaces_load():
    from tuning.space import load_search

    files = sorted((ROOT / "search_spaces").rglob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        spec, space = load_search(file)
        assert any(space.free.values())
        assert file.read_text().startswith("#"), f"{file.name} opens with the commands that use it"
        assert spec.name
