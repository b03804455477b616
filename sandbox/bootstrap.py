"""Writes into two empty clusters what an administrator would: kinds, storage classes, policy, clusters, credentials.

Everything is created or merged, so running it again after an upgrade brings an old sandbox up to date.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

import ramen.crds
import sandbox.crds
from activities.access.direct import DirectAccess
from activities.access.protocol import ClusterAccess, Object
from ramen.conditions import TRUE, Condition, PolicyCondition, find
from ramen.errors import AlreadyExists, HublessError
from ramen.kinds import (
    BY_KIND,
    CLUSTER_REGISTRY,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CONFIG_MAP,
    CRD,
    DRCLUSTER,
    DRPOLICY,
    NAMESPACE,
    NODE,
    SECRET,
    STORAGE_CLASS,
    VOLUME_REPLICATION_CLASS,
    Kind,
)
from ramen.names import (
    KUBECONFIG_KEY,
    RAMEN_CONFIG_KEY,
    RAMEN_CONFIG_MAP,
    RAMEN_NAMESPACE,
    REGISTRY_NAME,
    REPLICATION_ID,
    STORAGE_ID,
)
from ramen.objects import DRPolicy
from sandbox.controlplane import MANIFESTS
from sandbox.pki import user_name
from sandbox.s3server import OPERATOR_BUCKET
from sandbox.state import USERS, SandboxState

DEPLOY = Path(__file__).parent.parent / "deploy"

OPS_NAMESPACE = "ramen-ops"
STORAGE_CLASS_NAME = "array"
PROVISIONER = "array.sandbox.hubless.io"
REPLICATION = "array-replication"
INTERVAL = "1m"
POLICY = "gold"

ESTABLISHED_SECONDS = 90.0
"""Limit for the API server to serve new kinds; one second is normal."""

VALIDATED_SECONDS = 180.0
"""Limit for the workers to judge the policy; a few seconds are normal."""


def storage_id(cluster: str) -> str:
    """Which array a volume of that cluster lies on."""
    return f"array-{cluster}"


def s3_name(cluster: str) -> str:
    """Name of the S3 profile of a cluster's store, and of the Secret with its credentials."""
    return f"s3-{cluster}"


async def connect(state: SandboxState, cluster: str, user: str = "admin") -> DirectAccess:
    """A client with a user's kubeconfig; the caller closes it."""
    return await DirectAccess.from_kubeconfig(
        cluster, yaml.safe_load(state.kubeconfig(cluster, user).read_text()), call_seconds=30.0
    )


async def bootstrap(state: SandboxState) -> None:
    """Fills both clusters; raises what the API server answers (`ramen.errors`)."""
    accesses = {cluster: await connect(state, cluster) for cluster in state.clusters}
    try:
        uids = {cluster: await _uid(access) for cluster, access in accesses.items()}
        await asyncio.gather(*(_fill(state, cluster, access, uids) for cluster, access in accesses.items()))
    finally:
        for access in accesses.values():
            await access.close()


async def apply(access: ClusterAccess, kind: Kind, body: Object) -> None:
    """Creates an object or merges it into the one that is there; its `status`, if any, is written as well."""
    metadata = body["metadata"]
    try:
        await access.create(kind, body)
    except AlreadyExists:
        patch = {key: value for key, value in body.items() if key != "status"}
        await access.patch(kind, metadata["name"], patch, metadata.get("namespace"))
    if "status" in body:
        await access.patch(kind, metadata["name"], {"status": body["status"]}, metadata.get("namespace"), "status")


async def _uid(access: ClusterAccess) -> str:
    """UID of kube-system, by which Ramen knows a cluster; the API server creates it just after it is ready."""
    limit = time.monotonic() + ESTABLISHED_SECONDS
    while True:
        found = await access.read(NAMESPACE, "kube-system")
        if found:
            return str(found["metadata"]["uid"])
        if time.monotonic() > limit:
            raise HublessError(f"{access.name} has no namespace kube-system after {ESTABLISHED_SECONDS:g} s")
        await asyncio.sleep(0.05)


