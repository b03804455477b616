"""The operator's side of S3: profiles of its configuration, uploads, what a restore reads, and its clean-up.

Uploads go through the profiles in the order of the spec and stop at the first failure, so stores may differ
(vrg.md 3.3); a restore takes the first profile that works (vrg.md 2.5). Stores and cluster never meet here: this
module neither reads nor writes the API server.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import yaml

from activities.access.s3 import S3Store
from ramen import names
from ramen.errors import HublessError
from sandbox.standins.vrg_reconcile import ARCHIVED, OPS_NAMESPACE

Object = dict[str, Any]

NO_STORE = "NoS3"
"""Marker name of a profile that means: keep nothing in S3 (vrg.md 2.10)."""

DESTINATION_HANDLE = "ramendr.openshift.io/destination-volume-handle"

PRUNED = (
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
    "replication.storage.openshift.io/",
    names.VRG_PREFIX,
)
"""Annotation prefixes of a PVC that speak of the cluster it came from."""


class StoreError(HublessError):
    """A profile cannot be used: unknown, without a secret, silent, or with unreadable objects."""

    retryable = True


class Bucket(Protocol):
    """What is needed of a store; `S3Store` has it."""

    async def get(self, key: str) -> bytes | None: ...
    async def put(self, key: str, body: bytes) -> str: ...
    async def list(self, prefix: str) -> list[str]: ...
    async def delete(self, key: str) -> None: ...


@dataclass(frozen=True)
class Profile:
    """One S3 profile with its credentials."""

    endpoint: str
    bucket: str
    region: str
    access_key: str
    secret_key: str


Connect = Callable[[Profile], Bucket]


def connect(profile: Profile) -> Bucket:
    """A client of the profile's bucket; contacts nothing yet."""
    return S3Store.connect(
        profile.endpoint, profile.bucket, profile.access_key, profile.secret_key, profile.region or "us-east-1"
    )


@dataclass(frozen=True)
class Config:
    """What the stand-in honours of the operator's configuration (vrg.md 6.2)."""

    ops_namespace: str = OPS_NAMESPACE
    unprotect_volumes: bool = True
    profiles: Mapping[str, Object] = field(default_factory=dict)
    """Profile by name, as written."""


def parse_config(config_map: Object | None) -> Config:
    """Reads the operator's ConfigMap; a missing one, or one that is no YAML, gives the defaults."""
    text = ((config_map or {}).get("data") or {}).get(names.RAMEN_CONFIG_KEY) or ""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    found = found if isinstance(found, dict) else {}
    profiles = {item["s3ProfileName"]: item for item in found.get("s3StoreProfiles") or ()}
    unprotect = found.get("volumeUnprotectionEnabled", True)
    return Config(found.get("ramenOpsNamespace") or OPS_NAMESPACE, bool(unprotect), profiles)


def encode(body: Object) -> bytes:
    """The object as the operator stores it: gzip of JSON with a newline (vrg.md 3.1)."""
    return gzip.compress((json.dumps(body, separators=(",", ":")) + "\n").encode(), mtime=0)


def decode(body: bytes) -> Object:
    """The object in a stored body; raises `StoreError` when it cannot be read."""
    try:
        found = json.loads(gzip.decompress(body))
        found["metadata"]["name"]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as err:
        raise StoreError(f"stored object cannot be read: {err}") from err
    return dict(found)


Stored = tuple[list[Object], list[Object]]
"""PVs and PVCs of one VRG in one store."""

GetSecret = Callable[[str, str], Awaitable[Object | None]]
"""Reads a Secret by namespace and name."""


