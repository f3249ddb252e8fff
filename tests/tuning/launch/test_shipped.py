"""The shipped files: valid once filled in, refused before, and what they grow to."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.tuning.launch.shipped import FILES, FOLDER, LEFT, filled, filled_text, text_of
from tuning.config.errors import ConfigError
from tuning.launch.check import check_cluster, grown, shared_by, smallest
from tuning.launch.kinds import parse_cluster_text, read_cluster_file
from tuning.launch.kube_schema import DOCUMENTS
from tuning.launch.ray_schema_check import schema_path
from tuning.launch.tables import ANYTHING, FLAG, NUMBER, QUANTITY, TEXT, WHOLE, MapOf, Words

LAB = Path(os.environ.get("SKELTUNE_LAB", "../shared/lab")) / "kuberay"
GROWN = {
    "onprem.yaml": ("ray", "onprem", {}, 3),
    "aws.yaml": ("ray", "aws", {"CPU": 68.0, "GPU": 8.0}, 1),
    "gcp.yaml": ("ray", "gcp", {"CPU": 68.0, "GPU": 8.0}, 1),
    "kuberay.yaml": ("kuberay", "lab", {"CPU": 68.0, "GPU": 8.0}, 1),
    "slurm.sh": ("slurm", "skeltune", {"CPU": 16.0, "GPU": 2.0}, 2),
}


@pytest.mark.parametrize("name", FILES)
def test_filled_in_it_is_valid_and_grows_to_what_it_says(name: str) -> None:
    file = filled(name)
    assert check_cluster(file) == []
    assert (file.kind, file.name, grown(file), smallest(file)) == GROWN[name]


@pytest.mark.parametrize("name", FILES)
def test_each_line_left_to_fill_in_is_named(name: str) -> None:
    """By the line and column at which the word stands in the file, not one less, not one twice."""
    wanted = []
    for number, line in enumerate(text_of(name).split("\n"), 1):
        wanted += [(number, m.start() + 1) for m in LEFT.finditer(line) if not line.lstrip().startswith("#")]
        wanted += [(number, line.index("EDIT-/") + 1)] if "EDIT-/" in line else []
    file = read_cluster_file(FOLDER / name)
    if not wanted:
        assert name == "slurm.sh"
        assert check_cluster(file) == []
        return
    with pytest.raises(ConfigError) as caught:
        check_cluster(file)
    told = [(f.line, f.col) for f in caught.value.where if f.message.startswith("still to be filled in")]
    assert sorted(told) == sorted(wanted)


@pytest.mark.parametrize("name", ["onprem.yaml", "aws.yaml", "gcp.yaml"])
def test_ray_itself_accepts_it(name: str) -> None:
    """Ray reads YAML 1.1 and has its own rules; the schema is found without importing Ray."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    assert schema_path() is not None
    validate_config(prepare_config(yaml.safe_load(filled_text(name))))


@pytest.mark.parametrize("name", ["onprem.yaml", "aws.yaml", "gcp.yaml"])
def test_start_commands_are_shell_and_stop_without_a_token(name: str, tmp_path: Path) -> None:
    """Run with a home that has no env.sh, and a `ray` that would leave a mark: nothing may start."""
    tree: Any = yaml.safe_load(filled_text(name))
    mark = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    ray = tmp_path / "bin" / "ray"
    ray.write_text(f'#!/bin/sh\necho "$@" >> {mark}\n')
    ray.chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    surroundings = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "RAY_HEAD_IP": "10.0.0.1",
        "SSH_CONNECTION": "10.0.0.9 50000 10.0.0.1 22",
    }

    def start(role: str) -> int:
        command = tree[f"{role}_start_ray_commands"][-1]
        return subprocess.run([bash, "-c", command], env=surroundings, capture_output=True, check=False).returncode

    for role in ("head", "worker"):
        assert start(role) != 0
    assert not mark.exists()
    env = tmp_path / ".skeltune" / "clusters" / tree["cluster_name"] / "env.sh"
    env.parent.mkdir(parents=True)
    env.write_text("return 1\n")
    assert start("head") != 0 and not mark.exists()
    env.write_text("export RAY_AUTH_MODE=token\n")
    assert start("head") == 0 and start("worker") == 0
    head, worker = mark.read_text().splitlines()
    assert "--head" in head and f"--temp-dir=/tmp/skeltune-{tree['cluster_name']}/ray" in head
    assert "--address=10.0.0.1:6379" in worker
    if name == "onprem.yaml":
        assert "--node-ip-address=10.0.0.1" in head and "--node-ip-address=10.0.0.1" in worker


