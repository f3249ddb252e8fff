"""What kind a cluster file is, what its cluster is called, and where things stand in files of several documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from methods.errors import InputError
from tuning.config.errors import ConfigError
from tuning.launch.kinds import parse_cluster_text, place_at, read_cluster_file

RAY = "cluster_name: my-lab\nprovider: {type: local, head_ip: a, worker_ips: [b]}\n"
KUBE = """# notes
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {text: "--- not a document"}
--- # the search
apiVersion: ray.io/v1
kind: RayJob
metadata: {name: job}
...
# nothing
---
apiVersion: ray.io/v1
kind: RayCluster
metadata:
  name: lab
"""
SLURM = "#!/bin/bash\n#SBATCH -p gpu\n#SBATCH --job-name=lab-2  # its name\n"


@pytest.mark.parametrize(
    ("text", "kind", "name", "documents"),
    [
        (RAY, "ray", "my-lab", 1),
        ("---\n" + RAY, "ray", "my-lab", 1),
        (KUBE, "kuberay", "lab", 3),
        (KUBE.replace("RayCluster", "Service"), "kuberay", "job", 3),
        (SLURM, "slurm", "lab-2", 0),
        (SLURM.replace("--job-name=", "-J "), "slurm", "lab-2", 0),
        (SLURM.replace("--job-name=lab-2", "--job-name 'lab-2'"), "slurm", "lab-2", 0),
        (SLURM.replace("#!/bin/bash\n", ""), "slurm", "lab-2", 0),
        (RAY.replace("\n", "\r\n"), "ray", "my-lab", 1),
    ],
)
def test_kind_and_name_are_read_from_the_file(text: str, kind: str, name: str, documents: int, tmp_path: Path) -> None:
    path = tmp_path / "anything.txt"
    path.write_bytes(text.encode())
    file = read_cluster_file(path)
    assert (file.kind, file.name, len(file.documents), file.path) == (kind, name, documents, path)
    assert (file.tree is None) == (kind == "slurm")


def test_each_document_knows_its_lines() -> None:
    file = parse_cluster_text(KUBE, Path("k.yaml"))
    assert [d.key_place("kind").line for d in file.documents] == [4, 9, 15]
    assert [d["kind"] for d in file.plain] == ["ConfigMap", "RayJob", "RayCluster"]
    with pytest.raises(ConfigError) as caught:
        parse_cluster_text(KUBE.replace("  name: lab", "  name: [lab"), Path("k.yaml"))
    assert caught.value.where[0].line >= 17


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("# only\n---\n# comments\n", 1, "holds only comments"),
        ("- a\n- b\n", 1, "this is no cluster file"),
        ("format: 1\nname: x\n", 1, "this is no cluster file"),
        (RAY + "---\n" + RAY, 1, "this is no cluster file"),
        ("provider: {type: aws}\n", 1, "the file needs 'cluster_name'"),
        (RAY.replace("my-lab", "My_Lab"), 1, "must be 1 to 40 small letters, digits and hyphens"),
        (RAY.replace("my-lab", "-x"), 1, "got '-x'"),
        (RAY.replace("my-lab", "x" * 41), 1, "1 to 40"),
        (RAY.replace("my-lab", "7"), 1, "got 7"),
        (RAY.replace("my-lab", "[a]"), 1, "got a list or mapping"),
        (RAY.replace("my-lab", "../x"), 1, "got '../x'"),
        (RAY + "auth: !!python/object:os.system {}\n", 3, "tags are not allowed"),
        (RAY + "cluster_name: two\n", 3, "'cluster_name' is given twice"),
        (KUBE.replace("RayCluster", "Service").replace("RayJob", "Service"), 4, "no document of this file is of kind"),
        (KUBE.replace("name: lab", "name: Lab"), 17, "got 'Lab'"),
        ("#!/bin/bash\necho\n", 1, "has no #SBATCH line"),
        ("#!/bin/bash\n#SBATCH -N 1\n", 2, "no '#SBATCH --job-name=NAME'"),
        (SLURM.replace("lab-2", "My Lab"), 3, "got 'My'"),
    ],
)
def test_what_is_no_cluster_file_is_said_at_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        parse_cluster_text(text, Path("x"))
    assert caught.value.where[0].line == line


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_cluster_file(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="folder"):
        read_cluster_file(tmp_path)
    (tmp_path / "latin").write_bytes(b"cluster_name: \xe4\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_cluster_file(tmp_path / "latin")


@pytest.mark.parametrize(("start", "line", "col"), [(0, 1, 1), (2, 1, 3), (3, 2, 1), (6, 3, 1), (7, 4, 1), (8, 4, 2)])
def test_places_in_a_text_with_all_kinds_of_line_ends(start: int, line: int, col: int) -> None:
    place = place_at("ab\ncd\r\u2028e", start)
    assert (place.line, place.col) == (line, col)