async def _fill(state: SandboxState, cluster: str, access: ClusterAccess, uids: dict[str, str]) -> None:
    definitions = [*ramen.crds.generate(), *sandbox.crds.generate()]
    await asyncio.gather(*(apply(access, CRD, body) for body in definitions))
    await asyncio.gather(
        *(apply(access, NAMESPACE, {"metadata": {"name": name}}) for name in (RAMEN_NAMESPACE, OPS_NAMESPACE)),
        *(apply(access, NODE, body) for body in _documents(MANIFESTS / "nodes.yaml")),
    )
    await asyncio.gather(*(apply(access, kind, body) for kind, body in _access_rules()))
    await _established(access, [body["metadata"]["name"] for body in definitions])
    await asyncio.gather(
        *(apply(access, SECRET, body) for body in _secrets(state)),
        apply(access, CONFIG_MAP, operator_config(state, cluster)),
        apply(access, STORAGE_CLASS, _storage_class(cluster)),
        apply(access, VOLUME_REPLICATION_CLASS, _replication_class(cluster)),
        *(apply(access, DRCLUSTER, body) for body in _dr_clusters(state)),
        apply(access, DRPOLICY, policy(list(state.clusters))),
        apply(access, CLUSTER_REGISTRY, _registry(state, uids)),
    )
    for body in _documents(DEPLOY / "epoch-policy.yaml"):
        await apply(access, BY_KIND[body["kind"]], body)


async def _established(access: ClusterAccess, names: Iterable[str]) -> None:
    waiting = set(names)
    limit = time.monotonic() + ESTABLISHED_SECONDS
    while waiting:
        for item in (await access.list(CRD))[0]:
            conditions = (item.get("status") or {}).get("conditions") or []
            if any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions):
                waiting.discard(item["metadata"]["name"])
        if waiting and time.monotonic() > limit:
            raise HublessError(f"{access.name} does not serve {', '.join(sorted(waiting))}")
        if waiting:
            await asyncio.sleep(0.1)


def _documents(path: Path) -> list[Object]:
    """All objects of a manifest; none when the file is missing."""
    return [body for body in yaml.safe_load_all(path.read_text()) if body] if path.exists() else []


def _access_rules() -> list[tuple[Kind, Object]]:
    """Roles of our users: the worker gets what a real installation gives it, the stand-ins everything."""
    rules: list[tuple[Kind, Object]] = []
    for body in _documents(DEPLOY / "rbac.yaml"):
        if "roleRef" in body:
            subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user_name("worker")}
            rules.append((BY_KIND[body["kind"]], {**body, "subjects": [subject]}))
        elif body["kind"] == CLUSTER_ROLE.kind:
            rules.append((CLUSTER_ROLE, body))
    everything = [user for user in USERS if user != "worker"]
    return rules + [(CLUSTER_ROLE_BINDING, _binding(user, "cluster-admin")) for user in everything]


