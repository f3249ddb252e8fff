"""The verbs: one file each. Importing this brings in neither torch nor ray, so `skeltune --help` answers at once."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import typer

from methods.errors import InputError, WorkFailed
from tuning.cli import (
    cancel,
    check,
    cluster,
    data,
    enqueue,
    evaluate,
    explain,
    export,
    import_,
    leaderboard,
    methods,
    new,
    profile,
    prune,
    report,
    sample,
    search,
    simulate,
    status,
    stop,
    train,
)

app = typer.Typer(
    name="skeltune",
    help="Finds the best self-supervised pretraining recipe for skeleton action recognition.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

VERBS = (
    search, check, explain, sample, new, methods, profile, status, stop, cancel, prune, enqueue, leaderboard, report,
    simulate, train, evaluate, import_, export,
)  # fmt: skip
for verb in VERBS:
    app.command(verb.__name__.rpartition(".")[2].rstrip("_"), epilog=verb.EXAMPLE)(verb.run)  # `import` is a keyword
app.add_typer(data.app, name="data")
app.add_typer(cluster.app, name="cluster")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line. Exit codes: 0 done, 1 the work failed, 2 the user's input was wrong, 130 interrupted."""
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, standalone_mode=False)
    except typer.Exit as end:
        return int(end.exit_code)
    except (Exception, KeyboardInterrupt) as error:
        return _told(error)
    return code if isinstance(code, int) else 0


_NOT_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EPIPE)


def _told(error: BaseException) -> int:
    """Say in a line what went wrong and return the exit code; what only a fault of ours can raise is raised again."""
    if isinstance(error, InputError):
        for fault in error.faults:
            print(f"skeltune: {fault}" if ":" not in fault.split(" ", 1)[0] else fault, file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        print("skeltune: interrupted; the same command goes on", file=sys.stderr)
        return 130
    if isinstance(error, WorkFailed):
        print(f"skeltune: {error}", file=sys.stderr)
        return 1
    if isinstance(error, OSError) and error.errno in _NOT_OURS:
        print(f"skeltune: {error.strerror}: {error.filename or 'output'}", file=sys.stderr)
        return 1
    show = getattr(error, "show", None)  # typer's own usage errors, whose class it keeps to itself
    if show is None or not hasattr(error, "exit_code"):
        raise error
    show()
    return 2
