"""Files for Ray's launcher: sizes, shared folders, node_config with and without botocore's own description."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.launch.shipped import filled_text
from tuning.config.errors import ConfigError
from tuning.launch import node_config
from tuning.launch.check import check_cluster, grown, machines, shared_by, smallest
from tuning.launch.kinds import ClusterFile, parse_cluster_text

TYPES = """cluster_name: lab
max_workers: %d
provider: {type: aws, region: r}
head_node_type: h
available_node_types:
  h: {resources: {CPU: 4}, node_config: {}}
  small: {resources: {CPU: 16}, min_workers: 1, max_workers: 4, node_config: {}}
  big: {resources: {CPU: 8, GPU: 4}, max_workers: 2, node_config: {}}
"""


def read(text: str) -> ClusterFile:
    return parse_cluster_text(text, Path("lab.yaml"))


@pytest.mark.parametrize(
    ("most", "cpu", "gpu"),
    [(9, 4 + 4 * 16 + 2 * 8, 8), (4, 4 + 2 * 16 + 2 * 8, 8), (2, 4 + 16 + 8, 4), (1, 4 + 16, 0)],
)
def test_grown_keeps_to_max_workers_and_prefers_gpus(most: int, cpu: float, gpu: float) -> None:
    """Never more than can be there at once: a search that waits for more would wait for ever."""
    file = read(TYPES % most)
    assert grown(file).get("CPU") == cpu and grown(file).get("GPU", 0) == gpu
    assert smallest(file) == 2


def test_a_head_type_that_may_have_workers_counts_twice() -> None:
    file = read((TYPES % 3).replace("node_config: {}}\n  small", "max_workers: 2, node_config: {}}\n  small"))
    assert [(m.name, m.least, m.most) for m in machines(file)][:2] == [("h", 1, 1), ("h", 0, 2)]


def test_what_is_not_said_is_not_guessed() -> None:
    assert grown(read((TYPES % 3).replace("{CPU: 16}", "{}"))) == {}
    assert grown(read(filled_text("onprem.yaml"))) == {}
    assert shared_by(read(filled_text("onprem.yaml"))) == ("/shared",)


def test_fewer_machines_may_do_for_a_start() -> None:
    """Ray's schema has no `min_workers` at the top, but Ray takes it for machines of one's own."""
    file = read(filled_text("onprem.yaml") + "min_workers: 1\n")
    assert check_cluster(file) == [] and smallest(file) == 2
    with pytest.raises(ConfigError, match="'min_workers' is 3, but worker_ips has 2"):
        check_cluster(read(filled_text("onprem.yaml") + "min_workers: 3\n"))


def test_a_long_name_is_refused_because_of_the_sockets() -> None:
    with pytest.raises(ConfigError, match="'cluster_name' has 30 characters, at most 24"):
        check_cluster(read(filled_text("onprem.yaml").replace("onprem", "x" * 30)))


def test_a_key_that_is_not_there_is_said_before_ray_trips_over_it(tmp_path: Path) -> None:
    text = filled_text("onprem.yaml").replace("ssh_private_key: ", f"ssh_private_key: {tmp_path}/none # ")
    with pytest.raises(ConfigError, match=r"there is no .*/none here"):
        check_cluster(read(text))


def test_a_provider_that_only_ray_knows_is_left_to_ray() -> None:
    text = filled_text("aws.yaml").replace("type: aws", "type: azure")
    assert any("only Ray's own rules were applied" in note for note in check_cluster(read(text)))


def test_the_cap_of_one_sort_above_the_cluster_is_noted_not_refused() -> None:
    text = filled_text("aws.yaml").replace("max_workers: 8 ", "max_workers: 4 ", 1)
    (note,) = check_cluster(read(text))
    assert "at most 4 of 8 'gpu' machines" in note
    assert grown(read(text)) == {"CPU": 4 + 4 * 8.0, "GPU": 4.0}


@pytest.mark.parametrize("key", ["Ebs: {VolumeSise: 128", "InstanceTypo: x"])
def test_without_botocore_the_names_of_parameters_are_still_known(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    node_config._aws_table.cache_clear()
    text = filled_text("aws.yaml").replace("InstanceType: m6i.xlarge", "InstanceTypo: x") if "Typo" in key else None
    try:
        if text is None:
            assert check_cluster(read(filled_text("aws.yaml").replace("Ebs: {VolumeSize: 128", key))) == []
        else:
            with pytest.raises(ConfigError, match="did you mean 'InstanceType'"):
                check_cluster(read(text))
    finally:
        node_config._aws_table.cache_clear()


def test_botocore_knows_every_name_of_ours() -> None:
    pytest.importorskip("botocore")
    node_config._aws_table.cache_clear()
    assert {*node_config._AWS_NAMES, "SubnetIds"} <= set(node_config._aws_table())


def test_checking_needs_no_ray_and_no_torch(tmp_path: Path) -> None:
    """A file with a fault is told about at once: neither is imported on the way."""
    path = tmp_path / "lab.yaml"
    path.write_text(filled_text("aws.yaml").replace("ssh_user", "ssh_usr"))
    space = tmp_path / "space.yaml"
    space.write_text("format: 1\nname: a\ndata: {set: synthetic}\nsearch: {methods: [skeletonclr]}\n")
    code = (
        "import sys; from pathlib import Path\n"
        "from tuning.launch.check import check_cluster; from tuning.launch.kinds import read_cluster_file\n"
        "try: check_cluster(read_cluster_file(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "except ValueError as e: assert 'ssh_usr' in str(e)\n"
        "else: sys.exit('no fault')\n"
        "print([m for m in ('torch', 'ray', 'botocore.session') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(space)], capture_output=True, text=True, check=True
    )
    wanted: list[Any] = ["botocore.session"] if importlib.util.find_spec("botocore") else []
    assert done.stdout.strip() == str(wanted)
