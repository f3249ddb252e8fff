"""Ray pickles searcher and scheduler into snapshots that are never read here; ours hold an open journal."""

from __future__ import annotations


class Unsaved:
    """Pickles to an empty stand-in: whoever restores a snapshot instead of the journal gets nothing to run."""

    def __reduce__(self) -> tuple[type[Unsaved], tuple[()]]:
        return (Unsaved, ())
