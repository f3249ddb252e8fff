"""Patience with a storage that is away for a minute, and none with what will not mend by itself.

File servers restart, mounts come and go, object stores shed load. Such errors are told apart here from those that are
final (a full disk, a missing right), and what raised them is called again. A mount that hangs instead of raising (NFS
mounted `hard`) needs none of this: the call returns when the server is back.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from methods.errors import WorkFailed

T = TypeVar("T")

FOR_S = 300.0  # how long a storage may be away
FIRST_S, LONGEST_S = 1.0, 15.0  # between two tries

_PASSING = {
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH),
    *(errno.ENETDOWN, errno.ENETRESET, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE),
    *(errno.EREMOTEIO, errno.ENODEV, errno.EBUSY, errno.EAGAIN),  # EBUSY: how s3fs says "slow down"
}
# What the packages behind fsspec raise, by the module and the class's name: none of them needs to be installed.
_BY_NAME = {
    "botocore": {"HTTPClientError", "EndpointConnectionError", "ConnectionError", "IncompleteReadError"},
    "aiobotocore": {"HTTPClientError", "AioReadTimeoutError"},
    "aiohttp": {"ClientConnectionError", "ClientPayloadError"},
    "requests": {"ConnectionError", "Timeout", "ChunkedEncodingError"},
    "urllib3": {"TimeoutError", "ProtocolError", "NewConnectionError"},
    "http": {"IncompleteRead", "RemoteDisconnected"},
    "google": {"TransportError", "ServiceUnavailable", "InternalServerError", "TooManyRequests", "GatewayTimeout"},
    "azure": {"ServiceRequestError", "ServiceResponseError"},
    "gcsfs": {"ChecksumError"},
}
_HTTP_PASSING = {408, 429, 500, 502, 503, 504}


def passes(error: BaseException, root: Path | None = None) -> bool:
    """Whether ``error`` is of the kind that a later try may not see.

    Whatever is not known to pass is final: a full disk or quota, a missing right, a storage mounted read-only.
    ``root``: the folder that is there whenever the storage is. A file that is missing is an answer; a missing root is a
    mount that went away.
    """
    if isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno == errno.ENOENT):
        return root is not None and _gone(root)
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    if isinstance(error, ConnectionError | TimeoutError):  # fsspec's own timeout is one too
        return True
    return _named(error) or _status(error) in _HTTP_PASSING


def _gone(root: Path) -> bool:
    try:
        return not root.is_dir()
    except OSError:
        return True


def _named(error: BaseException) -> bool:
    return any(kind.__name__ in _BY_NAME.get(kind.__module__.split(".")[0], ()) for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    """The HTTP status that a client's error carries: `.code` (gcsfs), `.status` (aiohttp), or botocore's response."""
    for found in (getattr(error, "code", None), getattr(error, "status", None)):
        if isinstance(found, int | str) and str(found).isdigit():
            return int(found)
    response = getattr(error, "response", None)
    facts = response.get("ResponseMetadata") if isinstance(response, dict) else None
    found = facts.get("HTTPStatusCode") if isinstance(facts, dict) else None
    return found if isinstance(found, int) else None


def pauses() -> Iterator[float]:
    """Seconds between tries: 1, 2, 4, 8, 15, 15, ..."""
    pause = FIRST_S
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_S)


def in_words(error: BaseException) -> str:
    """One short line for an error of any library; what it says after its first line is for programmers."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def patiently(
    call: Callable[[], T],
    *,
    what: str,
    for_s: float = FOR_S,
    say: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
    root: Path | None = None,
) -> T:
    """``call()``, again and again while the storage is away, for ``for_s`` seconds from the first failure.

    ``what`` begins every line ("copying the journal to s3://..."). ``say`` is told once that it waits, and once that it
    went on. ``root`` as in :func:`passes`. A final error is raised at once, as it is. Raises ``WorkFailed`` saying how
    long it tried.
    """
    begun: float | None = None
    for pause in pauses():
        try:
            found = call()
        except Exception as error:
            if not passes(error, root):
                raise
            now = clock()
            if begun is None:
                begun = now
                if say is not None:
                    say(f"{what}: {in_words(error)}; trying again for up to {for_s:.0f} s")
            if now - begun >= for_s:
                raise WorkFailed(f"{what}: {in_words(error)}; gave up after {now - begun:.0f} s") from error
            wait(min(pause, max(for_s - (now - begun), 0.0)))
        else:
            if begun is not None and say is not None:
                say(f"{what}: went on after {clock() - begun:.0f} s")
            return found
    raise RuntimeError("pauses never end")
