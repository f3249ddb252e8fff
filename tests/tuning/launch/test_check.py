"""Planted faults, each caught at its own line; and whatever is thrown at the readers, a clear answer."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from methods.errors import InputError
from tests.tuning.launch.shipped import FILES, FOLDER, filled_text
from tuning.config.errors import ConfigError, Fault
from tuning.launch.check import check_cluster, grown, machines, shared_by, smallest
from tuning.launch.kinds import parse_cluster_text

ENV = "RAY_USAGE_STATS_ENABLED, value: "
HEX = "0123456789abcdef" * 4

# file, what is replaced (its first place), by what, a piece of the message, how many lines below the place it is caught
PLANTED = [
    # keys that nobody knows
    ("onprem.yaml", "auth:\n", "outh:\n", "unknown key 'outh' at the top of the file; did you mean 'auth'?", 0),
    ("onprem.yaml", "head_ip:", "head_ips:", "unknown key 'head_ips' in 'provider'; did you mean 'head_ip'?", 0),
    ("onprem.yaml", "ssh_user:", "ssh_usr:", "unknown key 'ssh_usr' in 'auth'; did you mean 'ssh_user'?", 0),
    ("onprem.yaml", "  shared:", "  share:", "'metadata' has an unknown key 'share'; did you mean 'shared'?", 0),
    ("aws.yaml", "min_workers: 0", "min_worker: 0", "unknown key 'min_worker' in 'available_node_types.gpu'", 0),
    ("aws.yaml", "InstanceMarketOptions", "InstanceMarketOption", "did you mean 'InstanceMarketOptions'?", 0),
    ("aws.yaml", "VolumeSize", "VolumeSise", "did you mean 'VolumeSize'?", 0),
    ("aws.yaml", "MarketType: spot", "MarketType: cheap", "got 'cheap'", 0),
    ("gcp.yaml", "machineType:", "machinetype:", "did you mean 'machineType'?", 0),
    ("gcp.yaml", "diskSizeGb", "diskSizeGB", "did you mean 'diskSizeGb'?", 0),
    ("gcp.yaml", "provisioningModel: SPOT", "provisioningModel: SPOTS", "did you mean 'SPOT'?", 0),
    ("kuberay.yaml", "workerGroupSpecs:", "workerGroupSpec:", "did you mean 'workerGroupSpecs'?", 0),
    ("kuberay.yaml", "mountPath: /shared", "mountpath: /shared", "did you mean 'mountPath'?", 0),
    ("kuberay.yaml", "backoffLimit", "backofLimit", "did you mean 'backoffLimit'?", 0),
    ("kuberay.yaml", "kind: RayJob", "kind: RayJobb", "unknown kind 'RayJobb'; did you mean 'RayJob'?", 0),
    ("kuberay.yaml", "networking.k8s.io/v1", "networking/v1", "has apiVersion networking.k8s.io/v1", 0),
    # values of the wrong kind
    ("aws.yaml", "max_workers: 8 ", "max_workers: eight ", "'max_workers' must be a whole number, got 'eight'", 0),
    ("aws.yaml", "GPU: 1", "GPU: one", "'available_node_types.gpu.resources.GPU' must be a whole number", 0),
    ("aws.yaml", "ami-0123456789abcdef0", "ubuntu", "must be an image such as ami-", 0),
    ("kuberay.yaml", "maxReplicas: 8", 'maxReplicas: "8"', "must be a whole number, got '8'", 0),
    ("kuberay.yaml", "cpu: \"4\", memory: 16Gi", "cpu: \"4\", memory: 16 GB",
     "must be a whole number, or a quantity", 0),
    # limits
    ("onprem.yaml", "10.0.0.3]", "10.0.0.2]", "the address 10.0.0.2 is given twice", 0),
    ("onprem.yaml", "[10.0.0.2,", "[10.0.0.1,", "the address 10.0.0.1 is the head's", 0),
    ("onprem.yaml", "provider:", "max_workers: 1\nprovider:", "'max_workers' is 1, but worker_ips has 2", 0),
    ("aws.yaml", "min_workers: 0", "min_workers: 9", "min_workers 9 is above max_workers 8", 0),
    ("aws.yaml", "max_workers: 8 ", "max_workers: -1 ", "must be at least 0, got -1", 0),
    ("aws.yaml", "head_node_type: head", "head_node_type: haed", "no node type 'haed'; did you mean 'head'?", 0),
    ("aws.yaml", "{CPU: 8, GPU: 1}", "{cpu: 8, GPU: 1}", "Ray calls it 'CPU'", 0),
    ("aws.yaml", "availability_zone: europe-west4-a", "availability_zone: us-east-1a", "not in the region", 0),
    ("kuberay.yaml", "minReplicas: 0", "minReplicas: 9", "minReplicas 9 is above maxReplicas 8", 0),
    ("kuberay.yaml", "replicas: 0", "replicas: 9", "replicas 9 is not between minReplicas 0 and maxReplicas 8", 0),
    ("kuberay.yaml", "nvidia.com/gpu: 1}", "nvidia.com/gpu: 2}", "nvidia.com/gpu is requested 2 and limited to 1", 0),
    ("kuberay.yaml", "{name: shm, mountPath", "{name: shn, mountPath", "no volume is called 'shn'", 0),
    ("kuberay.yaml", "{ray.io/cluster: lab}\n  submission", "{ray.io/cluster: lob}\n  submission",
     "did you mean 'lab'", 0),
    # the token, open doors, other people's Ray
    ("onprem.yaml", ". ~/.skeltune/clusters/onprem/env.sh && ", "", "the head's `ray start` must begin with", -1),
    ("onprem.yaml", "onprem/env.sh &&", "onprem/env.sh ;", "must be followed by &&", -1),
    ("onprem.yaml", "onprem/env.sh &&", "other/env.sh &&", "the head's `ray start` must begin with", -1),
    ("onprem.yaml", "--temp-dir=/tmp/skeltune-onprem/ray", "--temp-dir=/tmp/ray",
     "needs --temp-dir=/tmp/skeltune-onprem/ray", -3),
    ("onprem.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "must listen on 127.0.0.1 only", 0),
    ("onprem.yaml", "python3 ~/.skeltune/clusters/onprem/sweep.py", "ray stop", "`ray stop` ends every Ray", 0),
    ("onprem.yaml", "--node-ip-address=$3 --dash", "--dash", "needs --node-ip-address", -2),
    ("onprem.yaml", "--node-ip-address=$3 --dash", "--node-ip-address=10.0.0.7 --dash",
     "provider.head_ip is 10.0.0.1", -2),
    ("onprem.yaml", " --autoscaling-config=~/ray_bootstrap_config.yaml", "", "needs --autoscaling-config", -3),
    ("onprem.yaml", "--address=$RAY_HEAD_IP:6379", "--head", "needs --address", -2),
    ("onprem.yaml", "set -- $SSH", "export RAY_AUTH_MODE=disabled && set -- $SSH", "RAY_AUTH_MODE=disabled", 0),
    ("aws.yaml", "~/.skeltune/clusters/aws: ~/.skeltune/clusters/aws ", "~/x: /tmp ",
     "'file_mounts' needs '~/.skelt", -1),
    ("aws.yaml", "GroupName: skeltune-aws ", "IpPermissions: [{FromPort: 0, IpRanges: [{CidrIp: 0.0.0.0/0}]}] ",
     "may reach more than ssh", 0),
    ("aws.yaml", "boto3\n", f"boto3\n  - echo {HEX} > ~/t\n", "this looks like a token", 1),
    ("aws.yaml", "boto3\n", "boto3\n  - export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG\n",
     "looks like a password", 1),
    ("aws.yaml", "boto3\n", "boto3 git+https://me:hunter2@example.org/x\n", "this looks like a password in a URL", 0),
    ("kuberay.yaml", "mode: token", "mode: disabled", "must be token, got 'disabled'", 0),
    ("kuberay.yaml", "  authOptions: {mode: token, secretName: lab-token}\n", "", "the cluster has no token", -2),
    ("kuberay.yaml", 'rayVersion: "2.60.0"', 'rayVersion: "2.51.0"', "at least 2.52", 0),
    ("kuberay.yaml", "serviceType: ClusterIP", "serviceType: LoadBalancer", "shows the job API to the outside", 0),
    ("kuberay.yaml", ENV + '"0"', 'WANDB_API_KEY, value: "abc"', "a secret does not belong", 0),
    ("kuberay.yaml", "kind: RayJob", "kind: Secret\nstringData: {auth_token: abc}", "no secret in a file", 1),
    # what is not read, or not there
    ("aws.yaml", f"~/skeltune-wheel: {FOLDER}", "~/skeltune-wheel: /no/such/folder",
     "there is no /no/such/folder here", 0),
]  # fmt: skip


def faults_of(text: str, path: Path) -> list[Fault]:
    try:
        check_cluster(parse_cluster_text(text, path))
    except ConfigError as error:
        return list(error.where)
    return []


@pytest.mark.parametrize(("name", "old", "new", "message", "below"), PLANTED)
def test_a_planted_fault_is_caught_at_its_line(name: str, old: str, new: str, message: str, below: int | None) -> None:
    text = filled_text(name)
    assert old in text
    line = text[: text.index(old)].count("\n") + 1
    faults = faults_of(text.replace(old, new, 1), Path(name))
    found = [fault for fault in faults if message in fault.message]
    assert found, [str(fault) for fault in faults]
    assert below is None or line + below in [fault.line for fault in found], [str(fault) for fault in found]
    assert all(fault.line > 0 and fault.col > 0 for fault in faults)


def test_all_faults_come_at_once() -> None:
    text = filled_text("aws.yaml")
    for old, new in (
        ("ssh_user", "ssh_usr"),
        ("VolumeSize", "VolumeSise"),
        ("127.0.0.1", "0.0.0.0"),
        ("GPU: 1", "GPU: x"),
    ):
        text = text.replace(old, new, 1)
    faults = faults_of(text, Path("aws.yaml"))
    assert len({fault.line for fault in faults}) >= 4
    assert [fault.line for fault in faults] == sorted(fault.line for fault in faults)


def test_a_secret_is_not_repeated_in_the_message() -> None:
    faults = faults_of(filled_text("aws.yaml").replace("boto3\n", f"boto3 # {HEX}\n  - echo {HEX}\n"), Path("aws.yaml"))
    assert faults and HEX not in str([str(fault) for fault in faults])


def test_comments_and_digests_are_no_secrets_nor_left_to_fill_in() -> None:
    text = filled_text("kuberay.yaml").replace("image: &image image", f"image: &image me/x@sha256:{HEX}  # EDIT {HEX}")
    assert HEX in text and faults_of(text, Path("k.yaml")) == []


def test_a_fault_that_only_ray_knows_is_passed_on() -> None:
    """Ray's last word is asked for when all else is right, and comes as a fault, never as its own exit."""
    text = filled_text("aws.yaml").replace("auth:\n", "docker: {image: x}\nauth:\n")
    faults = faults_of(text, Path("aws.yaml"))
    assert [fault.line for fault in faults] == [text[: text.index("docker:")].count("\n") + 1]
    assert "Ray refuses this file" in faults[0].message


