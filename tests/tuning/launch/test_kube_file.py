"""KubeRay files: sizes from limits, what head and workers both mount, and the rules of a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuning.launch.shipped import filled_text
from tuning.config.errors import ConfigError, Fault
from tuning.launch.check import check_cluster, grown, shared_by, smallest
from tuning.launch.kinds import ClusterFile, parse_cluster_text


def read(*changes: tuple[str, str]) -> ClusterFile:
    text = filled_text("kuberay.yaml")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return parse_cluster_text(text, Path("lab.yaml"))


def faults_of(*changes: tuple[str, str]) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        check_cluster(read(*changes))
    return list(caught.value.where)


def test_sizes_come_from_limits_and_what_ray_is_told() -> None:
    head = 'limits: {cpu: "4", memory: 16Gi}'
    assert grown(read((head, 'limits: {cpu: "3500m", memory: 16Gi}')))["CPU"] == 4 + 8 * 8
    assert grown(read(("rayStartParams: {}", 'rayStartParams: {num-cpus: "0"}')))["CPU"] == 8 * 8
    assert grown(read(('requests: {cpu: "4", memory: 16Gi}, ' + head, "limits: {memory: 16Gi}"))) == {}
    assert smallest(read(("minReplicas: 0", "minReplicas: 2"), ("replicas: 0", "replicas: 2"))) == 3
    with_hosts = read(("groupName: gpu", "groupName: gpu\n      numOfHosts: 2"), ("maxReplicas: 8", "maxReplicas: 3"))
    assert grown(with_hosts)["GPU"] == 6


def test_only_what_head_and_workers_both_mount_is_shared() -> None:
    text = filled_text("kuberay.yaml")
    assert shared_by(read()) == ("/shared",)
    own = text.replace("volumeMounts: *mounts", "volumeMounts: [{name: shm, mountPath: /dev/shm}]")
    assert shared_by(parse_cluster_text(own, Path("k"))) == ()
    other = text.replace("volumes: *volumes", "volumes: [{name: shared, emptyDir: {}}, {name: shm, emptyDir: {}}]")
    assert shared_by(parse_cluster_text(other, Path("k"))) == ()


def test_a_job_has_one_cluster_and_leaves_a_shared_one_alone() -> None:
    (neither,) = faults_of(("  clusterSelector: {ray.io/cluster: lab}\n", ""))
    assert "either 'clusterSelector' or 'rayClusterSpec'" in neither.message
    (ends,) = faults_of(("  backoffLimit: 3", "  backoffLimit: 3\n  shutdownAfterJobFinishes: true"))
    assert "for a cluster of the job's own" in ends.message


def test_growing_without_end_is_refused_and_a_missing_shm_noted() -> None:
    (fault,) = faults_of(("      maxReplicas: 8", "      # none"))
    assert "needs 'maxReplicas'" in fault.message
    notes = check_cluster(read(("              - {name: shm, mountPath: /dev/shm}\n", "")))
    assert len(notes) == 2 and all("/dev/shm" in note for note in notes)


def test_kinds_that_are_not_known_are_noted_and_misspelt_ones_refused() -> None:
    more = "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec: {anything: 1}\n"
    (note,) = check_cluster(parse_cluster_text(filled_text("kuberay.yaml") + more, Path("lab.yaml")))
    assert "a CronJob was not checked" in note


def test_the_autoscaler_v2_wants_pods_that_are_not_restarted() -> None:
    (fault,) = faults_of(("restartPolicy: Never", "restartPolicy: Always"))
    assert "restartPolicy: Never" in fault.message
