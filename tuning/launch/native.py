"""Commands of other tools (SLURM's, kubectl): shown as one would type them, or run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence

from methods.errors import InputError, WorkFailed

Say = Callable[[str], None]
SHELL = "/bin/sh"


def perform(lines: Sequence[str], *, run: bool, say: Say) -> None:
    """Print shell ``lines``, or run them one after the other, each only if the one before it succeeded.

    Raises ``InputError`` where the tool is not installed, and ``WorkFailed`` for a line that fails.
    """
    for line in lines:
        if not run:
            say(line)
            continue
        done = subprocess.run([SHELL, "-c", line], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise WorkFailed(f"exit code {done.returncode} of: {line}")


def answer(line: str) -> str:
    """What a shell line prints. Raises ``WorkFailed`` with the last it said where it fails."""
    done = subprocess.run([SHELL, "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [text.strip() for text in done.stderr.splitlines() if text.strip()]
        raise WorkFailed(f"{said[-1] if said else f'exit code {done.returncode}'} (of: {line})")
    return done.stdout


def need(tool: str) -> None:
    """Raise ``InputError`` where ``tool`` is not on the PATH."""
    if shutil.which(tool) is None:
        raise InputError(
            f"no {tool} on the PATH of this machine; without --run the commands are printed, to run elsewhere"
        )


def word(path: object) -> str:
    """A path as an argument: one that begins with a hyphen is no option."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text
