"""Optuna studies as sources of a warm start: read from a database or a journal file, never written to.

Nothing is unpickled: Optuna keeps distributions, parameters and attributes as JSON in both, and pickles only the
snapshots of its Redis storage, which is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from methods.errors import InputError, did_you_mean
from tuning.engine.fitting import Entry

JOURNAL = "journal"  # the scheme of Optuna's journal files: journal:///folder/optuna.log
SQLITE = "sqlite"
NAME = "study"  # the word in an address that says which study
MOST_STUDIES = 8  # that a message lists
_STRANGE = ("redis", "rediss", "grpc")
_REPEATS, _METHOD = "repeats", "method"  # attributes in a search's own mirror; a repeat only measures noise


@dataclass(frozen=True)
class Study:
    """A study's trials as entries; ``remark``: what was taken of it, empty where that goes without saying."""

    name: str
    entries: tuple[Entry, ...]
    remark: str = ""


def read_study(address: str, roots: Sequence[Path]) -> Study:
    """The study at a storage URL: anything of SQLAlchemy's, or ``journal:///FILE``; which one by ``?study=`` or ``#``.

    A relative file is looked for under each of ``roots``. Raises ``InputError``, without the URL's password.
    """
    scheme = address.partition(":")[0]
    if scheme in _STRANGE:
        raise InputError(f"{scheme} storages are not read; copy the study into a database or a journal file")
    if scheme == JOURNAL:
        parts = urlsplit(address)
        asked = parse_qs(parts.query).get(NAME, [unquote(parts.fragment)])
        path = unquote(parts.netloc + parts.path)
        return read_study_file(_find_file(path, [Path("/"), *roots]), JOURNAL, asked[0])
    return _read_database(address, roots)


def read_study_file(path: Path, kind: str, name: str = "") -> Study:
    """The study ``name``, or the only one, in a file: ``sqlite``, or an Optuna ``journal``. Raises ``InputError``."""
    if kind == JOURNAL:
        with _readable("this is no journal of Optuna's"):
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            storage = JournalStorage(JournalFileBackend(str(path)))
        return _study_in(storage, name)
    from sqlalchemy import URL

    return _in_database(_read_only(URL.create(SQLITE), path), name)


def _find_file(text: str, roots: Sequence[Path]) -> Path:
    """The first file of that name under ``roots``. Raises ``InputError`` with what was tried."""
    tried = [root / text.lstrip("/") for root in roots]
    for path in tried:
        if path.is_file():
            return path
    raise InputError(f"there is no such file; tried {', '.join(map(str, tried))}")


def hidden(address: str) -> str:
    """The address with its password covered, for messages."""
    scheme, mark, rest = address.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}:***@{place}" if mark and at and ":" in user else address


def _read_database(address: str, roots: Sequence[Path]) -> Study:
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    bare, _, fragment = address.partition("#")
    try:
        url = make_url(bare)
    except (SQLAlchemyError, ValueError):
        raise InputError("this is no storage URL that SQLAlchemy reads") from None  # its words hold the password
    named = url.query.get(NAME, "") or unquote(fragment)
    url = url.difference_update_query([NAME])
    if url.get_backend_name() == SQLITE:
        if not url.database or url.database == ":memory:":
            raise InputError("a database in memory holds no study; name its file: sqlite:///study.db")
        if not url.database.startswith("file:"):
            url = _read_only(url, _find_file(url.database, [Path("/")] if url.database.startswith("/") else roots))
    return _in_database(url, str(named))


def _read_only(url: Any, path: Path) -> Any:
    """The URL of an SQLite file that cannot be changed through it, nor made where it is missing."""
    return url.set(database=path.resolve().as_uri()).update_query_dict({"mode": "ro", "uri": "true"})


def _in_database(url: Any, name: str) -> Study:
    with _readable("this database cannot be read as Optuna's"):
        from optuna.storages import RDBStorage

        storage = RDBStorage(url.render_as_string(hide_password=False), skip_table_creation=True)
    try:
        return _study_in(storage, name)
    finally:
        storage.engine.dispose()


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Whatever Optuna, SQLAlchemy or a driver makes of a wrong storage, as one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # drivers have their own kinds, and what lies in the file is not ours
        cause: BaseException = error
        while cause.__cause__ is not None:  # Optuna wraps what the database says
            cause = cause.__cause__
        lines = str(cause).strip().splitlines()
        raise InputError(f"{what} ({lines[0][:200] if lines else type(cause).__name__})") from error


def _study_in(storage: Any, name: str) -> Study:
    from optuna.study import StudyDirection

    with _readable("its studies cannot be read"):
        studies = {study.study_name: study for study in storage.get_all_studies()}
        known = list(studies)
        if not known:
            raise InputError("there is no study in it")
        if name and name not in studies:
            raise InputError(f"there is no study '{name}' in it{did_you_mean(name, known)}")
        if not name and len(known) > 1:
            listed = ", ".join(map(repr, known[:MOST_STUDIES])) + (", ..." if len(known) > MOST_STUDIES else "")
            raise InputError(f"it holds {len(known)} studies, say which by #NAME: {listed}")
        study = studies[name or known[0]]
        sign = -1.0 if study.directions[0] == StudyDirection.MINIMIZE else 1.0
        trials = storage.get_all_trials(study._study_id, deepcopy=False)
        entries = tuple(_entry(trial, sign) for trial in trials if _REPEATS not in trial.user_attrs)
    count = len(study.directions)
    remark = f"ranked by the first of its {count} objectives" if count > 1 else ""
    return Study(study.study_name, entries, remark)


def _entry(trial: Any, sign: float) -> Entry:
    draws = {name.replace(".", "/"): value for name, value in trial.params.items()}
    told = trial.user_attrs.get(_METHOD)  # a search of one method does not draw it
    method = told if isinstance(told, str) and told and _METHOD not in draws else None
    return Entry(draws, method, quality=_quality(trial, sign))


def _quality(trial: Any, sign: float) -> tuple[float, ...] | None:
    """Finished trials by their value, above pruned ones by how far they came and their value there."""
    from optuna.trial import TrialState

    if trial.state == TrialState.COMPLETE and trial.values:
        return _finite(1.0, 0.0, sign * trial.values[0])
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        step = max(trial.intermediate_values)
        return _finite(0.0, float(step), sign * trial.intermediate_values[step])
    if trial.state == TrialState.PRUNED and trial.values:
        return _finite(0.0, -1.0, sign * trial.values[0])
    return None


def _finite(*numbers: float) -> tuple[float, ...] | None:
    return numbers if all(map(math.isfinite, numbers)) else None
