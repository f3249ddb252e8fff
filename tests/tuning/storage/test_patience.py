"""What is tried again, for how long, and what is not."""

from __future__ import annotations

import errno
import os

import pytest

from methods.errors import WorkFailed
from tuning.storage.patience import passes, patiently


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def failing(times: int, error: BaseException):
    left = [times]

    def call() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "there"

    return call


def made_up(module: str, name: str, base: type = Exception, **members: object) -> Exception:
    return type(name, (base,), {"__module__": module, **members})("away")


PASSING = [
    *(OSError(code, os.strerror(code)) for code in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)),
    *(OSError(code, os.strerror(code)) for code in (errno.EHOSTDOWN, errno.ENETUNREACH, errno.EREMOTEIO, errno.ENODEV)),
    ConnectionRefusedError(),
    TimeoutError(),
    made_up("botocore.exceptions", "EndpointConnectionError"),
    made_up("aiohttp.client_exceptions", "ServerDisconnectedError", type(made_up("aiohttp", "ClientConnectionError"))),
    made_up("gcsfs.retry", "HttpError", code=503),
    made_up("botocore.exceptions", "ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 500}}),
]
FINAL = [
    *(OSError(code, os.strerror(code)) for code in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)),
    PermissionError("Access Denied"),
    FileNotFoundError(errno.ENOENT, "no such file"),
    ValueError("a mistake"),
    made_up("gcsfs.retry", "HttpError", code=403),
    made_up("botocore.exceptions", "NoCredentialsError"),
    made_up("elsewhere", "EndpointConnectionError"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_is_tried_again(error):
    time, lines = Time(), []
    found = patiently(failing(6, error), what="copying", say=lines.append, clock=lambda: time.now, wait=time.wait)
    assert found == "there"
    assert time.waits == [1, 2, 4, 8, 15, 15]
    assert len(lines) == 2
    assert "trying again for up to 300 s" in lines[0]
    assert lines[1] == "copying: went on after 45 s"


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_what_is_final_is_raised_at_once(error):
    with pytest.raises(type(error)) as found:
        patiently(failing(1, error), what="copying", wait=lambda seconds: pytest.fail("it waited"))
    assert found.value is error


def test_it_gives_up_and_says_for_how_long_it_tried():
    time = Time()
    error = OSError(errno.ESTALE, "Stale file handle")
    with pytest.raises(WorkFailed, match=r"^copying x: Stale file handle; gave up after 20 s$"):
        patiently(failing(99, error), what="copying x", for_s=20, clock=lambda: time.now, wait=time.wait)
    assert time.waits == [1, 2, 4, 8, 5]


def test_a_root_that_vanished_passes_and_a_file_does_not(tmp_path):
    error = FileNotFoundError(errno.ENOENT, "gone")
    assert not passes(error, tmp_path)
    assert passes(error, tmp_path / "mount")
    assert not passes(error)
