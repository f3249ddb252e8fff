"""Errors that a user can mend, and the one helper that makes them kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that a user gave is wrong: one clear line, exit code 2, never a traceback.

    Raised at construction, before any work is lost; the message carries the value. Several faults found in one
    go are given as ``faults``, and the message is then one line for each.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults: tuple[str, ...] = faults


class WorkFailed(Exception):
    """What was asked could not be finished, through no fault of the input: one clear line, exit code 1."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, else ``"; known: a, b"`` or nothing."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    if options and len(options) <= 30:
        return "; known: " + ", ".join(options)
    return ""
