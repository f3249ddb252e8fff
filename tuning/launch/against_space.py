"""Whether a search fits a cluster: its data is seen by the nodes, and a trial fits a machine. Free of torch."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tuning.config.errors import Place
from tuning.config.read import read_spec
from tuning.config.schema import PACKED, SearchSpec
from tuning.config.yaml_source import Node, Report, Table, parse_yaml, read_file
from tuning.launch.kinds import ClusterFile
from tuning.launch.kube_file import shared_mounts
from tuning.launch.ray_file import shared_folders
from tuning.launch.size import Machines, grown, machines
from tuning.launch.tables import find

SYNTHETIC = "synthetic"  # made by each node for itself
_NODES_OWN = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/scratch/local", "/local", "/localscratch")


def check_space(
    file: ClusterFile, space: Path, *, runs: Path | None, store: str | None = None, data_from: str | None = None
) -> tuple[Report, list[str]]:
    """Faults and notes of searching ``space`` on the cluster of ``file``; faults of the space itself come with them.

    ``runs``: the folder of runs on the nodes. ``store``, ``data_from``: the URLs that the search will be given.
    Raises ``InputError`` where ``space`` is no readable file.
    """
    report, root = parse_yaml(read_file(space), str(space))
    spec = read_spec(root, report, str(space.resolve().parent)) if root is not None else None
    if root is None or spec is None:
        return report, []
    notes = _data(file, spec, root, report) if data_from is None else []
    if runs is not None and store is None:
        notes += _runs(file, runs)
    _trials(file, spec, root, report)
    return report, notes


def shared_by(file: ClusterFile) -> tuple[str, ...]:
    """The folders that all nodes see at the same path, as far as the file says; nothing for SLURM, which shares all."""
    if file.kind == "slurm":
        return ()
    return shared_folders(file.tree) if file.kind == "ray" else shared_mounts(file)


def _under(path: str, folders: tuple[str, ...]) -> bool:
    # `..` is not followed: it cannot be known where a link on the nodes leads.
    parts = PurePosixPath(path).parts
    return ".." not in parts and any(parts[: len(PurePosixPath(f).parts)] == PurePosixPath(f).parts for f in folders)


def _data(file: ClusterFile, spec: SearchSpec, root: Table, report: Report) -> list[str]:
    name, place = spec.data.set, _place(root, "data", "set")
    folders, at = shared_by(file), f"{report.file}:{place.line}"
    absolute = name.startswith(("/", "~"))
    if file.kind == "slurm":
        message = f"{at}: {name} is usually a node's own folder: each node must have the data there"
        return [message] if _under(name, _NODES_OWN) else []
    if name == SYNTHETIC or (absolute and _under(name, folders)):
        return []
    if absolute and not folders:
        return [f"{at}: {file.path.name} shares no folder, so each node needs {name}: submit with --data-from URL"]
    if absolute:
        where = ", ".join(folders)
        message = f"the workers will not see {name}: {file.path.name} shares {where}; or submit with --data-from URL"
    else:
        here = next((p for p in (Path(spec.origin) / name, Path.cwd() / name) if p.exists()), None)
        size = "" if here is None else f" ({_mib(here)} MiB here)"
        message = (
            f"'{name}' is a path on this machine{size}, and a job takes the code with it, never the data: give the "
            "absolute path of a folder that the nodes share, or submit with --data-from URL"
        )
    report.add(place, message)
    return []


def _mib(path: Path) -> int:
    """The size of a dataset folder; only its own files are looked at, not those of folders in it."""
    files = path.iterdir() if path.is_dir() else iter([path])
    return sum(f.stat().st_size for f in files if f.is_file()) >> 20


def _runs(file: ClusterFile, runs: Path) -> list[str]:
    folders = shared_by(file)
    if file.kind == "slurm":
        lost = _under(str(runs), _NODES_OWN)
        return (
            [f"{runs} is usually a node's own folder: trials cannot go on on another node without --store"]
            if lost
            else []
        )
    if _under(str(runs), folders):
        return []
    shares = f"shares {', '.join(folders)}" if folders else "shares no folder"
    return [f"{file.path.name} {shares}: with --runs {runs}, trials go on on another node only with --store URL"]


def _trials(file: ClusterFile, spec: SearchSpec, root: Table, report: Report) -> None:
    sorts = machines(file)
    if not sorts or not all(sort.resources for sort in sorts):
        return  # machines of one's own: Ray counts what they have when they are there
    wants = spec.budget.per_trial
    most = {name: max(sort.resources.get(name, 0.0) for sort in sorts) for name in ("CPU", "GPU")}
    gpu = wants.gpu if isinstance(wants.gpu, int | float) else (1.0 if most["GPU"] else 0.0)
    fits = True
    for name, key, value in (("GPU", "gpu", gpu), ("CPU", "cpu", wants.cpu)):
        if value > most[name]:
            fits = False
            place = _place(root, "budget", "per_trial", key)
            report.add(
                place,
                f"a trial wants {value:g} {name}, but no machine of {file.path.name} has more than {most[name]:g}",
            )
    parallel = spec.budget.parallel
    if not fits or not isinstance(parallel, int) or wants.gpu == PACKED:
        return
    held = _held(file, sorts, gpu, wants.cpu)
    if parallel > held:
        total = ", ".join(f"{value:g} {name}" for name, value in grown(file).items() if value)
        message = f"{parallel} trials at once do not fit: {file.path.name} grown to {total} holds {held}"
        report.add(_place(root, "budget", "parallel"), message)


def _held(file: ClusterFile, sorts: tuple[Machines, ...], gpu: float, cpu: float) -> int:
    """How many trials run at once when the cluster has grown; more than fit rather than fewer, where kinds compete."""
    each = [_slots(sort, gpu, cpu) for sort in sorts]
    room = each[0] * sorts[0].most + sum(n * sort.most for n, sort in zip(each[1:], sorts[1:], strict=True))
    total = find(file.tree, "max_workers") if file.kind == "ray" else None
    if total is None:
        return room
    return min(room, each[0] + max([0, *each[1:]]) * getattr(total, "value", 0))


def _slots(sort: Machines, gpu: float, cpu: float) -> int:
    has = sort.resources
    by_cpu = int((has.get("CPU", 0.0) + 1e-9) // cpu)
    if not gpu:
        return by_cpu
    # Ray never gives one trial halves of two GPUs.
    by_gpu = int(has.get("GPU", 0.0)) * int((1 + 1e-9) // gpu) if gpu < 1 else int(has.get("GPU", 0.0) // gpu)
    return min(by_cpu, by_gpu)


def _place(root: Table, *way: str) -> Place:
    """Where the value at ``way`` stands, or the nearest section that there is."""
    node: Node = root
    for part in way:
        inner = find(node, part)
        if inner is None:
            break
        node = inner
    return node.place
