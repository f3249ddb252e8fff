"""The folder of a cluster: who can read its token, and what the certificates name."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from methods.errors import InputError
from tuning.launch import home


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "own"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_fresh_and_only_the_owners(tmp_path: Path) -> None:
    before = os.umask(0)  # the most careless one
    try:
        folder = home.make_keys("a", tls=False)
    finally:
        os.umask(before)
    assert folder == tmp_path / "own/clusters/a" == home.cluster_home("a")
    assert mode(folder) == 0o700 and mode(folder / "token") == 0o600
    first = home.token_of("a")
    assert re.fullmatch("[0-9a-f]{64}", first)
    home.make_keys("a", tls=False)
    assert home.token_of("a") != first
    assert sorted(path.name for path in folder.iterdir()) == ["env.sh", "sweep.py", "token"]
    assert first not in (folder / "env.sh").read_text()


def test_at_no_moment_can_another_read_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (modes.append(mode(Path(a))), replace(a, b)))
    home.write_secret(tmp_path / "secret", "x")
    assert modes == [0o600] and [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_token_that_others_can_read_is_refused_with_the_remedy() -> None:
    token = home.make_keys("a", tls=False) / "token"
    token.chmod(0o640)
    for ask in (home.token_of, home.auth_environment):
        with pytest.raises(InputError, match=f"mode 640.*chmod 600 {token}"):
            ask("a")


@pytest.mark.parametrize("text", ["", "short", "g" * 64, "ab" * 33])
def test_what_is_no_token_is_refused(text: str) -> None:
    (home.make_keys("a", tls=False) / "token").write_text(text)
    with pytest.raises(InputError, match="holds no token"):
        home.token_of("a")


def test_no_token_and_a_link_for_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cluster up"):
        home.token_of("a")
    folder = home.make_keys("a", tls=False)
    (folder / "token").rename(tmp_path / "elsewhere")
    (folder / "token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="not a file of yours"):
        home.token_of("a")


def test_children_get_the_path_and_never_the_token() -> None:
    home.make_keys("a", tls=False)
    environment = home.auth_environment("a")
    assert environment == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home.cluster_home("a") / "token")}
    assert home.token_of("a") not in environment.values()


def test_certificates_name_every_node_and_hold(tmp_path: Path) -> None:
    folder = home.make_keys("a", tls=True, addresses=["10.1.2.3", "node-7.lab", "10.1.2.3", "fd00::7"]) / "tls"
    assert sorted(path.name for path in folder.iterdir()) == ["ca.crt", "node.crt", "node.key"]
    assert mode(folder / "node.key") == 0o600

    def openssl(*words: str) -> str:
        return subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, check=True).stdout

    for name in ("-verify_ip 10.1.2.3", "-verify_ip fd00::7", "-verify_ip 127.0.0.1", "-verify_hostname node-7.lab"):
        for purpose in ("sslserver", "sslclient"):
            assert "OK" in openssl(
                "verify", "-x509_strict", "-purpose", purpose, *name.split(), "-CAfile", "ca.crt", "node.crt"
            )
    # A clock that is 20 hours late takes it too.
    late = str(int(folder.stat().st_mtime) - 20 * 3600)
    assert "OK" in openssl("verify", "-attime", late, "-CAfile", "ca.crt", "node.crt")
    home.make_keys("a", tls=False)
    assert not folder.exists()


def test_tls_without_openssl_or_with_a_bad_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no host name"):
        home.make_keys("a", tls=True, addresses=["x,IP:1.2.3.4"])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="openssl"):
        home.make_keys("a", tls=True, addresses=["10.1.2.3"])