class Stores:
    """The stores of one operator: profiles resolved at each use, clients kept while their settings stay."""

    def __init__(self, get_secret: GetSecret, make: Connect = connect) -> None:
        self._get_secret = get_secret
        self._make = make
        self._clients: dict[Profile, Bucket] = {}

    async def bucket(self, config: Config, name: str) -> Bucket:
        """The bucket of a profile; raises `StoreError` when the name is unknown or its secret is missing."""
        settings = config.profiles.get(name)
        if settings is None:
            raise StoreError(f"S3 profile {name} is not in the operator's configuration")
        reference = settings.get("s3SecretRef") or {}
        namespace = reference.get("namespace") or names.RAMEN_NAMESPACE
        secret = await self._get_secret(namespace, reference.get("name") or "")
        if secret is None:
            raise StoreError(f"secret {namespace}/{reference.get('name')} of S3 profile {name} is missing")
        profile = Profile(
            settings.get("s3CompatibleEndpoint") or "",
            settings.get("s3Bucket") or "",
            settings.get("s3Region") or "",
            _secret_value(secret, "AWS_ACCESS_KEY_ID"),
            _secret_value(secret, "AWS_SECRET_ACCESS_KEY"),
        )
        if profile not in self._clients:
            self._clients[profile] = self._make(profile)
        return self._clients[profile]

    async def upload_volume(
        self, config: Config, profiles: Sequence[str], vrg: Object, pv: Object, pvc: Object
    ) -> None:
        """Puts PV and PVC into every profile in order; raises at the first failure; `NoS3` and no profile are two."""
        if not profiles:
            raise StoreError("no S3 profile is configured")
        for name in profiles:
            bucket = await self.bucket(config, name)
            for key, body in zip(volume_keys(vrg, pvc, pv["metadata"]["name"]), (pv, pvc), strict=False):
                await bucket.put(key, encode(body))

    async def delete_volume(self, config: Config, profiles: Sequence[str], vrg: Object, pvc: Object) -> None:
        """Deletes the stored PV and PVC of a volume everywhere, under the legacy key too."""
        keys = volume_keys(vrg, pvc, pvc["spec"].get("volumeName") or "")
        for name in profiles:
            if name == NO_STORE:
                continue
            bucket = await self.bucket(config, name)
            await asyncio.gather(*(bucket.delete(key) for key in keys))

    async def upload_group(self, config: Config, profiles: Sequence[str], vrg: Object) -> bool:
        """Puts the VRG into every profile in order; True if at least one was tried.

        One name that cannot be resolved empties the list of stores, and nothing tells so (vrg.md 2.10); a store that
        fails raises.
        """
        try:
            buckets = [await self.bucket(config, name) for name in profiles if name != NO_STORE]
        except StoreError:
            return False
        key = names.vrg_key(vrg["metadata"]["namespace"], vrg["metadata"]["name"])
        for bucket in buckets:
            await bucket.put(key, encode(vrg))
        return bool(buckets)

    async def purge(self, config: Config, profiles: Sequence[str], namespace: str, name: str) -> None:
        """Deletes everything stored for a VRG; raises when a profile is unknown or its store fails (vrg.md 2.8)."""
        for profile in profiles:
            if profile == NO_STORE:
                continue
            bucket = await self.bucket(config, profile)
            keys = await bucket.list(names.operator_prefix(namespace, name))
            await asyncio.gather(*(bucket.delete(key) for key in keys))

    async def volumes(self, config: Config, profile: str, namespace: str, name: str) -> Stored:
        """All PVs and all PVCs stored for a VRG in one profile; one unreadable object fails the profile."""
        bucket = await self.bucket(config, profile)

        async def read(key: str) -> Object:
            body = await bucket.get(key)
            if body is None:
                raise StoreError(f"{key} vanished from S3 profile {profile}")
            return decode(body)

        found = []
        for prefix in (names.pv_prefix(namespace, name), names.pvc_prefix(namespace, name)):
            found.append(list(await asyncio.gather(*(read(key) for key in await bucket.list(prefix)))))
        return found[0], found[1]


def _secret_value(secret: Object, key: str) -> str:
    value = (secret.get("data") or {}).get(key)
    return base64.b64decode(value).decode() if value else ""


def volume_keys(vrg: Object, pvc: Object, pv_name: str) -> list[str]:
    """Keys of a volume: PV, PVC, and the PVC's legacy key where its namespace is the VRG's (vrg.md 3.2)."""
    namespace, name = vrg["metadata"]["namespace"], vrg["metadata"]["name"]
    claim = pvc["metadata"]
    prefix = names.pvc_prefix(namespace, name)
    keys = [names.pv_prefix(namespace, name) + pv_name, f"{prefix}{claim['namespace']}/{claim['name']}"]
    return [*keys, prefix + claim["name"]] if claim["namespace"] == namespace else keys


