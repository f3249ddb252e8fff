"""What all trials of a search share, and whether a machine has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from methods.errors import InputError, WorkFailed
from methods.training.probe import ProbeConfig
from tuning.datasets import DataSource
from tuning.run_files import MARK_FILE
from tuning.storage.checkpoints import Checkpoints


@dataclass(frozen=True)
class Workplace:
    """What all trials of a search share: put into Ray's object store once.

    ``folder`` and ``mark``: the run folder, and the word in it by which a node knows that it sees it ("" where it need
    not); ``store``: where checkpoints are copied to instead ("" for nowhere); ``life``: the driver's number there.
    ``graphs``: whether steps on a GPU are replayed as CUDA graphs.
    """

    source: DataSource
    probe: ProbeConfig
    threads: int
    device: str = "auto"
    folder: str = ""
    mark: str = ""
    store: str = ""
    life: int = 0
    graphs: bool = False

    def sees_its_folder(self) -> bool:
        """Whether this machine sees the run folder, now."""
        return not self.mark or sees(self.folder, self.mark)

    @property
    def checkpoints(self) -> Checkpoints:
        """Where its checkpoints lie."""
        return Checkpoints(self.store or None, self.source.fingerprint, self.life)


def sees(folder: str, mark: str) -> bool:
    """Whether this machine sees the marked folder."""
    try:
        return (Path(folder) / MARK_FILE).read_text(encoding="utf-8").strip() == mark
    except OSError:
        return False


def faults_here(place: Workplace) -> list[str]:
    """What keeps trials from this machine, each in a line; called on the node."""
    faults = []
    if not place.sees_its_folder():
        faults.append(f"does not see the run folder {place.folder}: share it between the nodes, or give --store URL")
    try:
        place.source.dataset()
    except InputError as error:
        faults += error.faults
    except WorkFailed as error:
        faults.append(str(error))
    return faults
