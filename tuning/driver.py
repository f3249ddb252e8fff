"""Runs a search: connects to Ray, binds the parts together, and leads it from the first ask to best.yaml."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.errors import InputError, WorkFailed
from tuning.engine.journal import Journal
from tuning.launch.package import stage_code
from tuning.plan import Plan, open_run, plan_search
from tuning.run_files import NODES_FILE
from tuning.search import Search
from tuning.slots import find_slots

if TYPE_CHECKING:
    from tuning.stored import Stored

ENGINES = ("skeltune", "stock", "random-asha")


def run_search(
    space_file: Path | str,
    *,
    runs: Path | str = "runs",
    engine: str = "skeltune",
    address: str | None = None,
    seconds_per_epoch: float | None = None,
    expect: Mapping[str, float] | None = None,
    store: str = "",
    data_from: str = "",
    say: Callable[[str], None] = print,
) -> Path | None:
    """Run or continue the search of ``space_file`` in ``runs/<name>``; returns the path of best.yaml if it got there.

    ``address``: None starts Ray on this machine; ``auto``, ``host:port`` and ``ray://host:port`` use one that runs.
    ``expect``: what that cluster has when it has grown, e.g. ``{"CPU": 64, "GPU": 8}``; trials queue for it, which is
    what makes it grow. ``store``: a URL where journal and checkpoints are copied to, for nodes that share no disk and a
    head whose disk may be lost. ``data_from``: from where each node copies the dataset. ``seconds_per_epoch`` only
    serves to say beforehand how long it will take. Raises ``InputError`` for whatever the user can mend. Safe to kill
    at any instant: the same call goes on.
    """
    if engine not in ENGINES:
        raise InputError(f"engine '{engine}' is not one of {', '.join(ENGINES)}")
    plan = plan_search(Path(space_file), Path(runs), data_from)
    if len(plan.space.branches) == 1 and not any(plan.space.free.values()):
        raise InputError(
            f"{space_file}: there is nothing to search, every parameter is fixed; train it with: "
            f"skeltune train {space_file}"
        )
    notes = list(plan.notes)
    if engine != "skeltune":
        from tuning.stock_words import ignored, refused

        faults = refused(plan.spec, engine)
        if faults:
            raise InputError(*faults)
        notes += ignored(plan.spec, engine)
    if address is None:
        find_slots(plan.spec.budget, this_machine())  # a wish that cannot be met is told before anything starts
    for note in notes:
        say(f"note: {note}")
    stored = _stored(store, plan, say)
    with open_run(plan, engine, say) as journal:
        search = _make(engine)(plan, journal, say)
        search.stored = stored
        done = search.done_before()
        if done is not None:
            return done
        with _copying(stored, journal), _ray(address):
            from tuning.ground import prepare
            from tuning.measuring.calibrate import packed
            from tuning.watching.view import ClusterView

            view = ClusterView(plan.folder / NODES_FILE, say, expect)
            view.look()
            ground = prepare(plan, view, say, stored=stored, cluster=address is not None)
            ground = packed(ground, plan, journal, say)
            return search.run(ground, seconds_per_epoch)


def _stored(store: str, plan: Plan, say: Callable[[str], None]) -> Stored | None:
    if not store:
        return None
    from tuning.stored import Stored

    return Stored(store, plan, say)


@contextmanager
def _copying(stored: Stored | None, journal: Journal) -> Iterator[None]:
    if stored is None:
        yield
        return
    stored.begin(journal)
    try:
        yield
    finally:
        stored.close()


def _make(engine: str) -> Callable[[Plan, Journal, Callable[[str], None]], Search]:
    if engine == "skeltune":
        from tuning.own_search import OwnSearch

        return OwnSearch
    from tuning.stock_search import StockSearch

    return lambda plan, journal, say: StockSearch(plan, journal, say, random_only=engine == "random-asha")


def this_machine() -> dict[str, float]:
    """What a local Ray will find, without starting one."""
    import torch

    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """A connection to Ray. A local Ray is started and ended here."""
    quiet_ray()
    import ray

    if ray.is_initialized():  # somebody else's (a notebook, a test): leave it running
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with ExitStack() as stack:
        if address is None:
            ray.init(include_dashboard=False, **options)
        else:
            if _from_outside(address):  # that cluster runs what is installed here
                code = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skeltune-code-")))
                stage_code(code)
                options["runtime_env"] = {"working_dir": str(code)}
            try:
                ray.init(address=address, **options)
            except (ConnectionError, ValueError, RuntimeError) as error:
                first = str(error).strip().splitlines()[0]
                raise InputError(f"no Ray cluster at '{address}': {first}") from error
        try:
            yield
        except ConnectionError as error:
            if address is None or not _from_outside(address):
                raise
            first = str(error).strip().splitlines()[0]
            raise WorkFailed(f"the connection to {address} broke ({first}); the same command goes on") from error
        finally:
            ray.shutdown()


def _from_outside(address: str) -> bool:
    """Whether this machine is no part of the cluster at ``address``."""
    return address.startswith("ray://")


def quiet_ray() -> None:
    """Settings that Ray reads from the environment; ours unless the user has set them."""
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # three loggers that take most of the controller's time
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a heartbeat between rungs has no score
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's snapshot is never read
        "TUNE_WARN_THRESHOLD_S": "30",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
        "TUNE_MAX_PENDING_TRIALS_PG": "1024",  # by itself Ray asks a searcher for one trial at a time
    }.items():
        os.environ.setdefault(name, value)