# --- What a restore makes of stored objects ---------------------------------------------------------------------------


def split_brain(pvs: Sequence[Object]) -> str | None:
    """The PVC that two stored PVs claim, as text; None if there is none (vrg.md 2.5)."""
    seen: dict[tuple[str, str], str] = {}
    for pv in pvs:
        claim = pv["spec"].get("claimRef") or {}
        key = (claim.get("namespace", ""), claim.get("name", ""))
        if key in seen:
            return f"PVs {seen[key]} and {pv['metadata']['name']} both claim PVC {key[0]}/{key[1]}"
        seen[key] = pv["metadata"]["name"]
    return None


def _fresh(body: Object, annotations: Object) -> Object:
    meta = body["metadata"]
    kept: Object = {"name": meta["name"], "annotations": {**annotations, names.RESTORED_BY_RAMEN: "True"}}
    if meta.get("namespace"):
        kept["namespace"] = meta["namespace"]
    if meta.get("labels"):
        kept["labels"] = dict(meta["labels"])
    return {"metadata": kept, "spec": copy.deepcopy(body["spec"])}


def pv_to_create(stored: Object, storage_class: Object | None) -> Object:
    """A stored PV made ready for another cluster: no uid in the claim, policy Retain, local CSI settings."""
    annotations = stored["metadata"].get("annotations") or {}
    result = _fresh(stored, {key: value for key, value in annotations.items() if key != ARCHIVED})
    spec = result["spec"]
    spec["persistentVolumeReclaimPolicy"] = "Retain"
    for cluster_bound in ("uid", "resourceVersion"):
        (spec.get("claimRef") or {}).pop(cluster_bound, None)
    csi = spec.get("csi")
    if csi is not None:
        csi["volumeHandle"] = annotations.get(DESTINATION_HANDLE) or csi["volumeHandle"]
        cluster_id = ((storage_class or {}).get("parameters") or {}).get("clusterID")
        if cluster_id and "clusterID" in (csi.get("volumeAttributes") or {}):
            csi["volumeAttributes"]["clusterID"] = cluster_id
    return result


def pvc_to_create(stored: Object) -> Object:
    """A stored PVC made ready for another cluster: still named after its volume, with its owner labels."""
    annotations = stored["metadata"].get("annotations") or {}
    return _fresh(stored, {key: value for key, value in annotations.items() if not key.startswith(PRUNED)})


def pv_obstacle(existing: Object, wanted: Object, claim: Object | None) -> str | None:
    """Why a PV that is already there cannot stand for the stored one; None if it can (vrg.md 2.5).

    `claim` is the PVC that the PV names, if it exists.
    """
    name = wanted["metadata"]["name"]
    if (existing.get("status") or {}).get("phase") != "Bound":
        if (existing["metadata"].get("annotations") or {}).get(names.RESTORED_BY_RAMEN) == "True":
            return None
        return f"PV {name} exists, unbound and not restored by Ramen"
    for path in (("storageClassName",), ("csi", "driver"), ("csi", "volumeHandle"), ("claimRef", "name")):
        if _at(existing["spec"], path) != _at(wanted["spec"], path):
            return f"PV {name} exists with another {'.'.join(path)}"
    if claim is not None and "deletionTimestamp" in claim["metadata"]:
        return f"PV {name} exists and its PVC is being deleted"
    return None


def pvc_obstacle(existing: Object, wanted: Object) -> str | None:
    """Why a PVC that is already there cannot stand for the stored one; None if it can (vrg.md 2.5)."""
    name = wanted["metadata"]["name"]
    if "deletionTimestamp" in existing["metadata"]:
        return f"PVC {name} is being deleted"
    if (existing.get("status") or {}).get("phase") != "Bound":
        return f"PVC {name} exists and is not bound"
    if existing["spec"].get("volumeName") != wanted["spec"].get("volumeName"):
        return f"PVC {name} exists and is bound to another volume"
    return None


def _at(body: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        body = (body or {}).get(step)
    return body
