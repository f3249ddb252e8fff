"""What is wrong with a SLURM script: options that sbatch does not know or does not read, and Ray without a token."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from methods.errors import did_you_mean
from tuning.config.errors import Place
from tuning.config.yaml_source import Report
from tuning.launch.kinds import ClusterFile
from tuning.launch.text_rules import check_text, said_lines

# sbatch's long options; those in the second table take no value.
_WITH_VALUE = (
    "account", "acctg-freq", "array", "batch", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters",
    "comment", "constraint", "container", "container-id", "core-spec", "cores-per-socket", "cpu-freq",
    "cpus-per-gpu", "cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "error", "exclude",
    "exclusive", "export", "export-file", "extra", "extra-node-info", "get-user-env", "gid", "gpu-bind",
    "gpu-freq", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "hint",
    "input", "job-name", "kill-on-invalid-dep", "licenses", "mail-type", "mail-user", "mcs-label", "mem",
    "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice", "nodefile", "nodelist", "nodes",
    "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket", "open-mode", "output",
    "partition", "power", "prefer", "priority", "profile", "propagate", "qos", "reservation", "resv-ports",
    "segment", "signal", "sockets-per-node", "spread-job", "stepmgr", "switches", "thread-spec",
    "threads-per-core", "time", "time-min", "tmp", "tres-bind", "tres-per-task", "uid", "wait-all-nodes", "wckey",
    "wrap",
)  # fmt: skip
_ALONE = (
    "contiguous", "hold", "ignore-pbs", "no-kill", "no-requeue", "overcommit", "oversubscribe", "parsable",
    "quiet", "reboot", "requeue", "test-only", "use-min-nodes", "verbose", "wait",
)  # fmt: skip
_MAY_STAND_ALONE = ("exclusive", "get-user-env", "nice", "no-kill", "propagate", "spread-job", "stepmgr", "resv-ports")
_SHORT = {
    "A": "account", "a": "array", "b": "begin", "D": "chdir", "C": "constraint", "S": "core-spec", "c": "cpus-per-task",
    "d": "dependency", "m": "distribution", "e": "error", "x": "exclude", "B": "extra-node-info", "G": "gpus",
    "H": "hold",
    "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "M": "clusters", "w": "nodelist", "F": "nodefile",
    "N": "nodes", "n": "ntasks", "o": "output", "O": "overcommit", "s": "oversubscribe", "p": "partition", "q": "qos",
    "Q": "quiet", "t": "time", "v": "verbose", "W": "wait",
}  # fmt: skip
_WHOLE = ("cpus-per-task", "ntasks", "ntasks-per-node", "cpus-per-gpu")
_NODES = re.compile(r"\d+(?:-\d+)?|\d+[km]?")
_TIME = re.compile(r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(?::\d\d){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
_SIZE = re.compile(r"\d+[KMGT]?B?", re.IGNORECASE)


@dataclass(frozen=True)
class Option:
    """One option of an #SBATCH line, under its long name; ``value`` is empty where none is given."""

    name: str
    value: str
    place: Place
    written: str


def options_of(text: str) -> list[Option]:
    """The options of all #SBATCH lines, in the order of the file."""
    return [option for number, line in said_lines(text) if line.startswith("#SBATCH") for option in _line(number, line)]


def _line(number: int, line: str) -> Iterator[Option]:
    words = [(m[0], m.start() + 1) for m in re.finditer(r"(?:\"[^\"]*\"|'[^']*'|[^\s\"'])+", line)][1:]
    k = 0
    while k < len(words):
        text, col = words[k]
        k += 1
        name, joined, value = text.partition("=")
        written = name
        if re.fullmatch(r"-[A-Za-z].*", text) and not text.startswith("--"):
            written, value, joined = text[:2], text[2:].removeprefix("="), text[2:]
            name = _SHORT.get(text[1], text[:2])
        name = name.removeprefix("--") if name.startswith("--") else name
        if not joined and name not in _ALONE and k < len(words) and not words[k][0].startswith("-"):
            value = words[k][0]
            k += 1
        yield Option(name, value.strip("\"'"), Place(number, col, len(text)), written)


def check_slurm_file(file: ClusterFile, report: Report) -> list[str]:
    """Report every fault of ``file``; returns what is worth saying though it is no fault."""
    check_text(file.text, report)
    if not file.text.startswith("#!"):
        report.add(Place(1, 1), "the first line must say what runs this script, for example #!/bin/bash")
    seen: dict[str, int] = {}
    for option in options_of(file.text):
        _option(option, report)
        if option.name in seen and option.name != "comment":
            report.add(option.place, f"--{option.name} is given twice; the first is on line {seen[option.name]}")
        seen.setdefault(option.name, option.place.line)
    began = 0
    for number, line in said_lines(file.text):
        if line.startswith("#SBATCH") and began:
            report.add(Place(number, 1, 7), f"sbatch reads no #SBATCH line below the first command (line {began})")
        elif line.strip() and not line.startswith("#"):
            began = began or number
    _ray(file.text, report)
    return []


def _option(option: Option, report: Report) -> None:
    name, value = option.name, option.value
    if name not in _WITH_VALUE and name not in _ALONE:
        near = did_you_mean(name, [*_WITH_VALUE, *_ALONE]) if option.written.startswith("--") else ""
        report.add(option.place, f"sbatch has no option {option.written}{near}")
    elif name in _WITH_VALUE and not value and name not in _MAY_STAND_ALONE:
        report.add(option.place, f"{option.written} needs a value")
    elif "EDIT" in value:
        return  # said already
    elif name in _WHOLE and not re.fullmatch(r"[1-9]\d{0,8}", value):
        report.add(option.place, f"{option.written} must be a whole number of at least 1, got {value!r}")
    elif name == "nodes" and (not _NODES.fullmatch(value) or re.fullmatch(r"0+(?:-.*)?", value)):
        report.add(option.place, f"{option.written} must be a number of nodes (2, or 2-4), got {value!r}")
    elif name in ("time", "time-min") and not _TIME.fullmatch(value):
        report.add(option.place, f"{option.written} must be minutes, HH:MM:SS or D-HH:MM:SS, got {value!r}")
    elif name in ("mem", "mem-per-cpu", "mem-per-gpu") and not _SIZE.fullmatch(value):
        report.add(option.place, f"{option.written} must be a size such as 32G, got {value!r}")


def _ray(text: str, report: Report) -> None:
    said = list(said_lines(text))
    token = any(re.search(r"\bRAY_AUTH_MODE=[\"']?token\b", line) for _, line in said)
    told = False
    for number, line in said:
        for match in re.finditer(r"\bray\s+(start|stop)\b", line):
            place = Place(number, match.start() + 1, len(match[0]))
            if match[1] == "stop" and not line.lstrip().startswith(("echo", "say")):
                report.add(
                    place, "`ray stop` ends every Ray on the node, other people's too; end what this job started"
                )
            elif match[1] == "start" and not token and not told:
                told = True
                report.add(
                    place, "Ray is started without RAY_AUTH_MODE=token: everybody who reaches a port may run commands"
                )