SPACE = """format: 1
name: mine
data: {set: %s}
search:
  methods: [skeletonclr]
budget: {trials: 8, parallel: %s, per_trial: {gpu: %s, cpu: %s}}
"""

FITS = [  # file, data.set, parallel, gpu, cpu, fault or None
    ("aws.yaml", "synthetic", 8, 1, 4, None),
    ("aws.yaml", "synthetic", 32, 0.25, 2, None),
    ("aws.yaml", "synthetic", 33, 0.25, 2, "33 trials at once do not fit"),
    ("aws.yaml", "synthetic", 9, 1, 1, "9 trials at once do not fit: aws.yaml grown to 68 CPU, 8 GPU holds 8"),
    ("aws.yaml", "synthetic", 16, 0.6, 1, "holds 8"),  # halves of two GPUs are no GPU
    ("aws.yaml", "synthetic", "auto", 2, 1, "a trial wants 2 GPU, but no machine of aws.yaml has more than 1"),
    ("aws.yaml", "synthetic", "auto", "auto", 9, "a trial wants 9 CPU"),
    ("kuberay.yaml", "synthetic", 9, 1, 1, "holds 8"),
    ("slurm.sh", "sets/mine", 2, 1, 1, None),
    ("onprem.yaml", "synthetic", 99, 8, 64, None),  # nobody knows what these machines have
    ("onprem.yaml", "/shared/ntu60", "auto", 1, 1, None),
    (
        "onprem.yaml",
        "/home/me/ntu60",
        "auto",
        1,
        1,
        "the workers will not see /home/me/ntu60: onprem.yaml shares /shared",
    ),
    ("onprem.yaml", "/shared/../home/me", "auto", 1, 1, "the workers will not see"),
    ("onprem.yaml", "/sharedness", "auto", 1, 1, "the workers will not see"),
    ("onprem.yaml", "sets/mine", "auto", 1, 1, "a job takes the code with it, never the data"),
    ("kuberay.yaml", "/shared/ntu60", "auto", 1, 1, None),
    ("kuberay.yaml", "/data/ntu60", "auto", 1, 1, "the workers will not see"),
]


