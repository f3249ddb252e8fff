"""Which fields a KubeRay file may have: the part of Kubernetes' and KubeRay's types that clusters for searches use.

Facts only: names, types, which are required. The language is that of :mod:`tuning.launch.tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuning.launch.tables import ANYTHING, FLAG, NUMBER, QUANTITY, TEXT, WHOLE, MapOf, Words

LABELS = MapOf(TEXT)

METADATA = {"name!": TEXT, "namespace": TEXT, "labels": LABELS, "annotations": LABELS}
_INNER_METADATA = {"name": TEXT, "namespace": TEXT, "labels": LABELS, "annotations": LABELS}
_EXPRESSION = {
    "key!": TEXT,
    "operator!": Words(("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")),
    "values": [TEXT],
}
_SELECTOR = {"matchLabels": LABELS, "matchExpressions": [_EXPRESSION]}
_KEY_OF = {"name": TEXT, "key!": TEXT, "optional": FLAG}
_ENV = {
    "name!": TEXT,
    "value": TEXT,
    "valueFrom": {
        "secretKeyRef": _KEY_OF,
        "configMapKeyRef": _KEY_OF,
        "fieldRef": {"fieldPath!": TEXT, "apiVersion": TEXT},
        "resourceFieldRef": {"resource!": TEXT, "containerName": TEXT, "divisor": QUANTITY},
    },
}
_ENV_FROM = {
    "prefix": TEXT,
    "secretRef": {"name": TEXT, "optional": FLAG},
    "configMapRef": {"name": TEXT, "optional": FLAG},
}
_RESOURCES = {"requests": MapOf(QUANTITY), "limits": MapOf(QUANTITY)}
_CAPABILITIES = {"add": [TEXT], "drop": [TEXT]}
_SECURITY = {
    "allowPrivilegeEscalation": FLAG, "capabilities": _CAPABILITIES, "privileged": FLAG, "readOnlyRootFilesystem": FLAG,
    "runAsGroup": WHOLE, "runAsNonRoot": FLAG, "runAsUser": WHOLE,
    "seccompProfile": {"type!": TEXT, "localhostProfile": TEXT},
}  # fmt: skip
_POD_SECURITY = {
    "fsGroup": WHOLE, "fsGroupChangePolicy": TEXT, "runAsGroup": WHOLE, "runAsNonRoot": FLAG, "runAsUser": WHOLE,
    "supplementalGroups": [WHOLE], "seccompProfile": {"type!": TEXT, "localhostProfile": TEXT},
}  # fmt: skip
_MOUNT = {
    "name!": TEXT, "mountPath!": TEXT, "subPath": TEXT, "readOnly": FLAG, "mountPropagation": TEXT, "subPathExpr": TEXT,
}  # fmt: skip
_HTTP_GET = {"path": TEXT, "port!": QUANTITY, "host": TEXT, "scheme": TEXT}
_HANDLER = {"exec": {"command": [TEXT]}, "httpGet": _HTTP_GET, "sleep": {"seconds!": WHOLE}}
_PROBE = {
    "exec": {"command": [TEXT]}, "httpGet": _HTTP_GET, "tcpSocket": {"port!": QUANTITY, "host": TEXT},
    "initialDelaySeconds": WHOLE, "periodSeconds": WHOLE, "timeoutSeconds": WHOLE, "successThreshold": WHOLE,
    "failureThreshold": WHOLE, "terminationGracePeriodSeconds": WHOLE,
}  # fmt: skip
_PULL = Words(("Always", "IfNotPresent", "Never"))
_CONTAINER = {
    "name!": TEXT, "image": TEXT, "imagePullPolicy": _PULL, "command": [TEXT], "args": [TEXT], "workingDir": TEXT,
    "env": [_ENV], "envFrom": [_ENV_FROM], "resources": _RESOURCES, "securityContext": _SECURITY,
    "volumeMounts": [_MOUNT], "lifecycle": {"preStop": _HANDLER, "postStart": _HANDLER},
    "ports": [{"containerPort!": WHOLE, "name": TEXT, "protocol": TEXT, "hostPort": WHOLE}],
    "livenessProbe": _PROBE, "readinessProbe": _PROBE, "startupProbe": _PROBE, "restartPolicy": TEXT, "tty": FLAG,
}  # fmt: skip
_ITEMS = [{"key!": TEXT, "path!": TEXT, "mode": WHOLE}]
_VOLUME = {
    "name!": TEXT,
    "persistentVolumeClaim": {"claimName!": TEXT, "readOnly": FLAG},
    "emptyDir": {"medium": TEXT, "sizeLimit": QUANTITY},
    "hostPath": {"path!": TEXT, "type": TEXT},
    "nfs": {"server!": TEXT, "path!": TEXT, "readOnly": FLAG},
    "secret": {"secretName": TEXT, "defaultMode": WHOLE, "items": _ITEMS, "optional": FLAG},
    "configMap": {"name": TEXT, "defaultMode": WHOLE, "items": _ITEMS, "optional": FLAG},
    "csi": {"driver!": TEXT, "readOnly": FLAG, "fsType": TEXT, "volumeAttributes": LABELS},
    "ephemeral": ANYTHING, "projected": ANYTHING, "downwardAPI": ANYTHING,
}  # fmt: skip
_TOLERATION = {
    "key": TEXT, "operator": Words(("Exists", "Equal", "Lt", "Gt")), "value": TEXT, "tolerationSeconds": WHOLE,
    "effect": Words(("NoSchedule", "PreferNoSchedule", "NoExecute")),
}  # fmt: skip
_POD = {
    "containers!": [_CONTAINER], "initContainers": [_CONTAINER], "volumes": [_VOLUME], "nodeSelector": LABELS,
    "tolerations": [_TOLERATION], "affinity": ANYTHING, "topologySpreadConstraints": ANYTHING, "dnsConfig": ANYTHING,
    "restartPolicy": Words(("Always", "OnFailure", "Never")), "terminationGracePeriodSeconds": WHOLE,
    "serviceAccountName": TEXT, "automountServiceAccountToken": FLAG, "imagePullSecrets": [{"name": TEXT}],
    "securityContext": _POD_SECURITY, "priorityClassName": TEXT, "runtimeClassName": TEXT, "schedulerName": TEXT,
    "hostNetwork": FLAG, "hostIPC": FLAG, "hostPID": FLAG, "dnsPolicy": TEXT, "enableServiceLinks": FLAG,
    "activeDeadlineSeconds": WHOLE, "shareProcessNamespace": FLAG, "nodeName": TEXT, "subdomain": TEXT,
}  # fmt: skip
_TEMPLATE = {"metadata": _INNER_METADATA, "spec": _POD}
_HEAD = {
    "rayStartParams": LABELS, "serviceType": TEXT, "headService": ANYTHING, "enableIngress": FLAG,
    "labels": LABELS, "resources": MapOf(TEXT), "template!": _TEMPLATE,
}  # fmt: skip
_WORKERS = {
    "groupName!": TEXT, "replicas": WHOLE, "minReplicas": WHOLE, "maxReplicas": WHOLE, "rayStartParams": LABELS,
    "template!": _TEMPLATE, "idleTimeoutSeconds": WHOLE, "numOfHosts": WHOLE, "suspend": FLAG, "labels": LABELS,
    "resources": MapOf(TEXT), "scaleStrategy": {"workersToDelete": [TEXT]},
}  # fmt: skip
_AUTOSCALER = {
    "version": Words(("v1", "v2")), "idleTimeoutSeconds": WHOLE, "image": TEXT, "imagePullPolicy": _PULL,
    "upscalingMode": Words(("Default", "Aggressive", "Conservative")), "resources": _RESOURCES, "env": [_ENV],
    "envFrom": [_ENV_FROM], "volumeMounts": [_MOUNT], "securityContext": _SECURITY, "args": [TEXT], "command": [TEXT],
}  # fmt: skip
CLUSTER_SPEC = {
    "rayVersion": TEXT,
    "authOptions": {"mode": Words(("disabled", "token")), "secretName": TEXT, "enableK8sTokenAuth": FLAG},
    "enableInTreeAutoscaling": FLAG, "autoscalerOptions": _AUTOSCALER, "headGroupSpec!": _HEAD,
    "workerGroupSpecs": [_WORKERS], "suspend": FLAG, "headServiceAnnotations": LABELS,
    "gcsFaultToleranceOptions": ANYTHING, "managedBy": TEXT, "networkPolicy": ANYTHING, "tlsOptions": ANYTHING,
    "upgradeStrategy": ANYTHING,
}  # fmt: skip
JOB_SPEC = {
    "entrypoint": TEXT, "clusterSelector": LABELS, "rayClusterSpec": CLUSTER_SPEC, "runtimeEnvYAML": TEXT,
    "submissionMode": Words(("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")),
    "submitterPodTemplate": _TEMPLATE, "submitterConfig": {"backoffLimit": WHOLE}, "shutdownAfterJobFinishes": FLAG,
    "ttlSecondsAfterFinished": WHOLE, "activeDeadlineSeconds": WHOLE, "backoffLimit": WHOLE, "suspend": FLAG,
    "entrypointNumCpus": NUMBER, "entrypointNumGpus": NUMBER, "entrypointResources": TEXT, "jobId": TEXT,
    "metadata": LABELS, "managedBy": TEXT, "deletionStrategy": ANYTHING, "preRunningDeadlineSeconds": WHOLE,
}  # fmt: skip
_PEER = {"podSelector": _SELECTOR, "namespaceSelector": _SELECTOR, "ipBlock": {"cidr!": TEXT, "except": [TEXT]}}
_PORT = {"port": QUANTITY, "endPort": WHOLE, "protocol": Words(("TCP", "UDP", "SCTP"))}
_POLICY_SPEC = {
    "podSelector!": _SELECTOR,
    "policyTypes": [Words(("Ingress", "Egress"))],
    "ingress": [{"from": [_PEER], "ports": [_PORT]}],
    "egress": [{"to": [_PEER], "ports": [_PORT]}],
}
_CLAIM_SPEC = {
    "accessModes": [Words(("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"))],
    "resources": _RESOURCES, "storageClassName": TEXT, "volumeName": TEXT, "volumeMode": TEXT, "selector": _SELECTOR,
}  # fmt: skip


def _document(**fields: Any) -> Mapping[str, Any]:
    return {"apiVersion!": TEXT, "kind!": TEXT, "metadata!": METADATA, **fields}


DOCUMENTS: dict[tuple[str, str], Mapping[str, Any]] = {
    ("ray.io/v1", "RayCluster"): _document(**{"spec!": CLUSTER_SPEC}),
    ("ray.io/v1", "RayJob"): _document(**{"spec!": JOB_SPEC}),
    ("v1", "Secret"): _document(type=TEXT, data=LABELS, stringData=LABELS, immutable=FLAG),
    ("v1", "ConfigMap"): _document(data=LABELS, binaryData=LABELS, immutable=FLAG),
    ("v1", "PersistentVolumeClaim"): _document(**{"spec!": _CLAIM_SPEC}),
    ("v1", "Namespace"): _document(spec=ANYTHING),
    ("v1", "ServiceAccount"): _document(automountServiceAccountToken=FLAG, imagePullSecrets=[{"name": TEXT}]),
    ("networking.k8s.io/v1", "NetworkPolicy"): _document(**{"spec!": _POLICY_SPEC}),
}
