"""What a cloud's machine may be told: ``node_config`` for AWS (EC2's RunInstances) and GCP (instances.insert).

Ray passes it on unread, so a misspelt key shows only when a machine is asked for, minutes into `up`. For AWS the words
are those of botocore's own description of the call where that is installed; nothing here needs a network or a key.
"""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from tuning.config.yaml_source import Leaf, Node, Report, Table
from tuning.launch.tables import ANYTHING, FLAG, NUMBER, QUANTITY, TEXT, WHOLE, MapOf, Words, check_node, word

_AMI = re.compile(r"ami-[0-9a-f]{8,17}|latest_dlami", re.IGNORECASE)
_RAYS_OWN = {"SubnetIds": [TEXT]}  # one of them becomes SubnetId
_AWS_NAMES = (
    "AdditionalInfo", "BlockDeviceMappings", "CapacityReservationSpecification", "ClientToken", "CpuOptions",
    "CreditSpecification", "DisableApiStop", "DisableApiTermination", "DryRun", "EbsOptimized",
    "ElasticGpuSpecification", "ElasticInferenceAccelerators", "EnablePrimaryIpv6", "EnclaveOptions",
    "HibernationOptions", "IamInstanceProfile", "ImageId", "InstanceInitiatedShutdownBehavior",
    "InstanceMarketOptions", "InstanceType", "Ipv6AddressCount", "Ipv6Addresses", "KernelId", "KeyName",
    "LaunchTemplate", "LicenseSpecifications", "MaintenanceOptions", "MaxCount", "MetadataOptions", "MinCount",
    "Monitoring", "NetworkInterfaces", "NetworkPerformanceOptions", "Operator", "Placement",
    "PrivateDnsNameOptions", "PrivateIpAddress", "RamdiskId", "SecondaryInterfaces", "SecurityGroupIds",
    "SecurityGroups", "SubnetId", "TagSpecifications", "UserData",
)  # fmt: skip
_SHAPES = {
    "string": TEXT, "integer": WHOLE, "long": WHOLE, "boolean": FLAG, "float": NUMBER, "double": NUMBER,
}  # fmt: skip

_KEY_VALUES = [{"key!": TEXT, "value": TEXT}]
_DISK = {
    "boot": FLAG, "autoDelete": FLAG, "type": Words(("PERSISTENT", "SCRATCH")),
    "mode": Words(("READ_WRITE", "READ_ONLY")),
    "deviceName": TEXT, "source": TEXT, "interface": TEXT, "index": WHOLE, "diskSizeGb": QUANTITY, "kind": TEXT,
    "diskEncryptionKey": ANYTHING,
    "initializeParams": {
        "diskSizeGb": QUANTITY, "sourceImage": TEXT, "diskType": TEXT, "diskName": TEXT, "sourceSnapshot": TEXT,
        "labels": MapOf(TEXT), "provisionedIops": QUANTITY, "provisionedThroughput": QUANTITY, "description": TEXT,
        "resourcePolicies": [TEXT],
    },
}  # fmt: skip
_NETWORK = {
    "kind": TEXT, "network": TEXT, "subnetwork": TEXT, "networkIP": TEXT, "nicType": TEXT, "stackType": TEXT,
    "aliasIpRanges": ANYTHING, "accessConfigs": [{"kind": TEXT, "name": TEXT, "type": TEXT, "natIP": TEXT,
                                                  "networkTier": TEXT}],
}  # fmt: skip
_SCHEDULING = {
    "preemptible": FLAG, "provisioningModel": Words(("SPOT", "STANDARD", "RESERVATION_BOUND", "FLEX_START")),
    "instanceTerminationAction": Words(("DELETE", "STOP")), "onHostMaintenance": Words(("MIGRATE", "TERMINATE")),
    "automaticRestart": FLAG, "nodeAffinities": ANYTHING, "maxRunDuration": ANYTHING, "minNodeCpus": WHOLE,
}  # fmt: skip
GCP: dict[str, Any] = {
    "machineType": TEXT, "disks": [_DISK], "networkInterfaces": [_NETWORK],
    "serviceAccounts": [{"email!": TEXT, "scopes": [TEXT]}],
    "metadata": {"items": _KEY_VALUES, "kind": TEXT}, "tags": {"items": [TEXT]}, "labels": MapOf(TEXT),
    "guestAccelerators": [{"acceleratorType!": TEXT, "acceleratorCount!": WHOLE}], "minCpuPlatform": TEXT,
    "sourceInstanceTemplate": TEXT, "sourceMachineImage": TEXT, "shieldedInstanceConfig": ANYTHING,
    "confidentialInstanceConfig": ANYTHING, "advancedMachineFeatures": ANYTHING, "reservationAffinity": ANYTHING,
    "canIpForward": FLAG, "deletionProtection": FLAG, "description": TEXT, "hostname": TEXT, "resourcePolicies": [TEXT],
    "networkPerformanceConfig": ANYTHING, "params": ANYTHING, "privateIpv6GoogleAccess": TEXT,
    # machines with TPUs, made by another call
    "acceleratorType": TEXT, "acceleratorConfig": ANYTHING, "runtimeVersion": TEXT, "schedulingConfig": ANYTHING,
    "networkConfig": ANYTHING,
}  # fmt: skip


