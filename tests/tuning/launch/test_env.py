"""env.sh as a shell on a node reads it: no token, or one that others can read, and Ray does not start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tuning.launch.env import env_script


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / ".skeltune/clusters/tests-of-env"
    home.mkdir(parents=True)
    (home / "token").write_text("ab" * 32)
    (home / "token").chmod(0o600)
    (home / "env.sh").write_text(env_script("tests-of-env", tls=False))
    yield home
    temp = Path("/tmp/skeltune-tests-of-env")
    temp.unlink() if temp.is_symlink() else temp.exists() and temp.rmdir()


def source(home: Path, **env: str) -> tuple[int, dict[str, str], str]:
    """Exit code, environment behind it, and what was said; by the plainest shell there is."""
    command = f". {home}/env.sh && env -0"
    environment = {"HOME": str(home.parents[2]), "PATH": "/usr/bin:/bin", **env}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    pairs = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    return done.returncode, pairs, done.stderr


def test_the_token_is_named_by_its_path_alone(folder: Path) -> None:
    code, env, _ = source(folder, RAY_AUTH_TOKEN="left over from elsewhere")
    assert code == 0
    assert env["RAY_AUTH_MODE"] == "token" and env["RAY_AUTH_TOKEN_PATH"] == str(folder / "token")
    assert "RAY_AUTH_TOKEN" not in env and "ab" * 32 not in "".join(env.values())
    assert "RAY_USE_TLS" not in env
    temp = Path("/tmp/skeltune-tests-of-env")
    assert temp.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_token_that_others_can_touch_is_refused(folder: Path, mode: int) -> None:
    (folder / "token").chmod(mode)
    code, env, said = source(folder)
    assert code == 1 and not env and f"chmod 600 {folder}/token" in said


@pytest.mark.parametrize("text", [None, ""])
def test_without_a_token_there_is_no_ray(folder: Path, text: str | None) -> None:
    (folder / "token").unlink() if text is None else (folder / "token").write_text(text)
    code, env, said = source(folder)
    assert code == 1 and not env and "no Ray without a token" in said


def test_a_temp_dir_that_somebody_laid_out_is_refused(folder: Path, tmp_path: Path) -> None:
    Path("/tmp/skeltune-tests-of-env").symlink_to(tmp_path)
    code, env, said = source(folder)
    assert code == 1 and not env and "belongs to somebody else" in said


def test_tls_is_named_by_paths_too(folder: Path) -> None:
    (folder / "env.sh").write_text(env_script("tests-of-env", tls=True))
    _, env, _ = source(folder)
    assert env["RAY_USE_TLS"] == "1" and env["RAY_TLS_SERVER_KEY"] == str(folder / "tls/node.key")
