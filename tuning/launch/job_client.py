"""A connection to a cluster's job server: Ray's client through a tunnel, with the token and with nobody's settings.

The token goes into each request's header. Ray would also read it from the environment, but keeps what it read first:
after `import ray` it no longer looks, and a second cluster would be sent the first one's token.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from methods.errors import InputError, WorkFailed
from tuning.launch.kinds import ClusterFile
from tuning.launch.node_list import DASHBOARD_PORT

# What would lead requests elsewhere: Ray prefers these two to the address it is given.
_UNSET = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_HEADERS", "RAY_AUTH_TOKEN")
_SET = {
    "NO_PROXY": "127.0.0.1,localhost",  # a proxy would be given the token
    "no_proxy": "127.0.0.1,localhost",
    "NETRC": os.devnull,  # a default login there would take the token's place
    "RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1",  # what is staged is sent
    "RAY_USAGE_STATS_ENABLED": "0",
}
_SECRET = re.compile(r"[0-9a-f]{64}")


@contextmanager
def job_client(cluster: ClusterFile) -> Iterator[Any]:
    """Ray's ``JobSubmissionClient`` on the head of ``cluster``.

    Raises ``InputError`` without a token or without Ray's job client, and ``WorkFailed``, one line, for everything
    that Ray or the network says while it is used.
    """
    from tuning.launch.home import token_of
    from tuning.launch.remote import head_of, tunnel

    headers = {"Authorization": f"Bearer {token_of(cluster.name)}"}
    with own_environment(), tunnel(head_of(cluster), DASHBOARD_PORT) as port:
        try:
            yield connect(f"http://127.0.0.1:{port}", headers)
        except (InputError, WorkFailed):
            raise
        except Exception as error:  # Ray's client raises RuntimeError, ConnectionError, requests' and Ray's own
            raise WorkFailed(f"cluster '{cluster.name}': {in_a_line(error)}") from error


def connect(address: str, headers: dict[str, str]) -> Any:
    """Ray's client at ``address``. Raises ``InputError`` where that part of Ray is not installed."""
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise InputError(f"Ray's job client cannot be imported ({error}): {_INSTALL}") from error
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address, headers=headers)
    except RuntimeError as error:
        if "ray[default]" in str(error):
            raise InputError(f"Ray's job client is not installed: {_INSTALL}") from error
        raise


_TALKATIVE = (  # each tells of every upload and every connection
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
_INSTALL = "pip install 'skeltune[cluster]'"


@contextmanager
def own_environment() -> Iterator[None]:
    """This process's environment without what would lead Ray's client elsewhere; as it was, afterwards."""
    before = {name: os.environ.get(name) for name in (*_UNSET, *_SET)}
    for name in _UNSET:
        os.environ.pop(name, None)
    os.environ.update(_SET)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def in_a_line(error: BaseException) -> str:
    """What went wrong, without the tracebacks that Ray's server answers with, and never with a token."""
    text = str(error).strip() or type(error).__name__
    code = re.search(r"status code (\d+): ?", text)
    if re.match(r"Authentication", text) or (code and code[1] in ("401", "403")):
        return "its job server does not take this machine's token; was it brought up from elsewhere, or again?"
    if isinstance(error, ConnectionError) or "Max retries exceeded" in text or "Connection aborted" in text:
        return "its job server does not answer"
    if code:
        text = text[code.end() :].strip().removesuffix(".")
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1] if text.startswith("Traceback") else lines[0]
    return _SECRET.sub("***", line)[:400]
