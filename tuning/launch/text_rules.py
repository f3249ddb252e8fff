"""What no cluster file may hold, of whatever kind: lines still to be filled in, secrets, open doors.

These look at lines of text, so that a fault inside a long command is shown where it stands; comments are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tuning.config.errors import Fault, Place
from tuning.config.yaml_source import Report

_EDIT = re.compile(r"(?<![A-Za-z0-9_])EDIT(?:-[\w./:-]+|(?=\s*(?:$|[\"',}\]])))")
_COMMENT = re.compile(r"(?:^|(?<=\s))#")
_BREAKS = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_VALUE = r"[\"']?\s*(?:[:=]|,\s*[\"']?value[\"']?\s*:)\s*[\"']?(?P<value>[^\s\"',;}]+)"
_NOT_A_SECRET = re.compile(r"^(?:\$|<|\{|/|~|\.|null$|None$|true$|false$|EDIT)")
_SECRETS = (
    (re.compile(r"(?P<value>-----BEGIN [A-Z ]*PRIVATE KEY-----)"), "a private key"),
    (re.compile(r"(?<![A-Za-z0-9])(?P<value>AKIA[0-9A-Z]{16})(?![A-Za-z0-9])"), "a key of an AWS account"),
    (re.compile(r"(?<![A-Za-z0-9])(?P<value>(?:ghp|gho|glpat|hf)[_-][A-Za-z0-9_]{20,})"), "a token"),
    (re.compile(r"(?<!sha256:)(?<![0-9A-Za-z])(?P<value>[0-9a-f]{64})(?![0-9A-Za-z])"), "a token"),
    (re.compile(r"://[^\s/:@\"']+:(?P<value>[^\s/@\"'$]+)@"), "a password in a URL"),
    (re.compile(r"RAY_AUTH_TOKEN(?!_PATH)" + _VALUE), "a token"),
    (
        re.compile(r"(?i)(?<![A-Za-z])(?:password|passwd|secret_?(?:access_?)?key|api_?key)" + _VALUE),
        "a password",
    ),
)
_DISABLED = re.compile(r"RAY_AUTH_MODE[\"']?\s*(?:[:=]|,\s*[\"']?value[\"']?\s*:)\s*[\"']?disabled")
_DASHBOARD = re.compile(r"--dashboard-host(?:=|\s+)[\"']?(?P<host>[^\s\"']+)")


def check_text(text: str, report: Report) -> None:
    """Report every line that is left to fill in, holds a secret, or leaves a door open."""
    for number, line in said_lines(text):
        for match in _EDIT.finditer(line):
            place = Place(number, match.start() + 1, len(match[0]))
            report.add(place, f"still to be filled in: {match[0]}")
        for match in _DISABLED.finditer(line):
            place = Place(number, match.start() + 1, len(match[0]))
            report.add(place, "RAY_AUTH_MODE=disabled lets everybody who reaches a port run commands; it must be token")
        for match in _DASHBOARD.finditer(line):
            if match["host"] not in _LOOPBACK:
                place = Place(number, match.start() + 1, len(match[0]))
                message = (
                    f"the dashboard must listen on 127.0.0.1 only, got {match['host']}; look at it by an ssh tunnel"
                )
                report.add(place, message)
        _check_secrets(number, line, report)


def _check_secrets(number: int, line: str, report: Report) -> None:
    for pattern, what in _SECRETS:
        for match in pattern.finditer(line):
            if not _NOT_A_SECRET.match(match["value"]):
                # The secret itself is not shown: messages end up in logs.
                message = f"this looks like {what}; name a file of mode 0600 instead of writing it here"
                report.faults.append(Fault(report.file, number, match.start("value") + 1, message))
                return


def said_lines(text: str) -> Iterator[tuple[int, str]]:
    """``(number, line without its comment)``; a line of SLURM's (#SBATCH) is none."""
    for number, line in enumerate(_BREAKS.split(text), 1):
        if line.startswith("#SBATCH"):
            yield number, line.partition(" #")[0]
            continue
        for match in _COMMENT.finditer(line):
            before = line[: match.start()]
            if before.count('"') % 2 == 0 and before.count("'") % 2 == 0:
                yield number, before
                break
        else:
            yield number, line