def check_aws(node: Node, report: Report, trail: str) -> None:
    """Report what EC2 would not understand of a ``node_config``."""
    check_node(node, _aws_table(), report, trail)
    image = node.get("ImageId") if isinstance(node, Table) else None
    if word(image) and image is not None and not _AMI.fullmatch(word(image)) and "EDIT" not in word(image):
        report.add(
            image.place, f"'{trail}.ImageId' must be an image such as ami-0123456789abcdef0, got {word(image)!r}"
        )
    if isinstance(node, Table) and "InstanceType" not in node.words and "LaunchTemplate" not in node.words:
        report.add(node.place, f"'{trail}' needs 'InstanceType'")


def check_gcp(node: Node, report: Report, trail: str) -> None:
    """Report what Compute Engine would not understand of a ``node_config``."""
    scheduling = node.get("scheduling") if isinstance(node, Table) else None
    as_list = scheduling is not None and not isinstance(scheduling, Table | Leaf)
    check_node(node, {**GCP, "scheduling": [_SCHEDULING] if as_list else _SCHEDULING}, report, trail)
    kinds = ("machineType", "acceleratorType", "acceleratorConfig", "sourceInstanceTemplate")
    if isinstance(node, Table) and not any(kind in node.words for kind in kinds):
        report.add(node.place, f"'{trail}' needs 'machineType'")


@functools.cache
def _aws_table() -> dict[str, Any]:
    """RunInstances' parameters: from botocore's own model, or their names alone."""
    try:
        botocore: Any = importlib.import_module("botocore.session")
    except ImportError:
        return {**dict.fromkeys(_AWS_NAMES, ANYTHING), **_RAYS_OWN, "InstanceType": TEXT, "ImageId": TEXT}
    model = botocore.Session().get_service_model("ec2")
    table = _table_of(model.operation_model("RunInstances").input_shape)
    # Ray sets how many; so they are not required here.
    return {**{key.removesuffix("!"): value for key, value in table.items()}, **_RAYS_OWN}


def _table_of(shape: Any) -> Any:
    """botocore's description of a value in our words."""
    if shape.type_name == "structure":
        required = set(shape.required_members)
        return {name + "!" * (name in required): _table_of(inner) for name, inner in shape.members.items()}
    if shape.type_name == "list":
        return [_table_of(shape.member)]
    if shape.type_name == "map":
        return MapOf(_table_of(shape.value))
    # Lists of machine types are always older than the machines: only short lists of words are held against the user.
    enum = tuple(getattr(shape, "enum", ()) or ())
    return Words(enum) if 0 < len(enum) <= 20 else _SHAPES.get(shape.type_name, ANYTHING)