def test_the_search_of_kuberay_waits_for_what_the_cluster_grows_to() -> None:
    file = filled("kuberay.yaml")
    said = ",".join(f"{name}={value:g}" for name, value in sorted(grown(file).items()))
    assert f"--expect {said}\n" in file.text
    assert shared_by(file) == ("/shared",)


def test_the_code_travels_and_data_does_not() -> None:
    env = yaml.safe_load(text_of("runtime_env.yaml"))
    assert {"*.npz", "*.npy", "*.pt", "data", "runs", ".venv"} <= set(env["excludes"])


@functools.cache
def _lab() -> tuple[ModuleType, dict[tuple[str, str], Any]]:
    if not (LAB / "validate.py").is_file():
        pytest.skip(f"no KubeRay schemas in {LAB} (SKELTUNE_LAB)")
    spec = importlib.util.spec_from_file_location("kuberay_validate", LAB / "validate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.schemas()


@pytest.mark.shared
def test_the_official_schemas_accept_the_shipped_manifests() -> None:
    module, _ = _lab()
    for document in yaml.safe_load_all(filled_text("kuberay.yaml")):
        assert not module.check(document), document["kind"]


def _strange(table: Any, schema: Any, trail: str) -> list[str]:
    """What our table has and the official schema has not, or calls something else."""
    kind = schema.get("type")
    if table == ANYTHING:
        return []
    if isinstance(table, MapOf):
        inner = schema.get("additionalProperties")
        return _strange(table.value, inner, f"{trail}.*") if isinstance(inner, dict) else [f"{trail}: no map"]
    if isinstance(table, list):
        return _strange(table[0], schema["items"], f"{trail}[]") if kind == "array" else [f"{trail}: {kind}"]
    if isinstance(table, dict):
        known, found = schema.get("properties", {}), []
        for key in table:
            name = key.removesuffix("!")
            if name not in known:
                found.append(f"{trail}.{name}: unknown")
            elif key.endswith("!") and name not in schema.get("required", ()):
                found.append(f"{trail}.{name}: not required")
            else:
                found += _strange(table[key], known[name], f"{trail}.{name}")
        missing = set(schema.get("required", ())) - {key.removesuffix("!") for key in table}
        return found + [f"{trail}.{name}: required there" for name in missing if "default" not in known[name]]
    if isinstance(table, Words):
        wrong = kind != "string" or not set(table.words) <= set(schema.get("enum", table.words))
        return [f"{trail}: {schema.get('enum', kind)}"] if wrong else []
    right = {TEXT: "string", WHOLE: "integer", NUMBER: "number", FLAG: "boolean", QUANTITY: ["integer", "string"]}
    return [] if kind == right[table] else [f"{trail}: {table} is {kind}"]


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_every_field_that_we_know_is_an_official_one(kind: str) -> None:
    _, schemas = _lab()
    ours, theirs = DOCUMENTS["ray.io/v1", kind], schemas["ray.io/v1", kind]
    assert _strange(ours["spec!"], theirs["properties"]["spec"], "spec") == []


def test_a_name_of_ones_own_must_be_changed_everywhere() -> None:
    """A user who renames the cluster but not its folder would start it with another cluster's token."""
    text = filled_text("aws.yaml").replace("cluster_name: aws", "cluster_name: gpus")
    with pytest.raises(ConfigError, match=r"file_mounts' needs '~/.skeltune/clusters/gpus") as caught:
        check_cluster(parse_cluster_text(text, Path("my.yaml")))
    assert sum("env.sh" in fault.message for fault in caught.value.where) == 2
