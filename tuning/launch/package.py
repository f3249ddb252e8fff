"""What a job on a cluster runs from: the two packages as they are installed here, and the search-space file.

Ray names what it uploads by its content and so sends the same code once; what a folder holds is the same to the byte
whenever and wherever it is made from the same files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from methods.errors import InputError
from tuning.config.schema import SearchSpec
from tuning.launch.beside import referred
from tuning.space import Space

PACKAGES = ("methods", "tuning")
SHIPPED = ("search_spaces", "cluster")  # in a checkout they lie beside the packages, on a node inside `tuning`
CODE = (".py", ".yaml", ".sh")  # by their ends; weights, arrays, journals and keys have others
LARGEST = 100 * 1000**2  # bytes; Ray's own limit for a package is a few times that
FOLDER = "search"  # of the space file within the staged folder; no file of a user can meet the packages there
_EPOCH = 315_532_800  # 1980-01-01, the oldest time that a zip file knows: of every file, so that bytes are the same


@dataclass(frozen=True)
class Staged:
    """A folder that a job can run from.

    ``space_name``: the space file's path within it. ``files``: all of them, sorted. ``size``: of all of them, bytes.
    ``run``: the search's name; ``space_hash``: of its space. ``notes``: what a cluster must have besides.
    """

    folder: Path
    space_name: str
    files: tuple[str, ...]
    size: int
    run: str
    space_hash: str
    notes: tuple[str, ...]


def stage(space: Path, into: Path) -> Staged:
    """Check the search ``space`` (a file, or the name of a shipped one) and lay out in ``into`` what its job needs.

    ``into`` must be empty or not exist yet. Raises ``ConfigError`` for faults of the space, and ``InputError`` where
    there is nothing to search, a file cannot be read, or it all comes to more than 100 MB; nothing is written then.
    """
    path, spec, bound = read_space(space)
    beside, notes = referred(spec)
    depth = max((PurePosixPath(name).parts.count("..") for name in beside), default=0)
    shelf = PurePosixPath(FOLDER, *["up"] * depth)  # so that `../old/run` stays within the folder
    plan = {PurePosixPath(os.path.normpath(shelf / name)).as_posix(): source for name, source in beside.items()}
    name = (shelf / path.name).as_posix()
    plan[name] = path
    plan |= dict(code_files())
    size = _weigh(plan)
    if into.exists() and any(into.iterdir()):
        raise InputError(f"{into}: the folder to stage in is not empty")
    for target, source in sorted(plan.items()):
        _copy(source, into / target)
    _date_folders(into)
    notes = (*notes, *_strangers(bound), *_elsewhere(spec))
    return Staged(into, name, tuple(sorted(plan)), size, spec.name, spec.space_hash(), notes)


def read_space(space: Path) -> tuple[Path, SearchSpec, Space]:
    """The file of a search space and what it says; raises as :func:`stage` for one that no job could search."""
    from tuning.resources import find_space
    from tuning.space import load_search

    path = find_space(str(space))
    spec, bound = load_search(path)
    if len(bound.branches) == 1 and not any(bound.free.values()):
        raise InputError(f"{path}: there is nothing to search, every parameter is fixed; `skeltune train` trains it")
    return path, spec, bound


def code_files() -> Iterator[tuple[str, Path]]:
    """``(path in the staged folder, file here)`` of both packages and of the shipped spaces and cluster files."""
    import methods
    import tuning
    from tuning.resources import shipped

    for package in (methods, tuning):
        root = Path(str(package.__file__)).resolve().parent
        yield from _walk(root, package.__name__)
    for kind in SHIPPED:
        yield from _walk(shipped(kind), f"tuning/{kind}")


def stage_code(into: Path) -> None:
    """Lay out both packages in ``into``, side by side as they must be, for processes on other machines."""
    for target, source in code_files():
        _copy(source, into / target)
    _date_folders(into)


def _walk(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    for folder, below, files in os.walk(root):
        below[:] = sorted(b for b in below if not b.startswith((".", "__pycache__")))
        for file in sorted(files):
            if not file.startswith(".") and (file.endswith(CODE) or file == "py.typed"):
                here = Path(folder, file)
                yield f"{name}/{here.relative_to(root).as_posix()}", here


def _weigh(plan: dict[str, Path]) -> int:
    """Bytes of all files. Raises ``InputError`` with a line for each that cannot be read, or for what is too big."""
    sizes, faults = {}, []
    for target, source in plan.items():
        try:
            facts = source.stat()
            with source.open("rb"):
                pass
        except OSError as error:
            faults.append(f"{source}: cannot be read ({error.strerror})")
            continue
        if not stat.S_ISREG(facts.st_mode):
            faults.append(f"{source}: this is no plain file")
        sizes[target] = facts.st_size
    if faults:
        raise InputError(*faults)
    total = sum(sizes.values())
    if total > LARGEST:
        big = sorted(sizes, key=lambda target: -sizes[target])[:3]
        told = ", ".join(f"{plan[target]} ({megabytes(sizes[target])})" for target in big)
        raise InputError(
            f"what the job needs comes to {megabytes(total)}, at most {megabytes(LARGEST)} are sent; the largest: "
            f"{told}. Put what is large on a disk that the nodes see, and name it by its absolute path"
        )
    return total


def megabytes(size: float) -> str:
    """`1.6 MB`"""
    return f"{size / 1000**2:.1f} MB"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    target.chmod(0o755 if target.suffix == ".sh" else 0o644)
    os.utime(target, (_EPOCH, _EPOCH))


def _date_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        Path(folder).chmod(0o755)
        os.utime(folder, (_EPOCH, _EPOCH))


def _strangers(space: Space) -> Iterator[str]:
    """A note for each method that comes from a package of somebody else's: that is not sent."""
    from methods.registry import get_method

    for name in space.methods:
        package = get_method(name).cls.__module__.partition(".")[0]
        if package not in PACKAGES:
            yield f"method '{name}' comes from the package '{package}', which is not sent: install it on every node"


def _elsewhere(spec: SearchSpec) -> Iterator[str]:
    """Notes about paths that mean something else where the job runs; `data.set` is checked with the cluster's file."""
    if spec.finish.export and not Path(spec.finish.export).is_absolute():
        yield f"finish.export '{spec.finish.export}' is relative: that copy of best.yaml is lost with the job's folder"
