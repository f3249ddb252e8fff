"""Who may call whom: read from the syntax tree of every file, and from what a fresh process has imported."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(p for room in ("methods", "tuning") for p in (ROOT / room).rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(p): p for p in FILES}
PACKAGES = {dotted(p) for p in FILES if p.name == "__init__.py"}
every_module = pytest.mark.parametrize("module", MODULES)


@dataclass(frozen=True)
class Import:
    """``target``: the module or, for one of ours, the module that really holds the name. ``late``: in a function."""

    target: str
    line: int
    late: bool


def imports_in(tree: ast.AST, late: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """All import statements but those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, late
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports_in(ast.Module([other], []), late)
        else:
            yield from imports_in(node, late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def targets(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        here = module.split(".") if module in PACKAGES else module.split(".")[:-1]
        base = ".".join([*here[: len(here) - node.level + 1], *([base] if base else [])])
    # `from package import module` is an import of the module
    return [f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names]


@functools.cache
def imports(module: str) -> tuple[Import, ...]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return tuple(Import(t, node.lineno, late) for node, late in imports_in(tree) for t in targets(module, node))


def ours(module: str, only_early: bool = False) -> set[str]:
    return {i.target for i in imports(module) if i.target in MODULES and not (only_early and i.late)} - {module}


def below(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def test_the_reader_of_imports_reads() -> None:
    """The rules below hold for nothing if the reader finds nothing: three imports that are surely there."""
    assert "methods.nn.ema" in ours("methods.skeletonclr")
    assert "methods.data.layouts" not in ours("methods.nn.graph")  # under TYPE_CHECKING
    assert any(i.target == "ray" and i.late for i in imports("tuning.driver"))
    source = (
        "def f():\n    from . import b\nif TYPE_CHECKING:\n    import x\nelse:\n    import y\nwith a:\n    import z\n"
    )
    found = [(n.lineno, late) for n, late in imports_in(ast.parse(source))]
    assert found == [(2, True), (6, False), (8, False)]


# --- methods --------------------------------------------------------------------------------------------------------

LIBRARIES = {"methods.data.reading.mat_files": {"scipy"}}  # the only file that needs it, late and with a way out

METHOD_ROOMS = [  # (who, floor): nobody imports a floor above the own
    ("methods.errors", 0), ("methods.fields", 0), ("methods.filled", 0),
    ("methods.nn", 1), ("methods.augment", 1), ("methods.losses", 1), ("methods.data", 1), ("methods.official", 1),
    ("methods.base", 2), ("methods.recipe", 2), ("methods.registry", 2),
    ("methods.training", 4), ("methods.api", 5), ("methods", 5),
]  # fmt: skip
METHOD_FLOOR = 3  # every other file straight under methods/ is a method
SIDE_BY_SIDE = ("methods.nn", "methods.augment", "methods.losses", "methods.data")


def room_of(module: str) -> tuple[str, int]:
    if module == "methods":
        return "methods", 5
    known = [(room, floor) for room, floor in METHOD_ROOMS[:-1] if below(module, room)]
    return known[0] if known else (module, METHOD_FLOOR)


METHOD_FILES = [m for m in MODULES if below(m, "methods") and room_of(m)[1] == METHOD_FLOOR]


def test_the_methods_are_found() -> None:
    assert {"methods.skeletonclr", "methods.skeletonbyol"} <= set(METHOD_FILES)


@every_module
def test_methods_imports_only_torch_and_numpy(module: str) -> None:
    if below(module, "methods"):
        allowed = {*sys.stdlib_module_names, "torch", "numpy", "methods"}
        late = LIBRARIES.get(module, set())
        strange = [
            f"{i.target} in line {i.line}"
            for i in imports(module)
            if i.target.split(".")[0] not in allowed | (late if i.late else set())
        ]
        assert not strange


@pytest.mark.parametrize("module", [m for m in MODULES if below(m, "methods") and m != "methods"])
def test_nobody_in_methods_calls_upstairs(module: str) -> None:
    _, floor = room_of(module)
    assert not [t for t in ours(module) if room_of(t)[1] > floor or t == "methods"]


@pytest.mark.parametrize("module", [m for m in MODULES if below(m, "methods")])
def test_the_rooms_of_the_ground_floor_do_not_need_each_other(module: str) -> None:
    room, _ = room_of(module)
    if room in SIDE_BY_SIDE:
        assert not [t for t in ours(module) if room_of(t)[0] in SIDE_BY_SIDE and room_of(t)[0] != room]


@pytest.mark.parametrize("module", METHOD_FILES)
def test_one_method_never_imports_another(module: str) -> None:
    assert not ours(module) & set(METHOD_FILES)
    assert not [t for t in ours(module) if below(t, "methods.training") or below(t, "methods.data")]


@pytest.mark.parametrize("module", [m for m in MODULES if below(m, "methods") and m not in METHOD_FILES])
def test_nobody_names_a_single_method(module: str) -> None:
    """They are reached by name, through the registry alone."""
    assert not ours(module) & set(METHOD_FILES)


# --- tuning ---------------------------------------------------------------------------------------------------------

RAY = {
    "tuning.driver", "tuning.fit", "tuning.trial", "tuning.stock", "tuning.jobs", "tuning.adapters", "tuning.places",
    "tuning.watching.view", "tuning.watching.preflight", "tuning.watching.over_client",
    "tuning.launch.job_client", "tuning.launch.ray_cluster", "tuning.launch.ray_schema_check",
    "tuning.measuring.calibrate",
}  # fmt: skip
OPTUNA = {"tuning.stock", "tuning.observe.mirror"}  # and the model of the search in tuning.engine
SEES_NOTHING_OF = [  # (room, what it must not import, late imports too)
    ("tuning.config", {"ray", "optuna", "torch"}), ("tuning.space", {"ray", "optuna", "torch"}),
    ("tuning.engine", {"ray", "torch"}), ("tuning.observe", {"ray"}), ("tuning.storage", {"ray", "torch", "optuna"}),
    ("tuning.launch", {"torch", "optuna"}),
    ("tuning.measuring.packing", {"ray", "torch"}), ("tuning.measuring.crowd", {"ray", "torch"}),
    ("tuning.cli", {"ray", "optuna", "torch"}),
]  # fmt: skip
UPSTAIRS = [  # (room, what of tuning it may import)
    ("tuning.config", ("tuning.config",)),
    ("tuning.space", ("tuning.space", "tuning.config")),
    ("tuning.engine", ("tuning.engine", "tuning.config", "tuning.space")),
    ("tuning.storage", ("tuning.storage", "tuning.engine", "tuning.files")),
]
TUNING = [m for m in MODULES if below(m, "tuning")]


@pytest.mark.parametrize("module", TUNING)
def test_only_a_few_files_know_ray_and_optuna(module: str) -> None:
    roots = {i.target.split(".")[0] for i in imports(module)}
    assert "ray" not in roots or module in RAY
    assert "optuna" not in roots or module in OPTUNA or below(module, "tuning.engine")


def test_the_list_of_who_knows_ray_is_not_stale() -> None:
    assert {m for m in TUNING if any(i.target.split(".")[0] == "ray" for i in imports(m))} == RAY & set(TUNING)


@pytest.mark.parametrize(("room", "hidden"), SEES_NOTHING_OF)
def test_rooms_that_see_nothing_of(room: str, hidden: set[str]) -> None:
    for module in (m for m in TUNING if below(m, room)):
        assert not {i.target.split(".")[0] for i in imports(module)} & hidden, module


@pytest.mark.parametrize(("room", "allowed"), UPSTAIRS)
def test_nobody_in_tuning_calls_upstairs(room: str, allowed: tuple[str, ...]) -> None:
    for module in (m for m in TUNING if below(m, room)):
        wrong = [t for t in ours(module) if below(t, "tuning") and not any(below(t, a) for a in allowed)]
        assert not wrong, module


@pytest.mark.parametrize("module", TUNING)
def test_the_verbs_stand_on_top(module: str) -> None:
    if not below(module, "tuning.cli") and module != "tuning.__main__":
        assert not [t for t in ours(module) if below(t, "tuning.cli")]


@pytest.mark.parametrize("module", TUNING)
def test_tuning_names_no_single_method(module: str) -> None:
    assert not ours(module) & set(METHOD_FILES)


# --- everywhere -----------------------------------------------------------------------------------------------------


def test_no_circles() -> None:
    """Imports on top of files, in depth: coming back to a file that is still open is a circle."""
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in finished:
            for target in sorted(ours(module, only_early=True)):
                visit(target, (*path, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())


@every_module
def test_no_assert(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Assert)] == []


@every_module
def test_nothing_is_unpickled_or_evaluated(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load"), f"line {node.lineno}"
            if name == "torch.load":
                assert words.get("weights_only") == "True", f"line {node.lineno}"
            if name in ("np.load", "numpy.load"):
                assert words.get("allow_pickle") == "False", f"line {node.lineno}"


@every_module
def test_every_file_says_what_it_is(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)


def loaded(code: str, *names: str) -> list[str]:
    """Which of ``names`` a fresh process has in ``sys.modules`` after ``code``."""
    script = f"import sys\n{code}\nprint(*[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


HEAVY = ("torch", "ray", "optuna")


def test_help_answers_without_the_heavy_ones() -> None:
    assert loaded("import tuning.cli", *HEAVY, "tuning.cli") == ["tuning.cli"]
    code = "import tuning.cli\ntry:\n    tuning.cli.main(['--help'])\nexcept SystemExit:\n    pass"
    assert [n for n in loaded(code, *HEAVY) if n in HEAVY] == []


def test_reading_a_space_needs_no_torch() -> None:
    assert loaded("import tuning.config.read, tuning.space, tuning.engine.journal", *HEAVY) == []


def test_the_driver_loads_ray_only_when_a_search_starts() -> None:
    assert "ray" not in loaded("import tuning.driver", "ray", "optuna")


def test_methods_brings_in_nothing_of_tunings() -> None:
    strangers = ("ray", "optuna", "yaml", "pydantic", "scipy", "matplotlib", "typer", "rich", "tuning")
    code = "import methods, methods.training.pretrain, methods.training.evaluate, methods.data"
    assert loaded(code, *strangers) == []
    everything = "\n".join(f"import {m}" for m in MODULES if below(m, "methods"))
    assert loaded(everything, *strangers, "methods.skeletonclr") == ["methods.skeletonclr"]


def test_importing_methods_alone_is_cheap() -> None:
    assert loaded("import methods; methods.InputError", "torch", "numpy") == []
    assert loaded("import methods.data", "torch") == []
