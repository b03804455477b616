"""Reads of an application on one cluster that several activities share: VRG, tombstone, volumes and pods."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from activities.access.protocol import ClusterAccess, Object
from ramen import names, objects
from ramen.app import AppRef, Observed, PodCount, Volume
from ramen.desired import label_query, slim
from ramen.epoch import Epoch
from ramen.gates import VRGRead
from ramen.kinds import CONFIG_MAP, POD, PVC, VRG

ENDED = ("Succeeded", "Failed")
"""Phases of pods that write nothing any more; the operator's demotion waits for them all the same (vrg.md 2.4)."""


async def read_vrg(access: ClusterAccess, app: AppRef) -> Object | None:
    """The VRG as the API server has it now; None when there is none."""
    return await access.read(VRG, app.name, app.namespace)


async def read_tombstone(access: ClusterAccess, app: AppRef) -> Object | None:
    """The ConfigMap that keeps the epoch of an application whose VRG was deleted (S7)."""
    return await access.read(CONFIG_MAP, names.tombstone_name(app.name), app.namespace)


def what(app: AppRef, cluster: str) -> str:
    """The VRG as messages name it."""
    return f"VRG {app} on {cluster}"


def judged(app: AppRef, cluster: str, vrg: Object | None) -> VRGRead:
    """A VRG, or its absence, as the gates take it; raises `Invalid` for an object that is no VRG."""
    return VRGRead(cluster, app.namespace, app.name, objects.VRG.of(vrg) if vrg is not None else None)


def observed(cluster: str, vrg: Object | None, **more: Any) -> Observed:
    """A look that answered; `more` are further fields of `Observed`."""
    return Observed(cluster=cluster, vrg=slim(vrg) if vrg is not None else None, at=datetime.now(UTC), **more)


async def look(access: ClusterAccess, app: AppRef, cluster: str) -> Observed:
    """VRG, protected volumes and pods; the tombstone's epoch where no VRG carries one. Raises what the reads raise."""
    vrg = await read_vrg(access, app)
    tombstone = Epoch.of(await read_tombstone(access, app)) if Epoch.of(vrg) is None else None
    if vrg is None:
        return observed(cluster, None, tombstone=tombstone)
    spec, status = vrg.get("spec") or {}, vrg.get("status") or {}
    claims, pods = await asyncio.gather(
        select_pvcs(access, app.namespace, spec.get("pvcSelector") or {}), list_pods(access, app.namespace)
    )
    protected = {
        (entry.get("namespace") or app.namespace, entry["name"]) for entry in status.get("protectedPVCs") or []
    }
    volumes = [volume for volume in bound_volumes(claims) if (volume.namespace, volume.name) in protected]
    used = {claim["metadata"]["name"] for claim in claims} | {name for _, name in protected}
    ready = count_pods(mounting(pods, used))
    return observed(cluster, vrg, volumes=volumes, claims=len(claims), pods=ready, tombstone=tombstone)


async def select_pvcs(access: ClusterAccess, namespace: str, selector: dict[str, Any]) -> list[Object]:
    """PVCs of a namespace that a LabelSelector takes; raises `Invalid` for a selector that cannot be read."""
    return (await access.list(PVC, namespace, labels=label_query(selector) or None))[0]


async def list_pods(access: ClusterAccess, namespace: str) -> list[Object]:
    """All pods of a namespace."""
    return (await access.list(POD, namespace))[0]


def mounting(pods: list[Object], claims: set[str]) -> list[Object]:
    """Pods, in whatever phase, that refer to one of these PVCs of their namespace."""
    return [pod for pod in pods if claims & claims_of(pod)]


def claims_of(pod: Object) -> set[str]:
    """Names of the PVCs that a pod refers to."""
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if volume.get("persistentVolumeClaim")}


def count_pods(pods: list[Object]) -> PodCount:
    """Ready and all pods that have not ended."""
    alive = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in ENDED]
    ready = [
        pod
        for pod in alive
        for condition in (pod.get("status") or {}).get("conditions") or []
        if condition.get("type") == "Ready" and condition.get("status") == "True"
    ]
    return PodCount(ready=len(ready), total=len(alive))


def bound_volumes(claims: list[Object]) -> list[Volume]:
    """Volumes of PVCs that are bound to a PV and not being deleted."""
    return [
        Volume(
            namespace=claim["metadata"].get("namespace", ""),
            name=claim["metadata"]["name"],
            pv=claim["spec"]["volumeName"],
        )
        for claim in claims
        if (claim.get("status") or {}).get("phase") == "Bound"
        and (claim.get("spec") or {}).get("volumeName")
        and not claim["metadata"].get("deletionTimestamp")
    ]


def listed(names_found: list[str], most: int = 5) -> str:
    """Names in one line, cut after `most` of them."""
    shown = sorted(names_found)
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest} more" if rest > 0 else "")