def _binding(user: str, role: str) -> Object:
    group = "rbac.authorization.k8s.io"
    return {
        "metadata": {"name": f"{user_name(user)}-{role}"},
        "roleRef": {"apiGroup": group, "kind": CLUSTER_ROLE.kind, "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user_name(user)}],
    }


def _secret(name: str, data: dict[str, str]) -> Object:
    return {"metadata": {"name": name, "namespace": RAMEN_NAMESPACE}, "type": "Opaque", "stringData": data}


def _secrets(state: SandboxState) -> list[Object]:
    keys = {"AWS_ACCESS_KEY_ID": state.s3_access_key, "AWS_SECRET_ACCESS_KEY": state.s3_secret_key}
    return [
        *(_secret(s3_name(cluster), keys) for cluster in state.clusters),
        *(
            _secret(f"kubeconfig-{cluster}", {KUBECONFIG_KEY: state.kubeconfig(cluster, "worker").read_text()})
            for cluster in state.clusters
        ),
    ]


def operator_config(state: SandboxState, cluster: str) -> Object:
    """The dr-cluster operator's ConfigMap (vrg.md 6.2); workers read the S3 profiles from it too."""
    config: dict[str, Any] = {
        "apiVersion": "ramendr.openshift.io/v1alpha1",
        "kind": "RamenConfig",
        "ramenControllerType": "dr-cluster",
        "maxConcurrentReconciles": 50,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{state.clusters[cluster].ports['operator']}"},
        "metrics": {"bindAddress": "0"},
        "leaderElection": {"leaderElect": False, "resourceName": "dr-cluster.ramendr.openshift.io"},
        "ramenOpsNamespace": OPS_NAMESPACE,
        "volumeUnprotectionEnabled": True,
        "volSync": {"disabled": True},
        "kubeObjectProtection": {"disabled": True, "veleroNamespaceName": "velero"},
        "multiNamespace": {"FeatureEnabled": True, "volsyncSupported": True},
        "s3StoreProfiles": [
            {
                "s3ProfileName": s3_name(name),
                "s3Bucket": OPERATOR_BUCKET,
                "s3CompatibleEndpoint": other.s3_url,
                "s3Region": "us-east-1",
                "s3SecretRef": {"name": s3_name(name), "namespace": RAMEN_NAMESPACE},
            }
            for name, other in state.clusters.items()
        ],
    }
    return {
        "metadata": {"name": RAMEN_CONFIG_MAP, "namespace": RAMEN_NAMESPACE},
        "data": {RAMEN_CONFIG_KEY: yaml.safe_dump(config, sort_keys=False)},
    }


def _replication_labels(cluster: str) -> dict[str, str]:
    return {STORAGE_ID: storage_id(cluster), REPLICATION_ID: REPLICATION}


def _storage_class(cluster: str) -> Object:
    return {
        "metadata": {"name": STORAGE_CLASS_NAME, "labels": _replication_labels(cluster)},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def _replication_class(cluster: str) -> Object:
    return {
        "metadata": {"name": f"{STORAGE_CLASS_NAME}-{INTERVAL}", "labels": _replication_labels(cluster)},
        "spec": {"provisioner": PROVISIONER, "parameters": {"schedulingInterval": INTERVAL}},
    }


def _dr_clusters(state: SandboxState) -> list[Object]:
    return [
        {
            "metadata": {"name": name},
            "spec": {"s3ProfileName": s3_name(name), "region": cluster.region},
        }
        for name, cluster in state.clusters.items()
    ]


def policy(clusters: list[str]) -> Object:
    """The DRPolicy as an administrator writes it; the workers find its peer classes and validate it."""
    return {"metadata": {"name": POLICY}, "spec": {"drClusters": clusters, "schedulingInterval": INTERVAL}}


async def validated(state: SandboxState) -> None:
    """Waits until the workers have validated the policy on every cluster; raises `HublessError` with what they say."""
    limit = time.monotonic() + VALIDATED_SECONDS
    for cluster in state.clusters:
        access = await connect(state, cluster)
        try:
            while not (found := await _condition(access)) or found.status != TRUE:
                if time.monotonic() > limit:
                    said = found.message if found else "no worker has judged it"
                    raise HublessError(f"DRPolicy {POLICY} on {cluster} after {VALIDATED_SECONDS:g} s: {said}")
                await asyncio.sleep(0.1)
        finally:
            await access.close()


async def _condition(access: ClusterAccess) -> Condition | None:
    found = await access.read(DRPOLICY, POLICY)
    return find(DRPolicy.of(found).status.conditions, PolicyCondition.VALIDATED) if found else None


def _registry(state: SandboxState, uids: dict[str, str]) -> Object:
    return {
        "metadata": {"name": REGISTRY_NAME},
        "spec": {
            "clusters": [
                {
                    "name": name,
                    "region": cluster.region,
                    "kubeconfigSecret": f"kubeconfig-{name}",
                    "endpoint": cluster.api_url,
                    "clusterUID": uids[name],
                }
                for name, cluster in state.clusters.items()
            ]
        },
    }