@pytest.mark.parametrize(("name", "data", "parallel", "gpu", "cpu", "fault"), FITS)
def test_a_search_fits_the_cluster_or_it_is_said_where_not(
    name: str, data: str, parallel: object, gpu: object, cpu: object, fault: str | None, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE % (data, parallel, gpu, cpu))
    file = parse_cluster_text(filled_text(name), Path(name))
    if fault is None:
        assert check_cluster(file, space) == []
        return
    with pytest.raises(ConfigError) as caught:
        check_cluster(file, space)
    (only,) = caught.value.where
    assert fault in only.message
    assert (only.file, only.line) == (str(space), 3 if "data" in only.message else 6)


def test_data_from_a_url_needs_no_shared_folder_and_results_without_a_store_are_noted(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE % ("/home/me/ntu60", "auto", 1, 1))
    onprem, aws = (parse_cluster_text(filled_text(name), Path(name)) for name in ("onprem.yaml", "aws.yaml"))
    assert check_cluster(onprem, space, data_from="s3://b/ntu60", runs=Path("/shared/runs")) == []
    (data,) = check_cluster(aws, space)
    assert "--data-from" in data
    (runs,) = check_cluster(onprem, space, data_from="s3://b/ntu60", runs=Path("/home/me/runs"))
    assert "only with --store" in runs
    assert check_cluster(aws, space, data_from="s3://b/x", runs=Path("/r"), store="s3://b/runs") == []


