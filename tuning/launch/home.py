"""The folder of a cluster on the machine that launches it: its token, and what every node needs besides.

``~/.skeltune/clusters/NAME/`` travels to the same place on each node. ``$SKELTUNE_HOME`` replaces ``~/.skeltune`` here,
never there.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from methods.errors import InputError
from tuning.files import write_text
from tuning.launch.env import env_script

NODE_HOME = "~/.skeltune/clusters"  # on every node
_TOKEN = re.compile(r"[0-9a-f]{64}")


def cluster_home(name: str) -> Path:
    """Where the keys of the cluster ``name`` lie on this machine; nothing is made."""
    base = os.environ.get("SKELTUNE_HOME")
    return (Path(base) if base else Path.home() / ".skeltune") / "clusters" / name


def make_keys(name: str, *, tls: bool, addresses: Sequence[str] = ()) -> Path:
    """Make a fresh token for the cluster ``name``, and ``env.sh``, ``sweep.py`` and with ``tls`` the certificates.

    ``addresses`` are the nodes' (host names or IP addresses), which the certificate names. The old token is gone
    afterwards: only for a cluster that does not run. Returns the folder. Raises ``InputError`` if openssl is missing.
    """
    home = cluster_home(name)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    shutil.rmtree(home / "tls", ignore_errors=True)
    if tls:
        from tuning.launch.tls import make_certificates

        make_certificates(home / "tls", addresses)
    sweep = Path(__file__).with_name("sweep.py").read_text(encoding="utf-8")
    write_text(home / "sweep.py", sweep)
    write_text(home / "env.sh", env_script(name, tls=tls))
    write_secret(home / "token", secrets.token_hex(32))
    return home


def write_secret(path: Path, text: str) -> None:
    """Write ``text`` so that at no moment anybody else can read it, and that it appears by rename."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def token_path(name: str) -> Path:
    """The token's file, checked. Raises ``InputError`` if it is missing, or others could read it."""
    path = cluster_home(name) / "token"
    try:
        facts = path.lstat()
    except FileNotFoundError:
        raise InputError(
            f"cluster '{name}' has no token in {path.parent}: 'skeltune cluster up' makes it, on this machine"
        ) from None
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        raise InputError(f"{path} is not a file of yours: a token is one file that only its owner can read")
    if facts.st_mode & 0o077:
        raise InputError(f"{path} can be read by others (mode {facts.st_mode & 0o777:o}); run: chmod 600 {path}")
    return path


def token_of(name: str) -> str:
    """The cluster's token. Raises ``InputError`` as ``token_path`` does, or if the file holds no token."""
    path = token_path(name)
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not _TOKEN.fullmatch(text):
        raise InputError(f"{path} holds no token (64 characters 0-9 a-f); 'skeltune cluster down', then up, makes one")
    return text


def auth_environment(name: str) -> dict[str, str]:
    """What a child process (or Ray's client here) needs to speak to the cluster: the token's path, never the token.

    Ray prefers ``RAY_AUTH_TOKEN`` where it is set, so whoever starts a child takes that one out.
    """
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path(name).absolute())}