def test_faults_of_the_space_and_of_the_cluster_come_together(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE % ("synthetic", "auto", 1, -1))
    with pytest.raises(ConfigError) as caught:
        check_cluster(parse_cluster_text(filled_text("aws.yaml").replace("GPU: 1", "gpu: 1"), Path("aws.yaml")), space)
    assert {fault.file for fault in caught.value.where} == {"aws.yaml", str(space)}
    with pytest.raises(InputError, match="no such file"):
        check_cluster(parse_cluster_text(filled_text("aws.yaml"), Path("aws.yaml")), tmp_path / "none.yaml")


def look_at_all(text: str) -> None:
    """Read, check and measure: a result, or the user's fault, never ours."""
    try:
        file = parse_cluster_text(text, Path("x"))
    except InputError:
        return
    with contextlib.suppress(ConfigError):
        check_cluster(file)
    assert smallest(file) >= 0 or machines(file)
    assert all(amount >= 0 for amount in grown(file).values())
    shared_by(file)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200))
@example("#SBATCH")
@example("#SBATCH --job-name=\n")
@example("--- \n...\n---\n")
@example("provider: []\ncluster_name: a")
@example("apiVersion: [1]\nkind: {}\n---\nkind: RayCluster\napiVersion: ray.io/v1\nmetadata: {name: a}")
def test_any_text_gives_an_answer(text: str) -> None:
    look_at_all(text)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(FILES), st.data())
def test_a_file_with_anything_anywhere_gives_an_answer(name: str, data: st.DataObject) -> None:
    """A shipped file with one value, key or line replaced by whatever there is."""
    lines = filled_text(name).split("\n")
    number = data.draw(st.integers(0, len(lines) - 1))
    key, colon, _ = lines[number].partition(":")
    value = json.dumps(data.draw(anything))
    choice = data.draw(st.sampled_from(["value", "drop", "line", "twice"]))
    if choice == "drop":
        del lines[number]
    elif choice == "twice":
        lines.insert(number, lines[number])
    else:
        lines[number] = f"{key}: {value}" if choice == "value" and colon else data.draw(st.text(max_size=40))
    look_at_all("\n".join(lines))
